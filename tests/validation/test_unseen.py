from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shop import Workspace
from tests.shop_steps import ShopSteps
from tests.validation.shop_data import run, shop, spec, write
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Unseen
from tidemill.runtime import Progress
from tidemill.validation import columns, scan, statistics, unseen
from tidemill.validation.statistics import ExtraCounts


def with_sites(rows: int, seed: int, sites: list[str | None]) -> pa.Table:
    return shop(rows, seed).set_column(3, "site", pa.array(sites, pa.string()))


def test_stops_with_the_column_and_the_share(tmp_path):
    train, valid = with_sites(300, 0, ["a", "b", None] * 100), with_sites(100, 1, ["a"] * 14 + ["new"] * 86)
    with pytest.raises(
        TidemillError, match=r"site in valid \(86.0 % of the rows, above 50.0 %, such as 'new'\)"
    ) as raised:
        run(tmp_path, {"train": train, "valid": valid}, unseen={"max": 0.5})
    assert raised.value.code is Code.UNSEEN_VALUES
    assert raised.value.details["unseen"] == [{"feature": "site", "split": "valid", "share": 0.86, "threshold": 0.5}]


def test_users_that_train_never_saw_stop_a_run_that_splits_ratings_by_time(tmp_path):
    """Each user rates films in one week, so that most users of the later splits are new."""
    rng, weeks = np.random.default_rng(0), 40
    user = np.repeat(np.arange(weeks * 5), 20)
    at = user // 5 * 7 * 86_400 + rng.integers(0, 9 * 86_400, len(user))
    liked = (rng.random(len(user)) < 0.5).astype(int)
    table = pa.table({"user": user, "item": rng.integers(0, 60, len(user)), "rated_at": at, "liked": liked})
    features = {name: {"kind": "categorical"} for name in ("user", "item")}
    experiment = {
        "name": "ratings",
        "source": {"tables": {"ratings": "rows.csv"}},
        "label": "liked",
        "key": ["user", "item"],
        "split": {"by": "time", "column": "rated_at"},
        "features": features,
        "models": [{"family": "gbdt"}],
        "validation": {"unseen": {"max": 0.5}},
    }
    workspace = Workspace(tmp_path)
    # A key occurs once.
    rows = table.to_pandas().drop_duplicates(["user", "item"])
    workspace.write(experiment, pa.Table.from_pandas(rows, preserve_index=False))
    steps = ShopSteps(workspace)
    steps.ingest(tmp_path, "examples")
    known = set(rows["user"][rows["rated_at"] < np.quantile(rows["rated_at"], 0.8)])
    data = Dataset(tmp_path / "examples")
    users = {split: data.read(split, ["user"])["user"].to_pylist() for split in ("train", "valid", "test")}
    assert set(users["train"]) <= known
    shares = {split: np.mean([each not in set(users["train"]) for each in users[split]]) for split in ("valid", "test")}
    assert shares["test"] == 1.0 and shares["valid"] > 0.5
    with pytest.raises(TidemillError) as stopped:
        steps.validate(tmp_path)
    assert stopped.value.code is Code.UNSEEN_VALUES
    assert "user in test (100 % of the rows, above 50.0 %, such as" in str(stopped.value)
    assert f"user in valid ({shares['valid']:.1%}".replace("%", " %") in str(stopped.value)
    assert "item in" not in str(stopped.value)


def test_reports_without_a_threshold(tmp_path):
    train, valid = with_sites(300, 0, ["a", "b", None] * 100), with_sites(100, 1, ["a", "c"] * 25 + [None] * 50)
    summary, outputs = run(tmp_path, {"train": train, "valid": valid})
    assert summary.unseen == {"site": 0.25}
    sentence = "site: 25.0 % of the rows of valid have values that train does not contain, such as 'c'"
    assert summary.notes == {"unseen": [sentence]}
    assert 'id="unseen"' in outputs.page
    assert "unseen values" in outputs.page
    run(tmp_path / "own", {"train": train, "valid": valid}, unseen={"max": 0.1, "columns": {"site": 0.25}})


def test_a_threshold_of_a_column_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(TidemillError, match=r"validation\.unseen\.columns\.sites: got 'sites'") as raised:
        run(tmp_path, {"train": shop(50)}, unseen={"columns": {"sites": 0.1}})
    assert raised.value.code is Code.MISSING_COLUMN


@settings(max_examples=25, deadline=None)
@given(
    train=st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "é", "c"])), min_size=1, max_size=12),
    valid=st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "e", "d"])), max_size=12),
    as_lists=st.booleans(),
)
def test_counts_as_sets_do(tmp_path_factory, train, valid, as_lists):
    folder = tmp_path_factory.mktemp("unseen")

    def table(values: list) -> pa.Table:
        if as_lists:
            values = [None if value is None else [value, None, "a"] for value in values]
        kind = pa.list_(pa.string()) if as_lists else pa.string()
        return pa.table({"y": pa.array([1] * len(values)), "x": pa.array(values, kind)})

    dataset = Dataset(write(folder / "examples", {"train": table(train), "valid": table(valid)}))
    found = columns.resolve(spec(labels=["y"], features=None, feature_columns=["x"]), dataset.schema(), None)
    extra = ExtraCounts()
    with scan.connect(folder) as connection:
        splits = {n: statistics.compute(connection, dataset, n, found, extra, Progress("t")) for n in dataset.splits}
    (share,) = unseen.measure({"valid": splits["valid"]}, found, Unseen())
    known = {value for value in train if value is not None}
    known |= {"a"} if as_lists and known else set()
    values = [value for value in valid if value is not None]
    values += ["a"] * len(values) if as_lists else []
    assert share.rows == sum(value not in known for value in values)
    total = len(values) + sum(value is None for value in valid)
    assert share.share == pytest.approx(share.rows / total if total else 0.0)


def test_flags_outliers_that_squeeze_a_zscore(tmp_path):
    rng = np.random.default_rng(0)
    ages = rng.integers(18, 90, 2000)
    ages[7] = 65_526
    features = {"visits": {"kind": "numeric"}, "price": {"kind": "numeric", "transform": "log"}}
    table = shop(2000).set_column(2, "visits", pa.array(ages))
    summary, outputs = run(tmp_path, {"train": table}, features=features, feature_columns=list(features))
    assert summary.outliers == ["visits"]
    assert "reach from 18 to 65,526" in outputs.page
    quantiles = duckdb.sql(
        "SELECT quantile_disc(v, [0.05, 0.95]) FROM (SELECT unnest($1) AS v)", params=[ages.tolist()]
    )
    low, high = quantiles.fetchall()[0][0]
    assert f"90 % of the rows lie between {low} and {high}" in outputs.page
    infinite = table.set_column(2, "visits", pa.array([float("inf"), *range(18, 90)] * 27 + [20.0] * 29))
    summary, _ = run(tmp_path / "3", {"train": infinite}, features=features, feature_columns=list(features))
    assert summary.outliers == []  # the transform takes infinities for missing values
    clipped = {**features, "visits": {"kind": "numeric", "transform": {"clip": [0.01, 0.99]}}}
    summary, _ = run(tmp_path / "2", {"train": table}, features=clipped, feature_columns=list(features))
    assert summary.outliers == []
