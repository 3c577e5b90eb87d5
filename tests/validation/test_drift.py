from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.validation.shop_data import Outputs, run, shop
from tidemill.errors import Code, TidemillError
from tidemill.validation.drift import jensen_shannon, l_infinity

histograms = st.integers(1, 30).flatmap(
    lambda bins: st.tuples(
        *[st.lists(st.integers(0, 10**6), min_size=bins, max_size=bins).filter(any).map(np.array)] * 2
    )
)
shares = st.dictionaries(st.sampled_from("abcdef") | st.none(), st.integers(1, 100), min_size=1).map(
    lambda counts: {value: count / sum(counts.values()) for value, count in counts.items()}
)


@given(histograms)
def test_jensen_shannon_is_a_bounded_symmetric_divergence(pair):
    one, two = pair
    distance = jensen_shannon(one, two)
    assert 0 <= distance <= 1
    assert distance == pytest.approx(jensen_shannon(two, one), abs=1e-12)
    assert jensen_shannon(one, one) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(one, 7 * two) == pytest.approx(distance, abs=1e-9)


@given(st.lists(st.integers(1, 1000), min_size=1), st.lists(st.integers(1, 1000), min_size=1))
def test_jensen_shannon_of_disjoint_histograms_is_one(one, two):
    left = np.array(one + [0] * len(two))
    right = np.array([0] * len(one) + two)
    assert jensen_shannon(left, right) == pytest.approx(1)


def test_jensen_shannon_of_a_known_pair():
    assert jensen_shannon(np.array([1, 0]), np.array([1, 1])) == pytest.approx(0.311278, abs=1e-6)


@given(shares, shares)
def test_l_infinity_is_the_largest_difference(one, two):
    distance, where = l_infinity(one, two)
    differences = {v: abs(one.get(v, 0) - two.get(v, 0)) for v in {*one, *two}}
    assert distance == pytest.approx(max(differences.values()))
    assert distance == 0 or distance == pytest.approx(differences[where])
    assert l_infinity(one, one)[0] == 0


def moved(**columns: pa.Array) -> pa.Table:
    table = shop(1000, seed=1)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def test_equal_data_does_not_drift(tmp_path):
    train = shop(1000)
    limits = {"numeric": 1e-9, "categorical": 1e-9}
    summary, _ = run(tmp_path, {"train": train, "valid": train, "test": train}, drift=limits)
    assert summary.drifted == []


CASES = {
    "shifted number": ({"price": pa.array(np.random.default_rng(0).lognormal(4, 1, 1000))}, "price against valid"),
    "number gone missing": ({"visits": pa.nulls(1000, pa.int32())}, "visits against valid (Jensen-Shannon 1.0000"),
    "number beyond the range": ({"visits": pa.array([10**6] * 1000, pa.int32())}, "visits against valid"),
    "other shares": ({"site": pa.array(["site1"] * 1000)}, "site against valid"),
    "new value": ({"site": pa.array(["new"] * 900 + [None] * 100)}, "at 'new'"),
    "category gone missing": ({"site": pa.array([None] * 1000, pa.string())}, "at missing values"),
    "integer category": ({"hour": pa.array([3] * 1000, pa.int8())}, "at '3'"),
}


@pytest.mark.parametrize(("columns", "text"), CASES.values(), ids=CASES)
def test_drift_above_a_threshold_fails(tmp_path, columns, text):
    limits = {"numeric": 0.1, "categorical": 0.2}
    with pytest.raises(TidemillError) as raised:
        run(tmp_path, {"train": shop(1000), "valid": moved(**columns)}, drift=limits)
    assert raised.value.code is Code.DRIFT
    assert text in str(raised.value)
    (drifted,) = raised.value.details["drifted"]
    assert drifted["feature"] in columns
    assert drifted["distance"] > drifted["threshold"]
    assert "drift" in Outputs(tmp_path / "out").page


def test_reports_drift_without_thresholds(tmp_path):
    columns = CASES["shifted number"][0]
    summary, outputs = run(tmp_path, {"train": shop(1000), "valid": moved(**columns)})
    assert summary.drifted == ["price"]
    assert "price" in outputs.page


def test_thresholds_apply_only_to_the_named_splits(tmp_path):
    splits = {"train": shop(1000), "valid": moved(**CASES["shifted number"][0])}
    summary, _ = run(tmp_path, splits, drift={"numeric": 0.1, "between": ["test"]})
    assert summary.drifted == ["price"]


def test_one_feature_has_a_threshold_of_its_own(tmp_path):
    splits = {"train": shop(1000), "valid": moved(**CASES["shifted number"][0])}
    run(tmp_path / "1", splits, drift={"numeric": 0.1, "columns": {"price": 0.99}})
    with pytest.raises(TidemillError, match="price against valid"):
        run(tmp_path / "2", splits, drift={"columns": {"price": 0.1}})


def published(folder, table: pa.Table) -> str:
    """Publishes a model with the statistics of the table and returns its URI."""
    run(folder / "earlier", {"train": table})
    model = folder / "models" / "shop" / "1"
    (model / "tidemill").mkdir(parents=True)
    (folder / "earlier" / "out" / "statistics").rename(model / "tidemill" / "statistics")
    return str(model)


def test_compares_with_the_previous_model(tmp_path):
    uri = published(tmp_path, shop(1000))
    limits = {"numeric": 0.05, "categorical": 0.1, "between": ["previous"]}
    assert run(tmp_path / "same", {"train": shop(1000)}, previous=uri, drift=limits)[0].drifted == []
    with pytest.raises(TidemillError, match="price against previous") as raised:
        run(tmp_path / "other", {"train": moved(**CASES["shifted number"][0])}, previous=uri, drift=limits)
    assert raised.value.code is Code.DRIFT


def test_a_number_that_was_a_category_drifts(tmp_path):
    uri = published(tmp_path, shop(1000))
    table = shop(1000).set_column(3, "site", pa.array(np.arange(1000)))
    features = {"site": {"kind": "numeric"}, "price": {"kind": "numeric"}}
    with pytest.raises(TidemillError, match=r"site against previous \(Jensen-Shannon 1.0000"):
        run(
            tmp_path / "other",
            {"train": table},
            features=features,
            feature_columns=list(features),
            previous=uri,
            drift={"numeric": 0.1, "between": ["previous"]},
        )


def test_reports_a_previous_model_without_statistics(tmp_path):
    _, outputs = run(tmp_path, {"train": shop(100)}, previous=str(tmp_path / "models"), drift={"between": ["previous"]})
    assert "has no statistics" in outputs.page


def test_rejects_damaged_statistics_of_the_previous_model(tmp_path):
    uri = published(tmp_path, shop(100))
    file = tmp_path / "models" / "shop" / "1" / "tidemill" / "statistics" / "Split-train" / "FeatureStats.pb"
    file.write_bytes(b"\xff\xff")
    with pytest.raises(TidemillError) as raised:
        run(tmp_path / "new", {"train": shop(100)}, previous=uri)
    assert raised.value.code is Code.UNREADABLE_FILE
    assert not (tmp_path / "new" / "out" / "statistics").exists()
