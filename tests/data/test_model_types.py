"""Rows to score get their types from the published model, not from the day's files."""

from __future__ import annotations

import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.runs import IngestRun, Runner
from tidemill.artifacts.model_columns import METADATA, ModelColumns
from tidemill.errors import Code, TidemillError
from tidemill.transform.raw import raw_columns

WORDS = ["red", "007", "12", "n/a"]


def train_table(rows: int = 200) -> pa.Table:
    draw = random.Random(0)
    return pa.table(
        {
            "id": [f"k{i}" for i in range(rows)],
            "code": [WORDS[i % 4] for i in range(rows)],
            "size": [None if i % 7 == 0 else round(draw.random() * 9 + 0.5, 3) for i in range(rows)],
            "visits": [draw.randrange(100) for i in range(rows)],
            "day": ["2024-01-01 10:00:00" if i % 2 else "2024-01-02" for i in range(rows)],
            "y": [i % 2 for i in range(rows)],
        }
    )


def written(runner: Runner, name: str, table: pa.Table) -> str:
    """Writes a table in the format that the name says. JSON objects have no key for a null."""
    if name.endswith(".csv"):
        lines = [",".join(table.column_names)]
        lines += [",".join("" if v is None else str(v) for v in row.values()) for row in table.to_pylist()]
        return runner.write(name, "\n".join(lines) + "\n")
    if name.endswith(".jsonl"):
        rows = [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]
        return runner.write(name, "".join(json.dumps(row) + "\n" for row in rows))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return runner.write(name, buffer.getvalue())


def model_of(train: IngestRun, features: list[str]) -> ModelColumns:
    """Returns the columns of a model that was trained on ingested rows."""
    columns = raw_columns(train.dataset.schema(), features)
    inputs = [{"name": c.name, "dtype": c.dtype, "is_list": c.is_list} for c in columns]
    return ModelColumns.model_validate({"inputs": inputs, "source": train.dataset.metadata[METADATA]})


def trained(runner: Runner, ending: str, features: tuple[str, ...] = ("code", "size", "visits"), **fields):
    path = written(runner, f"train{ending}", train_table())
    return model_of(runner.run({"t": path}, **fields), list(features))


def score(runner: Runner, model: ModelColumns, path: str | dict, **fields) -> IngestRun:
    tables = path if isinstance(path, dict) else {"t": path}
    return runner.run(tables, stage="predict", labels=[], model=model, **fields)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_day_with_few_rows_digits_and_empty_columns_has_the_types_of_training(runner, ending, rows):
    model = trained(runner, ending)
    values = {"id": [str(i) for i in range(3)], "code": ["12", "7", "12"], "size": [None] * 3, "visits": [1, 2, 3]}
    day = pa.table(values | {"day": ["2024-01-03"] * 3}).slice(0, rows)
    found = score(runner, model, written(runner, f"day{ending}", day))
    types = {name: kind for name, kind in found.dataset.columns.items() if name != "y"}
    train_types = {"id": "string", "code": "string", "size": "double", "visits": "int64", "day": "timestamp[us]"}
    assert types == train_types
    wanted = [(str(i), ["12", "7", "12"][i], None, i + 1) for i in range(rows)]
    assert sorted((r["id"], r["code"], r["size"], r["visits"]) for r in found.rows()) == wanted


def test_the_query_reads_columns_of_the_types_of_training(runner):
    """`code || '!'` needs text and `size + 1` a number, whatever the day's file holds."""
    sql = "SELECT code || '!' AS code, size + 1 AS size, y FROM t"
    model = trained(runner, ".csv", ("code", "size"), sql=sql)
    day = runner.write("day.csv", "id,code,size,y\n1,12,,0\n")
    assert score(runner, model, day, sql=sql).rows() == [{"code": "12!", "size": None, "y": 0}]
    assert score(runner, model, {"today": day}, sql=sql.replace("FROM t", "FROM today")).rows()[0]["code"] == "12!"


