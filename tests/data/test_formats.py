"""The same rows from every kind of file."""

import gzip
import io
import json
import zipfile

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.data.runs import rows, table

ROWS = 60
PLAIN = rows(ROWS)
EXPECTED = table(ROWS).to_pylist()


def parquet_bytes(data):
    sink = io.BytesIO()
    pq.write_table(data, sink)
    return sink.getvalue()


def zip_bytes(**members):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "."), text)
    return sink.getvalue()


def zstd_file(path, text):
    with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as stream:
        stream.write(text.encode())


JSON_LINES = "".join(json.dumps(row) + "\n" for row in EXPECTED)
HEADERLESS = {"header": False, "columns": {"id": "BIGINT", "x": "DOUBLE", "y": "BIGINT"}}
CASES = {
    "csv": ("a.csv", PLAIN, {}),
    "csv-without-last-newline": ("a.csv", PLAIN.rstrip("\n"), {}),
    "csv-crlf-and-bom": ("a.csv", "\ufeff" + PLAIN.replace("\n", "\r\n"), {}),
    "csv-semicolon": ("a.csv", PLAIN.replace(",", ";"), {"delimiter": ";"}),
    "csv-quoted": ("a.csv", PLAIN.replace("id,x,y", '"id","x","y"').replace(",0.5,", ',"0.5",'), {}),
    "other-ending": ("a.txt", PLAIN, {"format": "csv"}),
    "tsv": ("a.tsv", PLAIN.replace(",", "\t"), {}),
    "tsv-headerless": ("a.tsv", PLAIN.replace(",", "\t").split("\n", 1)[1], HEADERLESS),
    "csv-gz": ("a.csv.gz", gzip.compress(PLAIN.encode()), {}),
    "csv-zip": ("a.csv.zip", zip_bytes(a__csv=PLAIN), {}),
    "zip-with-member-of-its-own-name": ("a.zip", zip_bytes(inner__csv=PLAIN), {"format": "csv"}),
    "jsonl": ("a.jsonl", JSON_LINES, {}),
    "jsonl-blank-lines": ("a.ndjson", JSON_LINES.replace("\n", "\n\n", 5), {}),
    "jsonl-gz": ("a.jsonl.gz", gzip.compress(JSON_LINES.encode()), {}),
    "parquet": ("a.parquet", parquet_bytes(table(ROWS)), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_reads_each_format(runner, case):
    name, content, options = CASES[case]
    run = runner.run({"t": {"uri": runner.write(name, content), **options}}, key=["id"])
    assert run.dataset.columns == {"id": "int64", "x": "double", "y": "int64"}
    assert sorted(run.rows(), key=lambda r: r["id"]) == EXPECTED
    assert run.quarantine == []
    assert run.summary.quarantined == 0
    assert run.summary.bytes_read == len(content if isinstance(content, bytes) else content.encode())
    assert sum(run.summary.rows.values()) == ROWS
    assert run.summary.fingerprint == run.dataset.fingerprint


def test_reads_zstd_files(runner):
    path = runner.write("a.csv.zst", "")
    zstd_file(path, PLAIN)
    run = runner.run({"t": path}, key=["id"])
    assert sorted(run.rows(), key=lambda r: r["id"]) == EXPECTED


def test_reads_a_member_of_a_zip_file(runner):
    path = runner.write("both.zip", zip_bytes(a__csv=PLAIN, b__tsv="id\ty\n1\t0\n"))
    run = runner.run({"t": f"{path}#a.csv"}, key=["id"])
    assert sorted(run.rows(), key=lambda r: r["id"]) == EXPECTED
    assert runner.read({"t": f"{path}#b.tsv"}, "FROM t") == [{"id": 1, "y": 0}]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_partitions_become_columns(runner, kind):
    for day in ("2013-01-01", "2013-01-02", "__HIVE_DEFAULT_PARTITION__"):
        for part in range(2):
            data = pa.table({"a": [part], "b": ["x"]})
            name = f"t/day={day}/zone=0{part}/p.{kind}"
            if kind == "parquet":
                runner.write(name, parquet_bytes(data))
            elif kind == "jsonl":
                runner.write(name, json.dumps(data.to_pylist()[0]))
            else:
                runner.write(name, f"a,b\n{part},x\n")
    uri = f"{runner.folder}/in/t/**/*.{kind}"
    found = runner.read({"t": uri}, "SELECT day::VARCHAR AS day, zone, a FROM t")
    days = ["2013-01-01", "2013-01-02", None]
    assert found == sorted([{"day": d, "zone": z, "a": z} for d in days for z in (0, 1)], key=lambda r: json.dumps(r))
    tables = {"t": {"uri": f"{runner.folder}/in/t/day=2013-01-02/**/*.{kind}", "columns": {"zone": "VARCHAR"}}}
    assert [r["zone"] for r in runner.read(tables, "SELECT zone FROM t")] == ["00", "01"]


def test_reads_globs_and_lists_of_files(runner):
    a, b, c = (runner.write(f"{n}.csv", f"n\n{n}\n") for n in "abc")
    everything = [{"n": "a"}, {"n": "b"}, {"n": "c"}]
    assert runner.read({"t": [a, b, c]}, "FROM t") == everything
    assert runner.read({"t": f"{runner.folder}/in/?.csv"}, "FROM t") == everything
    assert runner.read({"t": [f"{runner.folder}/in/[ab].csv", a, c]}, "FROM t") == everything
    strange = runner.write("x[1]*.csv", "n\nd\n")
    assert runner.read({"t": strange}, "FROM t") == [{"n": "d"}]


def test_reads_files_with_columns_in_different_orders(runner):
    runner.write("1.csv", "a,b\n1,x\n")
    runner.write("2.csv", "b,a\ny,2\n")
    assert runner.read({"t": f"{runner.folder}/in/*.csv"}, "FROM t") == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


TYPES = [
    ("1 2 3", "int64", [1, 2, 3]),
    ("1 2.5 3", "double", [1.0, 2.5, 3.0]),
    ("1e3 nan 2", "double", [1000.0, None, 2.0]),
    ("NA 2 3", "int64", [None, 2, 3]),
    ("true False TRUE", "bool", [True, False, True]),
    ("2013-01-31 2013-02-01", "date32[day]", None),
    ("2013-01-31 2013-02-01T10:00:00Z", "timestamp[us]", None),
    ("12345678901234567890 2", "string", ["12345678901234567890", "2"]),
    ("N12 3", "string", ["N12", "3"]),
    ("NA NA", "string", [None, None]),
]


@pytest.mark.parametrize(("values", "kind", "expected"), TYPES)
def test_infers_types_of_undeclared_columns(runner, values, kind, expected):
    text = "k,v\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values.split()))
    run = runner.run({"t": runner.write("a.csv", text)}, stage="predict", labels=[])
    assert run.dataset.columns["v"] == kind
    if expected is not None:
        assert [r["v"] for r in sorted(run.rows(), key=lambda r: r["k"])] == expected


def test_keeps_json_strings(runner):
    text = '{"zip": "01234", "n": 1, "f": 1, "deep": {"a": [1]}, "at": "2013-01-01T00:00:00"}\n{"zip": "2", "f": 1.5}\n'
    run = runner.run({"t": runner.write("a.jsonl", text)}, stage="predict", labels=[])
    assert run.dataset.columns == {
        "at": "timestamp[us]", "deep": "string", "f": "double", "n": "int64", "zip": "string"
    }  # fmt: skip
    assert {r["zip"]: (r["n"], r["deep"]) for r in run.rows()} == {"01234": (1, '{"a":[1]}'), "2": (None, None)}


def test_writes_arrow_types(runner):
    sql = """SELECT 1.25::DECIMAL(9,2) AS a, sum(1) AS b, 'x'::ENUM('x', 'y') AS c, NULL AS d, 'nan'::FLOAT AS e,
        TIMESTAMP '2013-01-01 10:00:00' AS f, TIMESTAMPTZ '2013-01-01 10:00:00+02' AS g, 3::UBIGINT AS h,
        INTERVAL 1 DAY AS i, [1, 2] AS j, '0b'::UUID IS NULL AS k FROM t GROUP BY ALL"""
    sql = sql.replace(", '0b'::UUID IS NULL AS k", "")
    run = runner.run({"t": runner.write("a.csv", PLAIN)}, sql=sql, stage="predict", labels=[])
    assert run.dataset.columns == {
        "a": "double", "b": "int64", "c": "string", "d": "int32", "e": "float", "f": "timestamp[us]",
        "g": "timestamp[us, tz=UTC]", "h": "int64", "i": "string", "j": "list<l: int32>",
    }  # fmt: skip
    (row,) = run.rows()
    assert (row["a"], row["b"], row["d"], row["e"]) == (1.25, ROWS, None, None)
