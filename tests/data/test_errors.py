"""Wrong input of ingest: each mistake is reported and leaves no output."""

import gzip
import io
import os
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.runs import rows, table
from tidemill.errors import Code, TidemillError

GOOD = rows(200)
HEADERLESS = {"header": False, "columns": {"a": "BIGINT", "y": "BIGINT"}}
SCHEMA = 'feature { name: "x" type: INT }'


def lines(*changes):
    """Returns the good rows with some lines replaced. Lines count from 1."""
    found = GOOD.splitlines()
    for line, text in changes:
        found[line - 1] = text
    return "\n".join(found) + "\n"


def constant(column_y):
    return "id,x,y\n" + "".join(f"{i},1,{y}\n" for i, y in enumerate(column_y))


# Content of a.csv, fields of the spec, the code, and texts of the message.
BY_ID = {"by": "time", "column": "id"}
CASES = {
    "sql-syntax": (GOOD, {"sql": "SELEC * FROM t"}, Code.SQL_ERROR, ["source.sql", "syntax error"]),
    "sql-unknown-table": (GOOD, {"sql": "SELECT * FROM u"}, Code.SQL_ERROR, ["no table 'u'", "use one of t"]),
    "sql-unknown-column": (GOOD, {"sql": "SELECT z FROM t"}, Code.SQL_ERROR, ['"z"']),
    "sql-cast-fails": (GOOD, {"sql": "SELECT 'a'::INT AS y FROM t"}, Code.SQL_ERROR, ["Could not convert"]),
    "sql-two-statements": (GOOD, {"sql": "SELECT 1; SELECT 2"}, Code.SQL_ERROR, ["2 statements"]),
    "sql-no-statement": (GOOD, {"sql": "-- nothing"}, Code.SQL_ERROR, ["0 statements"]),
    "sql-no-select": (GOOD, {"sql": "DROP TABLE t"}, Code.SQL_ERROR, ["DROP"]),
    "sql-two-columns-of-a-name": (GOOD, {"sql": "SELECT y, y FROM t"}, Code.SQL_ERROR, ["'y'"]),
    "sql-reserved-column": (
        GOOD, {"sql": "SELECT *, 1 AS Tidemill_Split FROM t"}, Code.SQL_ERROR, ["'tidemill_split'", "rename it"],
    ),
    "sql-row-number": (GOOD, {"sql": "SELECT *, 1 AS file_row_number FROM t"}, Code.SQL_ERROR, ["file_row_number"]),
    "sql-huge-integers": (
        GOOD, {"sql": "SELECT y, x::HUGEINT * 100000000000000000000 AS h FROM t"}, Code.SQL_ERROR, ["'h'", "64 bits"],
    ),
    "param-unused": (
        GOOD, {"sql": "SELECT y + $late AS y FROM t", "source": {"params": {"latte": 1, "late": 0}}},
        Code.INVALID_VALUE, ["source.params.latte", "did you mean 'late'"],
    ),
    "param-unused-in-none": (
        GOOD, {"sql": "FROM t", "source": {"params": {"late": 1}}}, Code.INVALID_VALUE, ["source.params.late", "$late"],
    ),
    "param-missing": (GOOD, {"sql": "SELECT $late AS y FROM t"}, Code.INVALID_VALUE, ["$late", "add late"]),
    "no-rows": (GOOD, {"sql": "SELECT * FROM t WHERE id < 0"}, Code.EMPTY_INPUT, ["no rows"]),
    "header-only": ("id,x,y\n", {}, Code.EMPTY_INPUT, ["no rows"]),
    "max-rows": (GOOD, {"source": {"max_rows": 199}}, Code.OVER_BUDGET, ["source.max_rows", "200", "199"]),
    "no-label": (GOOD, {"labels": ["yy"]}, Code.MISSING_COLUMN, ["label", "'yy'", "did you mean 'y'"]),
    "no-key": (GOOD, {"key": ["idd"]}, Code.MISSING_COLUMN, ["key", "did you mean 'id'"]),
    "no-feature": (
        GOOD, {"columns": ["x", "zzz"]}, Code.MISSING_COLUMN, ["features, evaluation.slices", "'zzz'", "id, x, y"],
    ),
    "no-split-column": (
        GOOD, {"split": {"by": "time", "column": "when"}}, Code.MISSING_COLUMN, ["split.column", "'when'"],
    ),
    "no-column-to-predict": (
        GOOD, {"stage": "predict", "labels": [], "columns": ["zzz"]}, Code.MISSING_COLUMN, ["'zzz'"],
    ),
    "label-nulls": (lines((5, "3,1,NA"), (7, "5,1,")), {}, Code.LABEL_NULL, ["label 'y'", "2 nulls"]),
    "label-nan": (GOOD, {"sql": "SELECT * REPLACE (if(id = 3, 'nan'::DOUBLE, y) AS y) FROM t"}, Code.LABEL_NULL, ["1"]),
    "label-one-class": (constant([1] * 50), {}, Code.LABEL_ONE_CLASS, ["single value 1"]),
    "label-one-class-in-train": (
        constant([0] * 40 + [1] * 10), {"split": {"by": "time", "column": "id"}}, Code.LABEL_ONE_CLASS, ["in train"],
    ),
    "label-one-class-in-valid": (
        constant([0, 1] * 20 + [0] * 5 + [0, 1] * 3),
        {"split": BY_ID | {"fractions": {"train": 0.78, "valid": 0.1, "test": 0.12}}, "both_classes": ["valid"]},
        Code.LABEL_ONE_CLASS,
        ["'y' in valid", "value 0 in all 5 rows", "train 20 of 40, valid 0 of 5, test 3 of 6", "split.by: random"],
    ),
    "label-three-values": (constant([0, 1, 2] * 9), {}, Code.LABEL_TYPE, ["label 'y'", "the value 2"]),
    "label-fraction": (constant([0, 1, 0.5] * 9), {}, Code.LABEL_TYPE, ["0.5"]),
    "label-text": (constant(["no", "yes"] * 9), {}, Code.LABEL_TYPE, ["VARCHAR", "'no'"]),
    "label-date": (constant(["2013-01-01", "2013-01-02"] * 9), {}, Code.LABEL_TYPE, ["DATE"]),
    "key-twice": (lines((5, "7,1,1")), {"key": ["id"]}, Code.DUPLICATE_KEY, ["key id", "such as 7 in 2 rows"]),
    "key-null": (lines((5, ",1,1")), {"key": ["id", "x"]}, Code.DUPLICATE_KEY, ["key id, x", "1 rows with a null"]),
    "split-empty": (constant([0, 1]), {}, Code.EMPTY_SPLIT, ["no rows for", "of 2"]),
    "split-empty-by-time": (
        GOOD, {"sql": "SELECT *, 1 AS t FROM t", "split": {"by": "time", "column": "t"}}, Code.EMPTY_SPLIT, ["valid"],
    ),
    "split-empty-by-column": (
        GOOD, {"sql": "SELECT *, if(id % 2 = 0, 'train', 'test') AS s FROM t",
               "split": {"by": "column", "column": "s"}}, Code.EMPTY_SPLIT, ["no rows for valid"],
    ),
    "split-unknown-name": (
        GOOD, {"sql": "SELECT *, 'trian' AS s FROM t", "split": {"by": "column", "column": "s"}},
        Code.INVALID_VALUE, ["'trian'", "200", "did you mean 'train'"],
    ),
    "split-null-name": (
        GOOD, {"sql": "SELECT *, if(id > 5, 'train', NULL) AS s FROM t", "split": {"by": "column", "column": "s"}},
        Code.INVALID_VALUE, ["6 nulls"],
    ),
    "split-time-null": (
        GOOD, {"sql": "SELECT *, if(id > 5, id, NULL) AS t FROM t", "split": {"by": "time", "column": "t"}},
        Code.INVALID_VALUE, ["'t'", "6 nulls"],
    ),
    "no-span": (GOOD, {"split": {"span": "day"}}, Code.MISSING_COLUMN, ["split.span", "'day'"]),
    "span-null": (
        GOOD, {"sql": "SELECT *, if(id > 5, id, NULL) AS s FROM t", "split": {"span": "s"}},
        Code.INVALID_VALUE, ["split.span 's'", "nulls"],
    ),
    "span-float": (
        GOOD, {"sql": "SELECT *, id / 2 AS s FROM t", "split": {"span": "s"}},
        Code.INVALID_VALUE, ["split.span", "DOUBLE", "cast it"],
    ),
    "span-many": (
        GOOD, {"sql": "SELECT t.*, r.range AS s FROM t, range(20000) r", "split": {"span": "s"}},
        Code.INVALID_VALUE, ["split.span 's'", "20,000 values", "round it"],
    ),
    "split-time-text": (
        GOOD, {"sql": "SELECT *, id::VARCHAR AS t FROM t", "split": {"by": "time", "column": "t"}},
        Code.INVALID_VALUE, ["VARCHAR", "cast it"],
    ),
    "features-all-null": (
        GOOD, {"sql": "SELECT id, y, x, NULL::INT AS v, if(id > 190, 1.0, 'nan'::DOUBLE) AS w FROM t",
               "columns": ["x", "v", "w"], "split": {"by": "time", "column": "id"}},
        Code.FEATURE_ALL_NULL, ["for v, w", "160"],
    ),
    "too-few-fields": (lines((7, "5,1")), {}, Code.MALFORMED_ROWS, ["a.csv, line 7", "1 of 200", "0.500%"]),
    "too-many-fields": (lines((7, "5,1,0,9")), {}, Code.MALFORMED_ROWS, ["line 7", "Found: 4"]),
    "wrong-type": (lines((9, "7,1,0"), (12, "ten,1,1")), {}, Code.MALFORMED_ROWS, ["line 12", "'ten'|\"ten\"", "id"]),
    "no-utf8": (GOOD.encode() + b"201,\xff\xfe,1\n", {}, Code.MALFORMED_ROWS, ["line 202", "1 of 201"]),
    "quote-not-closed": (
        lines((20, '18,"9,0')), {"source": {"max_bad_share": 0.5}}, Code.MALFORMED_ROWS, ["line 20", "182 of 200"],
    ),
    "schema-contradicted": (
        lines((8, "6,1.5,1")), {"sql": "SELECT id, y, 2 * x AS x FROM t WHERE id < 6 OR id > 8 OR id = 7",
                                "schema_text": 'feature { name: "y" type: INT } feature { name: "id" type: BYTES }',
                                "labels": ["zz"]}, Code.MISSING_COLUMN, ["'zz'"],
    ),
    "schema-int-with-fractions": (GOOD, {"schema_text": SCHEMA}, Code.MALFORMED_ROWS, ["100 of 200", "x to BIGINT"]),
    "schema-broken": (GOOD, {"schema_text": "feature {"}, Code.INVALID_VALUE, ["validation.schema"]),
    "header-twice": ("id,x,X,y\n1,2,3,0\n", {}, Code.UNREADABLE_FILE, ["a.csv, line 1", "twice"]),
    "header-empty-name": ("id,,y\n1,2,0\n", {}, Code.UNREADABLE_FILE, ["without a name"]),
    "empty-file": ("", {}, Code.UNREADABLE_FILE, ["a.csv", "header"]),
    "binary": (b"\x00\xff\xfe\x80" * 100, {}, Code.UNREADABLE_FILE, ["a.csv", "UTF-8"]),
}  # fmt: skip