def test_a_file_in_the_form_of_the_result_has_its_types(runner):
    model = trained(runner, ".csv", ("code",), sql="SELECT id, code, y FROM t")
    assert score(runner, model, runner.write("day.csv", "code\n12\n")).rows() == [{"code": "12"}]


def test_parquet_columns_of_another_type_are_converted_where_values_stay(runner):
    model = trained(runner, ".parquet")
    day = {"code": pa.nulls(2), "size": pa.array([1, 2]), "visits": pa.array([3.0, float("nan")]), "id": ["a", "b"]}
    found = score(runner, model, written(runner, "day.parquet", pa.table(day)))
    assert sorted((r["code"], r["size"], r["visits"]) for r in found.rows() if r["visits"]) == [(None, 1, 3)]
    assert found.dataset.columns["code"] == "string" and found.dataset.columns["visits"] == "int64"
    with pytest.raises(TidemillError) as error:
        score(runner, model, written(runner, "day.parquet", pa.table(day | {"code": [1.5, 2.0]})))
    assert error.value.code is Code.FEATURE_TYPE and "DOUBLE, which was VARCHAR in training" in str(error.value)


DAYS = {
    "columns without a value": ({"code": pa.nulls(2), "size": pa.nulls(2), "visits": pa.nulls(2)}, [None] * 3),
    "nulls of other types": (
        {"code": pa.nulls(2, pa.float64()), "size": pa.nulls(2, pa.string()), "visits": pa.nulls(2, pa.float64())},
        [None] * 3,
    ),
    "digits": ({"code": [12, 7], "size": [3, 4], "visits": [1.0, None]}, ["12!", 3.5, 1]),
    "texts": ({"code": ["12", "7"], "size": ["3.0", "4"], "visits": ["1", "2"]}, ["12!", 3.5, 1]),
    "text in bytes": ({"code": [b"12", b"7"], "size": [3.0, 4.0], "visits": [1, 2]}, ["12!", 3.5, 1]),
}


@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("files", [1, 2])
def test_tables_below_a_query_have_the_types_of_training_in_parquet_too(runner, day, files):
    sql = "SELECT id, code || '!' AS code, size + 0.5 AS size, visits // 1 AS visits, y FROM t"
    model = trained(runner, ".parquet", sql=sql)
    columns, first = DAYS[day]
    table = pa.table({"id": ["a", "b"], **columns, "day": ["2024-01-03"] * 2, "y": pa.nulls(2, pa.int64())})
    path = written(runner, "day/1.parquet", table)
    if files == 2:
        plain = {"id": ["c"], "code": ["red"], "size": [1.5], "visits": [3], "day": ["2024-01-03"], "y": [0]}
        written(runner, "day/2.parquet", pa.table(plain))
        path = f"{runner.folder}/in/day/*.parquet"
    found = score(runner, model, path, sql=sql)
    assert {name: str(found.dataset.columns[name]) for name in ("code", "size", "visits")} == {
        "code": "string",
        "size": "double",
        "visits": "int64",
    }
    rows = {row["id"]: [row["code"], row["size"], row["visits"]] for row in found.rows()}
    assert rows["a"] == first
    if files == 2:
        assert rows["c"] == ["red!", 2.0, 3]


def test_parquet_values_that_do_not_fit_the_types_of_training_keep_their_own(runner):
    sql = "SELECT code, visits FROM t"
    model = trained(runner, ".parquet", ("visits",), sql=sql.replace("visits", "visits, y"))
    day = pa.table({"code": [1.5, 2.0], "visits": [1.5, 1.0]})
    with pytest.raises(TidemillError) as error:
        score(runner, model, written(runner, "day.parquet", day), sql=sql)
    assert error.value.code is Code.MALFORMED_ROWS


