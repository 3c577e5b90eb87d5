import gzip
import json

import pytest

from tests.data.runs import rows, table

HEAD = "id,note,y\n"


def text(count=300):
    return HEAD + "".join(f"{i},n{i},{i % 2}\n" for i in range(count))


def test_lists_tolerated_rows_with_their_lines(runner):
    broken = text().splitlines()
    broken[9] = "8,n8"
    broken[49] = '48,"multi\nline",0'
    broken[99] = "98,n98,0,surplus"
    broken[199] = "bad,n198,0"
    path = runner.write("a.csv.gz", gzip.compress(("\n".join(broken) + "\n").encode()))
    found = runner.run({"t": path}, key=["id"], source={"max_bad_share": 0.01})
    assert [(q["table"], q["uri"], q["line"], q["text"]) for q in found.quarantine] == [
        ("t", path, 10, "8,n8"),
        ("t", path, 101, "98,n98,0,surplus"),
        ("t", path, 201, "bad,n198,0"),
    ]
    assert [q["reason"] for q in found.quarantine] == [
        "Expected Number of Columns: 3 Found: 2",
        "Expected Number of Columns: 3 Found: 4",
        'Error when converting column "id". Could not convert string "bad" to \'BIGINT\'',
    ]
    assert found.summary.quarantined == 3
    assert sum(found.summary.rows.values()) == 297
    assert {r["note"] for r in found.rows()} >= {"multi\nline", "n0"}


def test_bad_rows_do_not_depend_on_the_query(runner):
    """DuckDB skips the casts of columns that a query does not read, and so their errors."""
    path = runner.write("a.csv", text().replace("\n7,n7,1", "\nseven,n7,1"))
    for sql in ("SELECT y FROM t", "SELECT id, y FROM t", "SELECT t.y FROM t JOIN t AS u USING (note)"):
        found = runner.run({"t": path}, sql=sql, source={"max_bad_share": 0.5}, stage="predict", labels=[])
        assert [q["line"] for q in found.quarantine] == [9]
        assert sum(found.summary.rows.values()) == 299


def test_a_row_with_missing_fields_keeps_delimiter_and_names(runner):
    body = "".join(f"{i};{i};a,{i % 2}\n" for i in range(100))
    path = runner.write("a.csv", "id,y\n" + body + "1;2;3,4;5,6\n")
    found = runner.run({"t": path}, source={"max_bad_share": 0.1})
    assert found.dataset.columns == {"id": "string", "y": "int64"}
    assert [q["line"] for q in found.quarantine] == [102]


def test_quarantines_json_lines(runner):
    lines = [json.dumps({"id": i, "y": i % 2}) for i in range(100)]
    lines[3] = '{"id": 3, "y": '
    lines[5] = "[1, 2]"
    lines[6] = ""
    lines[8] = '{"id": 8.5, "y": 1}'
    lines[10] = '{"id": 10, "y": "one"}'
    content = "\n".join(lines).encode() + b'\n{"id": 100, "y": 1, "z": "\xff"}\n'
    path = runner.write("a.jsonl", content)
    options = {"uri": path, "columns": {"id": "BIGINT", "y": "TINYINT"}}
    found = runner.run({"t": options}, key=["id"], source={"max_bad_share": 0.06})
    assert [(q["line"], q["reason"]) for q in found.quarantine] == [
        (4, "Not valid JSON"),
        (6, "Not a JSON object"),
        (9, "Could not convert id to BIGINT"),
        (11, "Could not convert y to TINYINT"),
        (101, "Not UTF-8 text"),
    ]
    assert sum(found.summary.rows.values()) == 95


def test_quarantines_fractions_in_integer_columns(runner):
    """DuckDB would round them in silence."""
    changed = text().replace("\n7,n7", "\n7.5,n7").replace("\n8,", "\n8.0,").replace("\n20,", "\n2e1,")
    path = runner.write("a.csv", changed)
    found = runner.run({"t": {"uri": path, "columns": {"id": "BIGINT"}}}, key=["id"], source={"max_bad_share": 0.01})
    assert [(q["line"], q["text"]) for q in found.quarantine] == [(9, "7.5,n7,1")]
    assert {r["id"] for r in found.rows()} == set(range(300)) - {7}


def test_quarantines_parquet_rows_that_do_not_cast(runner):
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = table(100).append_column("code", pa.array([str(i) if i != 40 else "forty" for i in range(100)]))
    path = runner.write("a.parquet", b"")
    pq.write_table(data, path)
    options = {"uri": path, "columns": {"code": "INTEGER"}}
    found = runner.run({"t": options}, key=["id"], source={"max_bad_share": 0.01})
    assert found.dataset.columns["code"] == "int32"
    (entry,) = found.quarantine
    assert (entry["uri"], entry["line"]) == (path, 41)
    assert json.loads(entry["text"])["code"] == "forty"
    assert 40 not in {r["id"] for r in found.rows()}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_schema_casts_the_query_result(runner, kind):
    schema = """feature { name: "x" type: INT } feature { name: "y" type: FLOAT } feature { name: "id" type: BYTES }
        feature { name: "elsewhere" type: INT }"""
    path = runner.write("a.csv", rows(200))
    if kind == "parquet":
        import pyarrow.parquet as pq

        path = runner.write("a.parquet", b"")
        pq.write_table(table(200), path)
    found = runner.run({"t": path}, schema_text=schema, source={"max_bad_share": 0.5})
    assert found.dataset.columns == {"id": "string", "x": "int64", "y": "double"}
    assert found.summary.quarantined == 100
    assert {(q["table"], q["uri"], q["line"]) for q in found.quarantine} == {("(query)", None, None)}
    assert json.loads(found.quarantine[0]["text"]).keys() == {"id", "x", "y"}
    assert {int(r["id"]) for r in found.rows()} == set(range(0, 200, 2))
    assert {r["x"] for r in found.rows()} == set(range(100))


def test_writes_the_file_without_bad_rows(runner):
    runner.run({"t": runner.write("a.csv", text())}, key=["id"])
    assert runner.quarantine.read_text() == ""