def check(error, code, words):
    assert error.value.code is code, str(error.value)
    for word in words:
        assert any(w in str(error.value) for w in word.split("|")), (word, str(error.value))


def check_nothing_left(runner):
    out = sorted(p.name for p in (runner.folder / "out").iterdir()) if (runner.folder / "out").exists() else []
    assert set(out) <= {"quarantine.jsonl"}


@pytest.mark.parametrize("case", CASES)
def test_rejects_wrong_input(runner, case):
    content, fields, code, words = CASES[case]
    with pytest.raises(TidemillError) as error:
        runner.run({"t": runner.write("a.csv", content)}, **fields)
    check(error, code, words)
    check_nothing_left(runner)


TABLES = {
    "unknown-type": (GOOD, {"columns": {"id": "NUMBER9"}}, Code.INVALID_VALUE, ["columns.id", "'NUMBER9'"]),
    "injected-type": (GOOD, {"columns": {"id": "INT) , (SELECT 1"}}, Code.INVALID_VALUE, ["columns.id"]),
    "declared-but-not-there": (GOOD, {"columns": {"idd": "INT"}}, Code.MISSING_COLUMN, ["'idd'", "did you mean 'id'"]),
    "declared-type-wrong": (GOOD, {"columns": {"x": "DATE"}}, Code.MALFORMED_ROWS, ["line 2", "200 of 200", "DATE"]),
    "fraction-in-integer": (
        lines((31, "29,2.5,0")),
        {"columns": {"x": "BIGINT"}},
        Code.MALFORMED_ROWS,
        ["line 3", "declared as an integer"],
    ),
    "tiny-overflow": (lines((31, "300,1,0")), {"columns": {"id": "TINYINT"}}, Code.MALFORMED_ROWS, ["TINYINT"]),
    "headerless-ragged": ("1,0\n2\n3,1\n", HEADERLESS, Code.MALFORMED_ROWS, ["line 2", "1 of 3"]),
    "other-format": (GOOD, {"format": "parquet"}, Code.UNREADABLE_FILE, ["a.csv", "Parquet"]),
    "csv-as-jsonl": (GOOD, {"format": "jsonl"}, Code.MALFORMED_ROWS, ["line 1", "201 of 201", "JSON"]),
}


