"""Splits depend only on the rows, not on files or order, and have the requested fractions."""

import functools
import hashlib
import itertools
import json
import random

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.runs import Runner, rows
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError

COUNT = 2000
FRACTIONS = {"train": 0.7, "valid": 0.2, "test": 0.1}
SPLITS = {
    "random-by-key": ({"by": "random", "seed": 3}, ["id"]),
    "random-by-row": ({"by": "random"}, []),
    "hash-by-key": ({"by": "hash"}, ["id"]),
    "hash-by-column": ({"by": "hash", "column": "user"}, ["id"]),
    "time": ({"by": "time", "column": "day"}, ["id"]),
    "time-by-row": ({"by": "time", "column": "day"}, []),
    "column": ({"by": "column", "column": "part"}, ["id"]),
}
PARTS = ("train", "train", "valid", "test")
LINES = [
    f"{i},user{i * 7919 % 300},2013-{i * 31 % 12 + 1:02d}-{i * 17 % 28 + 1:02d},{PARTS[i % 4]},{i * 13 % 101 / 8}"
    f",{i % 3 % 2}"
    for i in range(COUNT)
]
HEADER = "id,user,day,part,x,y\n"


def write(runner, lines, files, name="a"):
    size = -(-len(lines) // files)
    for i in range(files):
        runner.write(f"{name}/{i}.csv", HEADER + "\n".join(lines[i * size : (i + 1) * size]) + "\n")
    return f"{runner.folder}/in/{name}/*.csv"


def run(runner, uri, case):
    split, key = SPLITS[case]
    return runner.run({"t": uri}, split={**split, "fractions": FRACTIONS}, key=key)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Returns a function that ingests `LINES` from one file, once for each case."""

    @functools.cache
    def ingested(case):
        runner = Runner(tmp_path_factory.mktemp(case))
        return run(runner, write(runner, LINES, 1), case), bytes_of(runner.examples)

    return ingested


def bytes_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.parquet")}


@pytest.mark.parametrize("case", SPLITS)
def test_bytes_do_not_depend_on_files_and_order(plain, runner, case):
    first, first_bytes = plain(case)
    assert first.summary.rows == {s: first.dataset.rows(s) for s in ("train", "valid", "test")}
    assert sum(first.summary.rows.values()) == COUNT
    shuffled = LINES[:]
    random.Random(1).shuffle(shuffled)
    second = run(runner, write(runner, shuffled, 7, "b"), case)
    assert bytes_of(runner.examples) == first_bytes
    assert second.summary.fingerprint == first.summary.fingerprint


@pytest.mark.parametrize(
    ("case", "names"), [("time", "n,value,instant,split,index,y"), ("column", "key,n,x,part,row,y")]
)
def test_columns_may_have_the_names_that_queries_of_ingest_use(plain, runner, case, names):
    names = dict(zip(HEADER.strip().split(","), names.split(","), strict=True))
    split, key = SPLITS[case]
    split = {**split, "column": names[split["column"]], "fractions": FRACTIONS}
    uri = runner.write("t.csv", ",".join(names.values()) + "\n" + "\n".join(LINES) + "\n")
    result = runner.run({"t": uri}, split=split, key=[names[key[0]]])
    for name in ("train", "valid", "test"):
        assert result.rows(name) == [{names[c]: v for c, v in row.items()} for row in plain(case)[0].rows(name)]


@pytest.mark.parametrize("case", ["random-by-key", "random-by-row", "hash-by-key"])
def test_splits_have_the_requested_fractions(plain, case):
    rows = plain(case)[0].summary.rows
    for name, fraction in FRACTIONS.items():
        deviation = (fraction * (1 - fraction) * COUNT) ** 0.5
        assert abs(rows[name] - fraction * COUNT) < 4 * deviation


def test_seed_changes_only_the_split(plain, runner):
    runs = [plain("random-by-key")[0]]  # with seed 3
    split = {"by": "random", "seed": 4, "fractions": FRACTIONS}
    runs.append(runner.run({"t": write(runner, LINES, 1)}, split=split, key=["id"]))
    ids = [{r["id"] for r in run.rows("test")} for run in runs]
    assert len(ids[0] & ids[1]) < 0.5 * min(map(len, ids))
    assert runs[0].sorted() == runs[1].sorted()


def test_rows_keep_their_split_when_more_arrive(plain, runner):
    """A row's split depends only on its key, so new rows move no row from test to train."""
    small = run(runner, write(runner, LINES[: COUNT // 2], 1), "random-by-key")
    before = {r["id"]: s for s in ("train", "valid", "test") for r in small.rows(s)}
    large = plain("random-by-key")[0]
    after = {r["id"]: s for s in ("train", "valid", "test") for r in large.rows(s)}
    assert before == {i: after[i] for i in before}


def test_hash_keeps_users_together(plain):
    users = [{r["user"] for r in plain("hash-by-column")[0].rows(s)} for s in ("train", "valid", "test")]
    assert all(users)
    assert not users[0] & users[1] and not users[0] & users[2] and not users[1] & users[2]


def test_time_orders_the_splits(plain):
    days = [[r["day"] for r in plain("time")[0].rows(s)] for s in ("train", "valid", "test")]
    assert all(part == sorted(part) for part in days)
    assert days[0][-1] < days[1][0] and days[1][-1] < days[2][0]
    for part, fraction in zip(days, FRACTIONS.values(), strict=True):
        assert abs(len(part) - fraction * COUNT) < COUNT / 50


@pytest.mark.parametrize("case", SPLITS)
def test_each_span_has_its_own_files(plain, runner, case):
    split, key = SPLITS[case]
    expected = {name: sorted(plain(case)[0].rows(name), key=lambda r: r["id"]) for name in FRACTIONS}
    split = {**split, "fractions": FRACTIONS, "span": "month"}
    sql = "SELECT *, month(day) AS month FROM t"
    spanned = runner.run({"t": write(runner, LINES, 1)}, split=split, sql=sql, key=key)
    for name in FRACTIONS:
        files = spanned.dataset.files(name)
        months = [pq.read_table(path).column("month").unique().to_pylist() for path in files]
        assert all(len(values) == 1 for values in months)
        assert months == sorted(months) and len({values[0] for values in months}) == len(months)
        without = [{k: v for k, v in row.items() if k != "month"} for row in spanned.rows(name)]
        if case != "random-by-row":  # it hashes the new column too
            assert sorted(without, key=lambda r: r["id"]) == expected[name]


@pytest.mark.parametrize("case", ["random-by-key", "random-by-row", "hash-by-key", "hash-by-column", "column", "time"])
def test_new_rows_keep_the_files_of_old_spans(runner, case):
    """Splits by time may change the file at the bound between train and valid."""
    split, key = SPLITS[case]
    split = {**split, "fractions": FRACTIONS, "span": "month"}
    sql = "SELECT *, month(day) AS month FROM t"
    old = [line for line in LINES if line.split(",")[2] < "2013-11-01"]
    assert len(old) < COUNT
    small = runner.run({"t": write(runner, old, 3)}, split=split, sql=sql, key=key).dataset
    before = {entry.fingerprint for entry in small.splits["train"].files}
    large = runner.run({"t": write(runner, LINES, 5, "b")}, split=split, sql=sql, key=key).dataset
    after = {entry.fingerprint for entry in large.splits["train"].files}
    assert len(after) > len(before)
    assert len(before - after) <= (case == "time")


def test_column_names_the_split(plain):
    for name in FRACTIONS:
        assert {r["part"] for r in plain("column")[0].rows(name)} == {name}


def test_hash_shuffles_the_rows(plain):
    """Batches of rows in the order of time or of the file would harm training."""
    ids = [r["id"] for r in plain("random-by-key")[0].rows("train")]
    ascents = sum(a < b for a, b in itertools.pairwise(ids))
    assert abs(ascents / len(ids) - 0.5) < 0.05


def test_a_split_with_fraction_zero_may_be_empty(runner):
    fractions = {"train": 0.9, "valid": 0.1, "test": 0}
    result = runner.run({"t": write(runner, LINES, 1)}, split={"by": "random", "fractions": fractions}, key=["id"])
    assert result.summary.rows["test"] == 0
    assert result.summary.rows["train"] + result.summary.rows["valid"] == COUNT
    everything = {"train": 1, "valid": 0, "test": 0}
    result = runner.run({"t": write(runner, LINES, 1)}, split={"by": "time", "column": "day", "fractions": everything})
    assert result.summary.rows == {"train": COUNT, "valid": 0, "test": 0}
    assert result.dataset.read("test").num_rows == 0


def test_assigns_the_split_that_the_standard_library_computes(runner):
    """A row's split must not change with DuckDB's version."""
    split = {"by": "random", "fractions": FRACTIONS}
    result = runner.run({"t": write(runner, LINES, 1)}, split=split, key=["id", "user"])
    for index, name in enumerate(FRACTIONS):
        for row in result.rows(name):
            text = f"0|{row['id']}|{len(row['user'])}:{row['user']}"
            low = int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little") / 2**64
            assert index == (low >= 0.7) + (low >= 0.9)


def test_predict_writes_one_split(runner):
    result = runner.run({"t": write(runner, LINES, 1)}, stage="predict", labels=[], key=["id"])
    assert list(result.dataset.splits) == ["predict"]
    assert result.summary.rows == {"predict": COUNT}
    before = bytes_of(runner.examples)
    runner.run({"t": write(runner, LINES[::-1], 3, "b")}, stage="predict", labels=[], key=["id"])
    assert bytes_of(runner.examples) == before


VALUES = st.one_of(st.none(), st.text(max_size=5), st.sampled_from(["|", "-", "1:a", "2", "NA"]))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(VALUES, VALUES, st.sampled_from([0, 1])), min_size=20, max_size=60),
    seed=st.integers(0, 3),
)
def test_keeps_any_rows_in_any_order(tmp_path_factory, rows, seed):
    """With any text, control characters and nulls, no row is lost, and equal rows are in one split."""
    texts = [json.dumps({"a": a, "b": b, "y": y}) for a, b, y in rows]
    texts += [json.dumps({"a": "known", "b": str(i), "y": i % 2}) for i in range(200)]
    results = []
    for order in (texts, random.Random(seed).sample(texts, len(texts))):
        runner = Runner(tmp_path_factory.mktemp("any"))
        path = runner.write("a.jsonl", "\n".join(order))
        columns = {"a": "VARCHAR", "b": "VARCHAR", "y": "TINYINT"}
        result = runner.run({"t": {"uri": path, "columns": columns}}, split={"by": "random", "seed": seed})
        assert result.sorted() == sorted((json.loads(t) for t in texts), key=lambda r: json.dumps(r))
        twins = {}
        for name in result.dataset.splits:
            for row in result.rows(name):
                assert twins.setdefault(json.dumps(row), name) == name
        results.append(bytes_of(runner.examples))
    assert results[0] == results[1]
    assert Dataset(runner.examples).rows("train") > 0


@pytest.mark.parametrize("by", ["time", "hash"])
def test_names_the_value_that_leaves_a_split_empty_and_its_advice_works(runner, by):
    lines = [f"{i},{'2024-01-01' if i % 3 else '2024-01-02'},{i // 2 % 2}" for i in range(60)]
    uri = runner.write("ties.csv", "\n".join(["id,t,y", *lines]) + "\n")
    with pytest.raises(TidemillError) as error:
        runner.run({"t": uri}, split={"by": by, "column": "t"})
    assert error.value.code is Code.EMPTY_SPLIT
    assert "rows of one 't' stay together, and 2024-01-01 has 40 of them; use split.by: random" in str(error.value)
    assert sum(runner.run({"t": uri}, split={"by": "random"}).summary.rows.values()) == 60


def test_splits_by_an_unsigned_time(runner):
    found = runner.run(
        {"t": runner.write("a.csv", rows(200))},
        sql="SELECT *, id::UBIGINT AS t FROM t",
        split={"by": "time", "column": "t"},
    )
    assert [row["t"] for row in found.rows("train", "valid", "test")] == list(range(200))


@pytest.mark.parametrize("days", [11, 200])
def test_shares_that_ties_change_are_reported(runner, days):
    """Eleven days cannot be divided 70 : 20 : 10."""
    lines = [f"{i},u,2013-01-01 00:{i % days // 60:02d}:{i % days % 60:02d},x,1,{i // days % 2}" for i in range(2200)]
    split = {"by": "time", "column": "day", "fractions": FRACTIONS}
    summary = runner.run({"t": write(runner, lines, 1)}, split=split, key=["id"]).summary
    if days == 200:
        assert summary.uneven == ""
        return
    assert summary.rows == {"train": 1600, "valid": 400, "test": 200}
    assert summary.uneven == (
        "train has 72.7% of the rows instead of 70.0%, valid has 18.2% of the rows instead of 20.0%, "
        "test has 9.1% of the rows instead of 10.0%, because rows of one 'day' stay together"
    )
