"""The types of a given schema, applied to the query's result: no value changes in silence."""

from __future__ import annotations

import math

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.runs import Runner
from tidemill.artifacts.model_columns import METADATA, ModelColumns
from tidemill.data.projection import project
from tidemill.errors import Code, TidemillError

_NUMBERS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53, 2**53 + 1, 0, 7]))
_FRACTIONS = st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-100, 100).map(float), st.just(math.nan))
_TEXTS = st.one_of(st.none(), st.sampled_from(["", "1", "-7", "1.5", "x", "9007199254740993", "nan", " 3 "]))
_KINDS = {"BIGINT": (_NUMBERS, pa.int64()), "DOUBLE": (_FRACTIONS, pa.float64()), "VARCHAR": (_TEXTS, pa.string())}
_TARGETS = {"INT": (int, "BIGINT"), "FLOAT": (float, "DOUBLE"), "BYTES": (str, "VARCHAR")}


def applied(column: pa.Array, target: str) -> list[tuple[object, bool]]:
    """Returns each value after the cast to a schema's type, and whether its row is malformed."""
    connection = duckdb.connect()
    connection.register("rows", pa.table({"x": column}))
    kind = connection.execute("SELECT column_type FROM (DESCRIBE rows)").fetchall()[0][0]
    made = project({"x": kind}, f'feature {{ name: "x" type: {target} }}')
    return connection.execute(
        f"SELECT {made.columns['x']}, coalesce({made.malformed or 'false'}, false) FROM rows"
    ).fetchall()


def expected(value: object, target: str) -> tuple[object, bool]:
    """Returns what Python makes of a value: the value of the type, or that it is malformed."""
    if value is None:
        return None, False
    if target == "BYTES":
        return (value if isinstance(value, str) else None), False
    try:
        number = float(value)
    except ValueError:
        return None, True
    if math.isnan(number):
        return None, False
    if target == "FLOAT":
        return number, False
    whole = int(value) if isinstance(value, int) or (isinstance(value, str) and "." not in value) else number
    return int(number) if whole == number and isinstance(whole, float) else whole, number != math.floor(number)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from([*_KINDS]), target=st.sampled_from([*_TARGETS]), levels=st.integers(0, 2))
def test_a_cast_keeps_each_value_or_makes_its_row_malformed(data, kind, target, levels):
    values, arrow = _KINDS[kind]
    for _ in range(levels):
        values, arrow = st.one_of(st.none(), st.lists(values, max_size=3)), pa.list_(arrow)
    rows = data.draw(st.lists(values, min_size=1, max_size=6))

    def check(value: object, made: object, level: int) -> bool:
        if level:
            assert (value is None) == (made is None)
            parts = [check(v, m, level - 1) for v, m in zip(value or [], made or [], strict=True)]
            return any(parts)
        wanted, malformed = expected(value, target)
        if not malformed and not (target == "BYTES" and not isinstance(value, str)):
            assert made == wanted
        return malformed

    for value, (made, malformed) in zip(rows, applied(pa.array(rows, arrow), target), strict=True):
        assert check(value, made, levels) == malformed


@pytest.mark.parametrize(
    ("column", "target"),
    [
        (pa.array([0, None], pa.timestamp("us")), "INT"),
        (pa.array([0, None], pa.date32()), "FLOAT"),
        (pa.array([b"\xff\x00", None]), "BYTES"),
        (pa.array([{"a": 1}, None]), "BYTES"),
        (pa.array([[0], None], pa.list_(pa.timestamp("us"))), "INT"),
    ],
)
def test_types_without_such_values_stay_for_validate_to_report(column, target):
    assert [(made, bad) for made, bad in applied(column, target)] == [(v, False) for v in column.to_pylist()]


SPELLED = {
    "v": ["1.50", "1.5", "2", "-0.0", "1e3"],
    "b": ["True", "False", "TRUE", "false", "True"],
    "d": ["2026-01-01T10:00:00Z", "2026-01-01 10:00", "2026-01-02T00:00:00+02:00", "2026-01-03 1:00", "2026-01-04"],
}
SPLIT = {"by": "time", "column": "id", "fractions": {"train": 0.4, "valid": 0.4, "test": 0.2}}
TEXTS = "".join(f'feature {{ name: "{name}" type: BYTES }} ' for name in SPELLED)


def spelled_csv() -> str:
    lines = [",".join((str(i), *values, str(i % 2))) for i, values in enumerate(zip(*SPELLED.values(), strict=True))]
    return "\n".join(["id,v,b,d,y", *lines, ""])


def spellings(rows: list[dict]) -> dict[str, list]:
    rows = sorted(rows, key=lambda row: row["id"])
    return {name: [row[name] for row in rows] for name in SPELLED}