@pytest.mark.parametrize("case", TABLES)
def test_rejects_wrong_table_settings(runner, case):
    content, options, code, words = TABLES[case]
    with pytest.raises(TidemillError) as error:
        runner.run({"t": {"uri": runner.write("a.csv", content), **options}})
    check(error, code, words)
    check_nothing_left(runner)


def parquet_bytes(**options):
    sink = io.BytesIO()
    pq.write_table(table(5000), sink, **options)
    return sink.getvalue()


def zip_of(text):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", text)
    return sink.getvalue()


def zstd_of(text):
    return pa.compress(text, codec="zstd", asbytes=True)


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


PACKED = gzip.compress(rows(5000).encode())
BROKEN = {
    "gz-truncated": ("a.csv.gz", PACKED[: len(PACKED) // 2]),
    "gz-checksum": ("a.csv.gz", flipped(PACKED, len(PACKED) - 6)),
    "gz-no-gz": ("a.csv.gz", GOOD.encode()),
    "zst-truncated": ("a.csv.zst", zstd_of(rows(5000).encode())[:-20]),
    "zst-no-zst": ("a.csv.zst", GOOD.encode()),
    "zip-truncated": ("a.csv.zip", zip_of(rows(5000))[:-30]),
    "zip-flipped": ("a.csv.zip", flipped(zip_of(rows(5000)), 2000)),
    "parquet-truncated": ("a.parquet", parquet_bytes()[:-100]),
    "parquet-half": ("a.parquet", parquet_bytes()[:5000]),
    "parquet-empty": ("a.parquet", b""),
    "parquet-page": (
        "a.parquet",
        parquet_bytes(compression="zstd")[:4] + b"\xff" * 300 + parquet_bytes(compression="zstd")[304:],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_rejects_broken_files(runner, case):
    name, content = BROKEN[case]
    with pytest.raises(TidemillError) as error:
        runner.run({"t": runner.write(name, content)})
    check(error, Code.UNREADABLE_FILE, [name])
    check_nothing_left(runner)


def test_rejects_files_with_different_columns(runner):
    runner.write("1.csv", "a,b\n1,2\n")
    runner.write("2.csv", "a,c\n1,2\n")
    with pytest.raises(TidemillError) as error:
        runner.run({"t": f"{runner.folder}/in/*.csv"})
    check(error, Code.UNREADABLE_FILE, ["no column 'b'|no column 'c'", "the extra column 'b'|the extra column 'c'"])
    runner.write("3.jsonl", "{}")
    with pytest.raises(TidemillError) as error:
        runner.run({"t": f"{runner.folder}/in/*"})
    check(error, Code.INVALID_VALUE, ["several formats"])
    runner.write("p/day=1/1.csv", "a\n1\n")
    runner.write("p/2.csv", "a\n1\n")
    with pytest.raises(TidemillError) as error:
        runner.run({"t": f"{runner.folder}/in/p/**/*.csv"})
    check(error, Code.UNREADABLE_FILE, ["partition folders"])


@pytest.mark.parametrize(
    ("uri", "code", "words"),
    [
        ("in/nothing.csv", Code.MISSING_FILE, ["source.tables.t", "nothing.csv"]),
        ("in/b.csv", Code.MISSING_FILE, ["did you mean 'a.csv'"]),
        ("in/*.parquet", Code.MISSING_FILE, ["*.parquet"]),
        ("in", Code.MISSING_FILE, ["a folder", "*.parquet"]),
        ("in/a.zip#b.csv", Code.MISSING_FILE, ["did you mean 'a.csv'"]),
        ("in/two.zip", Code.INVALID_VALUE, ["2 files", "#member"]),
        ("in/a.what", Code.INVALID_VALUE, ["source.tables.t.format", "a.what"]),
    ],
)
def test_rejects_missing_files(runner, uri, code, words):
    runner.write("a.csv", GOOD)
    runner.write("a.what", GOOD)
    runner.write("a.zip", zip_of(GOOD))
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("1.csv", GOOD)
        archive.writestr("2.csv", GOOD)
    runner.write("two.zip", sink.getvalue())
    with pytest.raises(TidemillError) as error:
        runner.spec({"t": f"{runner.folder}/{uri}"})
    check(error, code, words)


def test_checks_max_bytes_before_reading(runner):
    path = runner.write("a.csv", GOOD)
    os.chmod(path, 0)
    with pytest.raises(TidemillError) as error:
        runner.spec({"t": path}, source={"max_bytes": "1KB"})
    check(error, Code.OVER_BUDGET, ["source.max_bytes", f"{len(GOOD):,} bytes in 1 files", "1,000"])
    assert not (runner.folder / "cache").exists()


@pytest.mark.parametrize("change", ["size", "bytes", "gone"])
def test_rejects_a_changed_source(runner, change):
    path = runner.write("a.csv", GOOD)
    spec = runner.spec({"t": path})
    if change == "gone":
        os.unlink(path)
    else:
        runner.write("a.csv", GOOD + "200,1,1\n" if change == "size" else GOOD.replace("3,1.5,1", "3,1.5,0"))
    with pytest.raises(TidemillError) as error:
        runner.ingest(spec)
    check(error, Code.SOURCE_CHANGED, [path])
    check_nothing_left(runner)


def test_rejects_an_unknown_source_record(runner):
    spec = runner.spec({"t": runner.write("a.csv", GOOD)}).model_copy(update={"source_fingerprint": "0" * 24})
    with pytest.raises(TidemillError) as error:
        runner.ingest(spec)
    check(error, Code.MISSING_FILE, ["sources"])


FORBIDDEN = [
    "SELECT 0 AS y, content FROM read_text('{path}')",
    "SELECT 0 AS y, * FROM read_csv('{path}')",
    "SELECT 0 AS y, * FROM '{path}'",
    "SELECT 0 AS y, * FROM glob('/*')",
    "SELECT 0 AS y, * FROM query('FROM read_text(''{path}'')')",
    "SELECT 0 AS y, * FROM runner",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_query_reads_only_its_tables(runner, sql, kind):
    secret = runner.write("secret.txt", "secret\n")
    path = runner.write("a.csv", GOOD)
    if kind == "parquet":
        path = runner.write("a.parquet", parquet_bytes())
    with pytest.raises(TidemillError) as error:
        runner.run({"t": path}, sql=sql.replace("{path}", secret))
    check(error, Code.SQL_ERROR, ["source.sql"])
    check_nothing_left(runner)


def test_failed_run_keeps_existing_examples(runner):
    path = runner.write("a.csv", GOOD)
    before = runner.run({"t": path}).summary.fingerprint
    with pytest.raises(TidemillError):
        runner.run({"t": path}, labels=["nothing"])
    assert sorted(p.name for p in (runner.folder / "out").iterdir()) == ["examples", "quarantine.jsonl"]
    assert runner.run({"t": path}).summary.fingerprint == before


TWO_LABELS = {
    "nulls": ("SELECT *, if(id = 3, NULL, y) AS z FROM t", Code.LABEL_NULL),
    "one class": ("SELECT *, 1 AS z FROM t", Code.LABEL_ONE_CLASS),
    "a third value": ("SELECT *, y + 1 AS z FROM t", Code.LABEL_TYPE),
    "one class in train": ("SELECT *, (row_number() OVER (ORDER BY id) > 45)::INT AS z FROM t", Code.LABEL_ONE_CLASS),
    "no such column": ("SELECT * FROM t", Code.MISSING_COLUMN),
}


@pytest.mark.parametrize("case", TWO_LABELS)
def test_checks_the_second_label(runner, case):
    sql, code = TWO_LABELS[case]
    split = {"split": {"by": "time", "column": "id"}} if case == "one class in train" else {}
    with pytest.raises(TidemillError, match="'z'") as error:
        runner.run({"t": runner.write("t.csv", rows(50))}, sql=sql, labels=["y", "z"], **split)
    assert error.value.code is code
    assert not runner.examples.exists()


def test_accepts_two_labels(runner):
    found = runner.run({"t": runner.write("t.csv", GOOD)}, sql="SELECT *, 1 - y AS z FROM t", labels=["y", "z"])
    assert all(row["y"] + row["z"] == 1 for row in found.rows())
    assert found.dataset.metadata["labels"] == ["y", "z"]