def test_values_that_the_model_cannot_take_are_malformed_rows(runner):
    model = trained(runner, ".csv")
    day = runner.write("day.csv", "id,code,size,visits,day\na,red,big,1,2024-01-03\nb,red,1.5,2,2024-01-03\n")
    with pytest.raises(TidemillError) as error:
        score(runner, model, day)
    assert error.value.code is Code.MALFORMED_ROWS and "Could not convert size to DOUBLE" in str(error.value)
    found = score(runner, model, day, source={"max_bad_share": 0.5})
    assert [r["id"] for r in found.rows()] == ["b"]
    assert found.dataset.metadata["malformed"] == {"(query)": 1}


def test_optional_keys_of_json_objects_may_be_missing_and_others_may_not(runner):
    model = trained(runner, ".jsonl")
    assert model.source.tables["t"].optional == ["size"]
    rows = [{"id": "a", "code": "red", "visits": 3, "day": "2024-01-03"}]
    assert score(runner, model, runner.write("day.jsonl", json.dumps(rows[0]))).rows()[0]["size"] is None
    del rows[0]["visits"]
    with pytest.raises(TidemillError) as error:
        score(runner, model, runner.write("day.jsonl", json.dumps(rows[0])))
    assert error.value.code is Code.MISSING_COLUMN and "'visits'" in str(error.value)


def test_declared_types_of_training_hold_and_those_of_prediction_come_first(runner):
    path = written(runner, "train.csv", train_table())
    train = runner.run({"t": {"uri": path, "columns": {"visits": "UTINYINT"}}})
    model = model_of(train, ["visits"])
    day = runner.write("day.csv", "visits\n300\n")
    with pytest.raises(TidemillError) as error:
        score(runner, model, day)
    assert error.value.code is Code.MALFORMED_ROWS and "300" in str(error.value)
    assert score(runner, model, {"t": {"uri": day, "columns": {"visits": "INTEGER"}}}).rows() == [{"visits": 300}]


def test_a_model_without_source_columns_still_decides_the_types_of_the_result(runner):
    model = ModelColumns.model_validate(
        {"inputs": [{"name": "x", "dtype": "float32"}, {"name": "c", "dtype": "string"}]}
    )
    found = score(runner, model, runner.write("day.csv", "x,c\n,12\n"))
    assert found.rows() == [{"x": None, "c": "12"}] and found.dataset.columns == {"x": "double", "c": "string"}


CELLS = {
    "code": st.one_of(st.none(), st.sampled_from([*WORDS, "1", "99", "true", "2024-01-01"])),
    "size": st.one_of(st.none(), st.integers(-9, 9), st.floats(-9, 9, width=16)),
    "visits": st.one_of(st.none(), st.integers(-(2**53), 2**53)),
}


@settings(max_examples=40)
@given(st.lists(st.fixed_dictionaries(CELLS), max_size=4), st.sampled_from([".csv", ".jsonl", ".parquet"]))
def test_any_day_reads_as_arrow_reads_it_with_the_types_of_training(tmp_path_factory, day, ending):
    """Independent reading: PyArrow, which is told the types."""
    runner = Runner(tmp_path_factory.mktemp("day"))
    types = {"code": pa.string(), "size": pa.float64(), "visits": pa.int64()}
    source = {"result": {"code": "VARCHAR", "size": "DOUBLE", "visits": "BIGINT"}}
    source["tables"] = {"t": {"types": source["result"], "optional": list(types)}}
    dtypes = {"code": "string", "size": "float32", "visits": "int64"}
    inputs = [{"name": name, "dtype": dtype} for name, dtype in dtypes.items()]
    model = ModelColumns.model_validate({"inputs": inputs, "source": source})
    plain = {name: [row[name] for row in day] for name in types}
    exact = pa.table({name: pa.array(values).cast(types[name]) for name, values in plain.items()})
    written_as = {name: pa.array(values) for name, values in plain.items()} if ending == ".parquet" else exact
    found = score(runner, model, written(runner, f"day{ending}", pa.table(written_as)))
    if ending != ".parquet":  # whose integers the model takes as numbers
        assert {field.name: field.type for field in found.dataset.schema()} == types
    key = lambda row: [str(row[name]) for name in types]  # noqa: E731
    assert sorted(found.rows(), key=key) == sorted(exact.to_pylist(), key=key)