@pytest.mark.parametrize("sql", [None, "select * from t;"])
def test_csv_columns_that_a_schema_makes_text_keep_their_spelling(tmp_path, sql):
    runner = Runner(tmp_path)
    path = runner.write("t.csv", spelled_csv())
    run = runner.run({"t": path}, sql=sql, schema_text=TEXTS, split=SPLIT)
    assert spellings(run.rows()) == SPELLED
    declared = {"uri": path, "columns": dict.fromkeys(SPELLED, "VARCHAR")}
    assert spellings(runner.run({"t": declared}, split=SPLIT).rows()) == SPELLED
    recorded = run.dataset.metadata[METADATA]
    assert {name: recorded["result"][name] for name in SPELLED} == dict.fromkeys(SPELLED, "VARCHAR")


def test_numbers_of_json_keep_their_spelling_in_text_columns(tmp_path):
    runner = Runner(tmp_path)
    values = ["1.50", "-0", "1E+2", '"x 1.50"', "12345678901234567890.50", "true", "null", "[1, 2]", '"1.50"', "7"]
    lines = [f'{{"n": {{"v": 2.50}}, "s": "\\"v\\": 3.50", "v": {v}, "id": {i}}}' for i, v in enumerate(values)]
    path = runner.write("t.jsonl", "\n".join(lines))
    kept = ["1.50", "-0", "1E+2", "x 1.50", "12345678901234567890.50", "true", None, "[1,2]", "1.50", "7"]
    rows = runner.run({"t": path}, stage="predict", labels=[], schema_text='feature { name: "v" type: BYTES }').rows()
    assert [row["v"] for row in sorted(rows, key=lambda row: row["id"])] == kept
    assert {row["s"] for row in rows} == {'"v": 3.50'}
    (plain,) = runner.run({"t": runner.write("u.jsonl", '{"v": 1.50}')}, stage="predict", labels=[]).rows()
    assert plain == {"v": 1.5}


def test_folders_that_a_schema_makes_text_keep_their_spelling(tmp_path):
    runner = Runner(tmp_path)
    for month in ("01", "02"):
        runner.write(f"month={month}/a.csv", "v\n1\n")
    files = str(tmp_path / "in" / "month=*" / "a.csv")
    given = 'feature { name: "month" type: BYTES }'
    rows = runner.run({"t": files}, stage="predict", labels=[], schema_text=given).sorted()
    assert [row["month"] for row in rows] == ["01", "02"]


@pytest.mark.parametrize(("column", "kind"), [("v", "DOUBLE"), ("b", "BOOLEAN"), ("d", "TIMESTAMP")])
def test_a_query_whose_values_a_schema_would_respell_is_refused_and_the_advice_works(tmp_path, column, kind):
    runner = Runner(tmp_path)
    path, given = runner.write("t.csv", spelled_csv()), f'feature {{ name: "{column}" type: BYTES }}'
    fields = {"sql": "SELECT * FROM t WHERE id >= 0", "schema_text": given, "split": SPLIT}
    with pytest.raises(TidemillError, match=f"a {kind} that validation.schema makes text") as error:
        runner.run({"t": path}, **fields)
    assert error.value.code == Code.FEATURE_TYPE
    declared = runner.run({"t": {"uri": path, "columns": {column: "VARCHAR"}}}, **fields)
    assert spellings(declared.rows())[column] == SPELLED[column]
    cast = f"SELECT * REPLACE ({column}::VARCHAR AS {column}) FROM t"
    assert runner.run({"t": path}, **{**fields, "sql": cast}).dataset.columns[column] == "string"


def test_a_time_that_only_splits_the_rows_stays_a_time_below_a_schema_of_text(tmp_path):
    runner = Runner(tmp_path)
    path, given = runner.write("t.csv", spelled_csv()), 'feature { name: "d" type: BYTES }'
    split = {**SPLIT, "column": "d"}
    run = runner.run({"t": path}, schema_text=given, columns=["v"], split=split)
    assert [row["id"] for row in run.rows("test")] == [4]


def test_a_model_of_a_schema_of_text_scores_declared_text(tmp_path):
    runner = Runner(tmp_path)
    run = runner.run({"t": runner.write("t.csv", spelled_csv())}, schema_text=TEXTS, split=SPLIT)
    inputs = [{"name": name, "dtype": "string"} for name in SPELLED]
    model = ModelColumns.model_validate({"inputs": inputs, "source": run.dataset.metadata[METADATA]})
    day = {"uri": runner.write("day.csv", spelled_csv()), "columns": dict.fromkeys(SPELLED, "VARCHAR")}
    for table in (day, day["uri"]):
        scored = runner.run({"t": table}, stage="predict", labels=[], model=model)
        assert spellings(scored.rows()) == SPELLED
    old = ModelColumns.model_validate({"inputs": inputs[:1], "source": {"result": {"v": "DOUBLE"}}})
    with pytest.raises(TidemillError, match="a column of type DOUBLE, which was text in training"):
        runner.run({"t": day["uri"]}, stage="predict", labels=[], model=old)
