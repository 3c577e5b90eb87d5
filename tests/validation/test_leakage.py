from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tests.validation.shop_data import Outputs, run, shop
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Leakage
from tidemill.validation import column_totals, leakage, page, statistics
from tidemill.validation.leakage import LeakageReport, Strength, _LabelHalves

ROWS = 6000


def rides(rows: int = ROWS, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns rides with planned start and end minutes. A ride that ends 15 minutes or more after its plan is late."""
    rng = np.random.default_rng(seed)
    start = rng.choice(np.arange(360, 1380, 5), rows)
    length = rng.choice([60, 95, 140, 210], rows)
    delay = rng.normal(-5, 25, rows) + (start - 800) / 60
    columns = {"start": start, "length": length, "end": start + length, "late": (delay >= 15).astype(np.int8)}
    columns |= {"ended": np.round(start + length + delay), "delay": np.round(delay), "wind": rng.normal(0, 1, rows)}
    return columns


def validate_rides(tmp_path, columns: dict, names: list[str], kinds: dict[str, str] | None = None, **changes):
    table = pa.table({n: columns[n] for n in [*names, "late", *changes.pop("carried", [])]})
    features = {n: {"kind": (kinds or {}).get(n, "numeric")} for n in names}
    fields = {"labels": ["late"], "key": [], "features": features, "feature_columns": names} | changes
    return run(tmp_path, {"train": table}, **fields)


PLAN = ["start", "length", "end", "wind"]


def leaks(tmp_path, *args, **changes) -> list[dict]:
    with pytest.raises(TidemillError) as raised:
        validate_rides(tmp_path, *args, **changes)
    assert raised.value.code is Code.LEAKAGE
    for leak in raised.value.details["leaks"]:
        assert leak["feature"] in str(raised.value)
        assert leak["auc"] > 0.85
    assert "leakage" in Outputs(tmp_path / "out").page
    return raised.value.details["leaks"]


def test_features_known_before_the_label_pass(tmp_path):
    summary, _ = validate_rides(tmp_path, rides(), PLAN)
    assert set(summary.strongest) == set(PLAN)
    assert summary.strongest["wind"] == pytest.approx(0.5, abs=0.05)
    assert 0.55 < summary.strongest["start"] < 0.7


def test_reports_a_feature_that_restates_the_label(tmp_path):
    (leak,) = leaks(tmp_path, rides(), [*PLAN, "delay"])
    assert (leak["feature"], leak["with"]) == ("delay", None)
    assert leak["auc"] > 0.99


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_reports_a_feature_that_leaks_in_a_pair(tmp_path, kind):
    columns = rides(20_000) | {"ended": rides(20_000)["ended"].astype(np.int64)}
    (leak,) = leaks(tmp_path, columns, [*PLAN, "ended"], {"ended": kind})
    assert (leak["feature"], leak["with"]) == ("ended", "end")


def test_reports_each_leak(tmp_path):
    reported = leaks(tmp_path, rides(20_000), [*PLAN, "ended", "delay"])
    assert [leak["feature"] for leak in reported] == ["delay", "ended"]


def test_reports_missing_values_that_leak(tmp_path):
    columns = rides()
    columns["refund"] = pa.array(np.ones(ROWS), mask=columns["late"] == 0)
    assert [leak["feature"] for leak in leaks(tmp_path, columns, [*PLAN, "refund"])] == ["refund"]


def test_reports_a_string_that_leaks(tmp_path):
    columns = rides()
    columns["status"] = np.where(columns["late"] == 1, "apology sent", "closed")
    (leak,) = leaks(tmp_path, columns, [*PLAN, "status"], {"status": "categorical"})
    assert leak["feature"] == "status"


def test_allowed_features_pass(tmp_path):
    summary, _ = validate_rides(tmp_path, rides(), [*PLAN, "delay", "ended"], leakage={"allow": ["delay", "ended"]})
    assert summary.strongest["delay"] > 0.99


def test_max_strength_1_turns_the_gate_off(tmp_path):
    validate_rides(tmp_path, rides(), [*PLAN, "delay"], leakage={"max_strength": 1.0})


def test_identifiers_do_not_leak(tmp_path):
    columns = rides()
    columns["ride"] = np.array([f"ride{i}" for i in range(ROWS)])
    columns["number"] = np.random.default_rng(1).permutation(ROWS)
    summary, _ = validate_rides(tmp_path, columns, [*PLAN, "ride", "number"], {"ride": "categorical"})
    assert summary.strongest["ride"] == pytest.approx(0.5)


def test_values_that_the_split_keeps_together_do_not_leak(tmp_path):
    rng = np.random.default_rng(0)
    session = rng.integers(0, 1000, ROWS)
    late = rng.integers(0, 2, 1000)[session].astype(np.int8)
    columns = {"session": session, "late": late, "wind": rng.normal(0, 1, ROWS)}
    reported = leaks(tmp_path / "rows", columns, ["session", "wind"])
    assert [leak["feature"] for leak in reported] == ["session"]
    validate_rides(tmp_path / "sessions", columns, ["session", "wind"], split_column="session")


def test_does_not_judge_too_few_rows(tmp_path):
    summary, outputs = validate_rides(tmp_path, rides(60), [*PLAN, "delay"])
    assert summary.strongest == {}
    assert "Not measured" in outputs.page


def test_pairs_of_noise_do_not_leak(tmp_path):
    rng = np.random.default_rng(0)
    noise = {f"n{i}": rng.normal(0, 1, 4000) for i in range(6)}
    columns = {**noise, "late": rng.integers(0, 2, 4000)}
    summary, _ = validate_rides(tmp_path, columns, list(noise), leakage={"max_strength": 0.6})
    assert max(summary.strongest.values()) < 0.56


def test_results_are_deterministic(tmp_path):
    one, two = (validate_rides(tmp_path / name, rides(), PLAN)[0] for name in ("one", "two"))
    assert one == two


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1))))
def test_auc_equals_sklearn(pairs):
    cells, target = np.array([*pairs, (0, 0), (1, 1)]).T
    halves = _LabelHalves(target.astype(float), target.astype(float))
    rates = np.array([0.3, 0.1, 0.1, 0.9, 0.5, 0.2])
    assert halves.auc(rates, cells) == pytest.approx(roc_auc_score(target, rates[cells]))


def test_features_of_the_shop_pass(tmp_path):
    run(tmp_path, {"train": shop(5000)})


def two_labels(rows: int = ROWS) -> dict:
    """Returns rides with a second, independent label, which `refund` restates."""
    columns = rides(rows)
    claimed = (np.random.default_rng(9).random(rows) < 0.2).astype(np.int8)
    noise = np.random.default_rng(10).normal(0, 0.1, rows)
    return columns | {"claimed": claimed, "refund": claimed + noise}


def test_reports_a_leak_of_the_second_label(tmp_path):
    fields = {"labels": ["late", "claimed"], "carried": ["claimed"]}
    with pytest.raises(TidemillError, match="the label 'claimed' implausibly well: refund") as raised:
        validate_rides(tmp_path, two_labels(), [*PLAN, "refund"], **fields)
    assert raised.value.code is Code.LEAKAGE and raised.value.details["label"] == "claimed"
    page = Outputs(tmp_path / "out").page
    assert "of late" in page and "of claimed" in page


def test_summarizes_the_strongest_features_of_several_labels(tmp_path):
    fields = {"labels": ["late", "claimed"], "carried": ["claimed"], "leakage": {"allow": ["refund"]}}
    summary, outputs = validate_rides(tmp_path, two_labels(), [*PLAN, "refund"], **fields)
    assert summary.strongest["refund"] > 0.99 and summary.strongest["start"] > 0.55
    assert "claimed" not in summary.strongest and "late" not in summary.strongest
    assert "late: mean 0." in outputs.page and "claimed: mean 0." in outputs.page


def test_the_sentence_about_the_strongest_pair_agrees_with_the_limit():
    alone = [Strength("ended", 0.84, 0.001), Strength("began", 0.5, 0.001)]
    pair = Strength("began", 0.9, 0.001, "ended")
    limit = Leakage(max_strength=0.85)
    leak = page.pair_note(LeakageReport(alone, [pair], [Strength("ended", 0.9, 0.001, "began")], 100), limit)
    assert leak == "The strongest pair is began with ended: 0.900, more than the limit 0.85: a leak."
    weak = page.pair_note(LeakageReport(alone, [Strength("began", 0.86, 0.01, "ended")], [], 100), limit)
    assert weak.endswith("0.860, 0.840 after two standard errors are subtracted, not more than the limit 0.85.")
    near = page.pair_note(LeakageReport(alone, [pair], [], 100), limit)
    assert "no leak, although it is more than the limit 0.85, because ended alone has 0.840" in near
    assert page.pair_note(LeakageReport(alone), limit) == ""


def test_a_limit_of_1_turns_the_gate_off(tmp_path, monkeypatch):
    """Nothing of the gate is computed, even if a feature is the label itself."""

    def read(*_: object) -> None:
        raise AssertionError("the gate reads the examples")

    monkeypatch.setattr(leakage, "_Sample", read)
    columns = rides() | {"restated": rides()["late"].astype(np.int64)}
    summary, outputs = validate_rides(tmp_path, columns, [*PLAN, "restated"], leakage={"max_strength": 1.0})
    assert summary.strongest == {}
    assert "Not measured: validation.leakage.max_strength is 1" in outputs.page


def test_measures_pairs_of_the_strongest_features_only(tmp_path, monkeypatch):
    columns = rides(20_000)
    for index in range(5):
        columns[f"noise{index}"] = np.random.default_rng(index).normal(0, 1, 20_000)
    names = ["noise0", "noise1", "noise2", "noise3", "noise4", *PLAN]
    monkeypatch.setattr(leakage, "PAIRED_FEATURES", 3)
    measured = []
    measure = leakage.measure
    monkeypatch.setattr(leakage, "measure", lambda *args: measured.append(measure(*args)) or measured[-1])
    validate_rides(tmp_path, columns, names)
    (report,) = measured
    assert report.paired == 3 and len(report.pairs) == 3 and len(report.alone) == len(names)
    strongest = {strength.feature for strength in report.alone[:3]}
    assert {name for pair in report.pairs for name in (pair.feature, pair.partner)} == strongest


def test_draws_a_sample_of_the_size_that_is_set(tmp_path, monkeypatch):
    measured = []
    measure = leakage.measure
    monkeypatch.setattr(leakage, "measure", lambda *args: measured.append(measure(*args)) or measured[-1])
    validate_rides(tmp_path, rides(20_000), PLAN, leakage={"sample_rows": 4000})
    assert 1700 < measured[0].rows < 2300


def test_wide_examples_have_the_statistics_of_narrow_ones(tmp_path, monkeypatch):
    """The columns are read in groups and copied, and the gate reads them in groups as well."""
    columns = rides() | {f"copy{i}": rides()["wind"] + i for i in range(6)}
    names = [*PLAN, *(f"copy{i}" for i in range(6))]
    narrow = validate_rides(tmp_path / "narrow", columns, names)
    monkeypatch.setattr(statistics, "COLUMNS_AT_ONCE", 3)
    monkeypatch.setattr(column_totals, "COLUMNS_AT_ONCE", 2)
    monkeypatch.setattr(leakage, "_COLUMNS_AT_ONCE", 3)
    wide = validate_rides(tmp_path / "wide", columns, names)
    assert narrow[0] == wide[0]
    files = [outputs.folder / "statistics" / "Split-train" / "FeatureStats.pb" for _, outputs in (narrow, wide)]
    assert files[0].read_bytes() == files[1].read_bytes()
