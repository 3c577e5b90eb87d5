"""Between a file and the query no value changes: relatives of odd files, against readings by pandas and pyarrow."""

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.runs import read_table
from tidemill.errors import Code, TidemillError

SLOW = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
LONG = 12345678901234567


def read(files, **options):
    """Returns the rows that the query sees and the malformed rows."""
    if isinstance(files, str | bytes):
        files = {"a.csv": files}
    with TemporaryDirectory() as folder:
        encoded = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
        return read_table(Path(folder), encoded, **options)


def column(text, name="v", **options):
    table, malformed = read(text, **options)
    assert not malformed
    return str(table.schema.field(name).type), table[name].to_pylist()


def parquet(*arrays, names=("v", "w")):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(list(arrays), names=list(names)[: len(arrays)]), sink)
    return sink.getvalue()


def csv_of(values, **options):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n", **options)
    writer.writerow(["k", "v"])
    writer.writerows(enumerate(values))
    return stream.getvalue()


TYPES = {
    "leading zeros": (["01234", "1234", "501"], "string", ["01234", "1234", "501"]),
    "nan beside long ids": ([LONG, LONG + 1, "nan"], "int64", [LONG, LONG + 1, None]),
    "fractions beside long ids": ([LONG, LONG + 1, "0.5"], "string", [str(LONG), str(LONG + 1), "0.5"]),
    "fractions beside short ids": ([LONG // 1000, "0.5"], "double", [LONG / 1000 // 1, 0.5]),
    "floats of long ids": ([f"{LONG}.0", f"{LONG + 1}.0"], "string", [f"{LONG}.0", f"{LONG + 1}.0"]),
    "fractions of long ids": ([f"{LONG}.25", f"{LONG}.75"], "string", [f"{LONG}.25", f"{LONG}.75"]),
    "long ids with an exponent": ([f"{LONG}e0", f"{LONG}e1"], "string", [f"{LONG}e0", f"{LONG}e1"]),
    "large floats": (["1.5e16", "1e300", "0.1"], "double", [1.5e16, 1e300, 0.1]),
    "19 digits": ([2**63 - 1, 5], "int64", [2**63 - 1, 5]),
    "20 digits": ([2**63, 5], "string", [str(2**63), "5"]),
    "a word after a time": (["2024-01-01 10:00 today", "2024-01-01 10:00"], "string", None),
    "words": (["nan", "x", "inf"], "string", ["nan", "x", "inf"]),
}


@pytest.mark.parametrize("case", TYPES)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_infers_types_that_keep_all_values(case, kind):
    values, dtype, expected = TYPES[case]
    if kind == "csv":
        found = column(csv_of(values))
    elif case in ("leading zeros", "a word after a time", "words"):
        found = column({"a.jsonl": "".join(json.dumps({"k": i, "v": v}) + "\n" for i, v in enumerate(values))})
    else:
        found = column(
            {"a.jsonl": "".join(f'{{"k": {i}, "v": {str(v).replace("nan", "NaN")}}}\n' for i, v in enumerate(values))}
        )
    assert found[0] == dtype
    assert found[1] == (values if expected is None else expected)


CELLS = {
    "int": st.integers(-(10**20), 10**20),
    "small": st.integers(-1000, 1000),
    "float": st.floats(allow_nan=False, allow_infinity=False, width=64),
    "zip": st.from_regex(r"\A[0-9]{5}\Z"),
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=8),
    "nan": st.just("nan"),
}


@given(data=st.data(), kinds=st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=2))
@SLOW
def test_a_csv_column_keeps_each_value(data, kinds):
    """A value is what its text says as a number, or the text itself; a null is an empty text, NA or nan."""
    values = data.draw(st.lists(st.one_of(*(CELLS[kind] for kind in kinds)), min_size=1, max_size=30))
    table, malformed = read(csv_of(values, quoting=csv.QUOTE_ALL))
    frame = pd.read_csv(io.StringIO(csv_of(values, quoting=csv.QUOTE_ALL)), dtype=str, keep_default_na=False)
    bad = {entry["line"] for entry in malformed}
    assert table.num_rows + len(malformed) == len(frame) or bad
    texts = dict(zip(frame["k"].astype(int), frame["v"], strict=True))
    dtype = table.schema.field("v").type
    for key, value in zip(table["k"].to_pylist(), table["v"].to_pylist(), strict=True):
        text = texts[key]
        if value is None:
            assert text in ("", "NA") or (text.strip().lower() == "nan" and dtype != pa.string())
        elif pa.types.is_string(dtype):
            assert value == text
        elif pa.types.is_integer(dtype):
            assert Decimal(text) == value
        elif pa.types.is_floating(dtype):
            assert float(text) == value
            assert "e" in text.lower() or Decimal(text) == Decimal(value) or Decimal(text) % 1 != 0


TOKENS = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-(10**19), 10**19, allow_nan=False, places=3).map(str),
    st.decimals(-1000, 1000, allow_nan=False, places=2).map(str),
    st.sampled_from(["NaN", "null", "1e3", f"{LONG}.0", "9007199254740993.0", "4503599627370497.5"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6).map(json.dumps),
    st.just(f'"{LONG}.0"'),
)


@given(tokens=st.lists(TOKENS, min_size=1, max_size=8), is_array=st.booleans())
@SLOW
def test_a_json_column_keeps_each_value(tokens, is_array):
    """Independent reading: Python's, with decimals."""
    objects = [f'{{"k": {k}, "v": {token}}}' for k, token in enumerate(tokens)]
    text = f"[{', '.join(objects)}]" if is_array else "\n".join(objects)
    table, malformed = read({"a.json": text})
    dtype = table.schema.field("v").type
    expected = {o["k"]: o["v"] for o in (json.loads(o, parse_float=Decimal, parse_int=Decimal) for o in objects)}
    assert table.num_rows + len(malformed) == len(tokens)
    for key, value in zip(table["k"].to_pylist(), table["v"].to_pylist(), strict=True):
        plain = expected[key]
        if value is None:
            assert plain is None or plain != plain
        elif isinstance(plain, str):
            assert value == plain if pa.types.is_string(dtype) else pa.types.is_temporal(dtype)
        elif pa.types.is_floating(dtype) and abs(plain) < 10**15:
            assert value == float(plain)
        elif plain == plain:
            assert Decimal(repr(value) if isinstance(value, float) else value) == plain


def parquet_values(dtype):
    """Returns a strategy of columns of an Arrow type."""
    if pa.types.is_floating(dtype):
        values = st.floats(width=dtype.bit_width) | st.integers(-5, 5).map(float)
    elif pa.types.is_decimal(dtype):
        values = st.integers(-(10**19), 10**19).map(lambda n: n * Decimal(10) ** -dtype.scale)
    else:
        high = 2 ** (dtype.bit_width - 1) - 1
        values = st.integers(0 if dtype == pa.uint64() else -high, high)
    return st.lists(st.none() | values, max_size=8).map(lambda drawn: pa.array(drawn, dtype))


_DTYPES = [pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float32(), pa.float64()]
PARQUET_TYPES = st.sampled_from([*_DTYPES, pa.decimal128(20, 0), pa.decimal128(30, 3)])


@given(data=st.data(), types=st.lists(PARQUET_TYPES, min_size=1, max_size=3))
@SLOW
def test_a_parquet_column_of_several_files_keeps_each_value(data, types):
    arrays = [data.draw(parquet_values(dtype)) for dtype in types]
    files = {f"{index}.parquet": parquet(array) for index, array in enumerate(arrays)}
    values = [None if v is None or v != v else v for array in arrays for v in array.to_pylist()]
    try:
        table, malformed = read(files)
    except TidemillError as error:
        assert error.code is Code.UNREADABLE_FILE
        assert len(set(types)) > 1
        return
    assert not malformed
    for found, value in zip(table["v"].to_pylist(), values, strict=True):
        if isinstance(found, float) and isinstance(value, Decimal):
            assert Decimal(repr(found)) == value  # a float with the same digits
        else:
            assert _number(found) == _number(value)


def _number(value: int | float | Decimal | None) -> Decimal | float | None:
    return value if value is None or value in (np.inf, -np.inf) else Decimal(value)


def test_refuses_long_integers_beside_floats_of_another_file():
    whole, floats = pa.array([LONG, LONG + 2]), pa.array([LONG + 0.0, None])
    with pytest.raises(TidemillError) as error:
        read({"1.parquet": parquet(whole), "2.parquet": parquet(floats)})
    assert error.value.code is Code.UNREADABLE_FILE
    assert "'v' as BIGINT, and as DOUBLE in" in str(error.value)
    table, _ = read({"1.parquet": parquet(whole), "2.parquet": parquet(pa.array([5.0, float("nan")]))})
    assert (table["v"].to_pylist(), table.schema.field("v").type) == ([LONG, LONG + 2, 5, None], pa.int64())


NAMES = [
    (["v", "V"], "twice: also as"),
    (["v", "v"], "'v' twice"),
    (["k", "", "v"], "without a name"),
    (["k", "  "], "without a name"),
]


@pytest.mark.parametrize(("names", "words"), NAMES)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_refuses_names_that_sql_does_not_distinguish(names, words, kind):
    if kind == "parquet":
        content = parquet(*[pa.array([1])] * len(names), names=names)
    elif kind == "csv":
        content = ",".join(names) + "\n" + ",".join("1" * len(names)) + "\n"
    else:
        content = "{" + ", ".join(f'"{name}": 1' for name in names) + "}\n"
        content = f"[{content}]" if kind == "json" else content
    if kind in ("json", "jsonl") and names == ["v", "v"]:
        assert [bad["reason"] for bad in read({f"a.{kind}": content})[1]] == ["A key twice"]
        return
    with pytest.raises(TidemillError) as error:
        read({f"a.{kind}": content})
    assert error.value.code is Code.UNREADABLE_FILE
    assert words in str(error.value)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("folder", ["v=1", "V=1"])
def test_refuses_a_partition_folder_with_the_name_of_a_column(kind, folder):
    content = {"csv": "k,v\n1,2\n", "jsonl": '{"k": 1, "v": 2}\n', "parquet": parquet(pa.array([1]))}[kind]
    with pytest.raises(TidemillError, match="partition folder") as error:
        read({f"{folder}/a.{kind}": content})
    assert error.value.code is Code.UNREADABLE_FILE


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_partition_values_are_exact(kind):
    content = {"csv": "v\n2\n", "jsonl": '{"v": 2}\n', "parquet": parquet(pa.array([2]))}[kind]
    files = {f"at={text}/a.{kind}": content for text in ("2024-01-01 10:00:00+02:00", "2024-01-01")}
    table, _ = read(files, columns={"at": "TIMESTAMP"})
    assert sorted(map(str, table["at"].to_pylist())) == ["2024-01-01 00:00:00", "2024-01-01 08:00:00"]
    with pytest.raises(TidemillError, match="no DATE") as error:
        read(files, columns={"at": "DATE"})
    assert error.value.code is Code.UNREADABLE_FILE


def test_refuses_json_keys_of_two_files_that_differ_in_case():
    with pytest.raises(TidemillError, match="also as"):
        read({"1.jsonl": '{"id": 1}\n', "2.jsonl": '{"ID": 2}\n'})


def test_nan_is_null_in_the_query(runner):
    data = pa.table({"x": [1.0, float("nan"), 3.0], "l": [[1.0, float("nan")], [], None], "y": [0, 1, 1]})
    sink = io.BytesIO()
    pq.write_table(data, sink)
    path = runner.write("a.parquet", sink.getvalue())
    assert runner.read({"t": path}, "SELECT x FROM t WHERE NOT isnan(x)") == [{"x": 1.0}, {"x": 3.0}]
    assert runner.read({"t": path}, "SELECT count(x) AS n, max(x) AS high FROM t") == [{"n": 2, "high": 3.0}]
    assert {"l": [1.0, None]} in runner.read({"t": path}, "SELECT l FROM t")
    text = runner.write("b.csv", "x\n1.5\nnan\n")
    assert runner.read({"t": text}, "SELECT max(x) AS high FROM t") == [{"high": 1.5}]


def test_binary_columns_are_text_if_they_are_utf8():
    text, other = pa.array([b"caf\xc3\xa9", None, b""]), pa.array([b"\xff", b"a", None])
    table, _ = read({"a.parquet": parquet(text, other)})
    assert table["v"].to_pylist() == ["café", None, ""]
    assert table.schema.field("w").type == pa.binary()


def test_refuses_binary_features(runner):
    sink = io.BytesIO()
    pq.write_table(pa.table({"i": range(200), "b": [b"\xff", b"a"] * 100, "y": [0, 1] * 100}), sink)
    with pytest.raises(TidemillError) as error:
        runner.run({"t": runner.write("a.parquet", sink.getvalue())}, columns=["b"])
    assert error.value.code is Code.FEATURE_TYPE
    assert "hex(b)" in str(error.value)
    path = runner.write("a.parquet", sink.getvalue())
    found = runner.run({"t": path}, columns=["h"], sql="SELECT i, hex(b) AS h, y FROM t")
    assert {row["h"] for row in found.rows()} == {"FF", "61"}


DECIMALS = [
    (pa.decimal128(20, 0), [18 * 10**18, 18 * 10**18 + 1], "string"),
    (pa.decimal128(20, 0), [LONG, LONG + 1, None], "int64"),
    (pa.decimal128(9, 2), [Decimal("1.25"), None], "double"),
    (pa.decimal128(22, 2), [Decimal("12345678901234567.25"), Decimal("12345678901234567.26")], "decimal128(22, 2)"),
]


@pytest.mark.parametrize(("dtype", "values", "expected"), DECIMALS)
@pytest.mark.parametrize("key", [False, True])
def test_decimals_keep_their_digits(runner, dtype, values, expected, key):
    sink = io.BytesIO()
    pq.write_table(pa.table({"d": pa.array([v for v in values if not key or v is not None], dtype)}), sink)
    path = runner.write("a.parquet", sink.getvalue())
    run = runner.run({"t": path}, stage="predict", labels=[], key=["d"] if key else [])
    assert run.dataset.columns["d"] == (str(dtype) if key and expected == "double" else expected)
    found = {None if row["d"] is None else Decimal(row["d"]) for row in run.rows()}
    assert found == {v if v is None else Decimal(v) for v in values if not key or v is not None}


GERMAN = {"delim": ";", "decimal_separator": ",", "thousands": "."}
OTHER_NAMES = {"csv": {"skip": 1, "header": False}, "columns": {"k": "INT", "v": "VARCHAR"}}
FILES = {
    "mixed line ends": ('k,v\r\n1,a\n2,"b\r\nc"\r\n3,d\n', {}, ["a", "b\r\nc", "d"]),
    "crlf, last line lf": ("k,v\r\n1,a\r\n2,b\n", {}, ["a", "b"]),
    "utf-16 with a mark": ("k,v\n1,é\n".encode("utf-16"), {}, ["é"]),
    "latin-1": ("k,v\n1,é\n".encode("latin-1"), {"csv": {"encoding": "latin-1"}}, ["é"]),
    "cp1252": ("k,v\n1,€5\n".encode("cp1252"), {"csv": {"encoding": "cp1252"}}, ["€5"]),
    "pandas' index": (",v\n0,a\n1,b\n", {}, ["a", "b"]),
    "quote off": ('k\tv\n1\t5" screen\n2\t"x\n', {"csv": {"quote": "", "delim": "\t"}}, ['5" screen', '"x']),
    "another quote": ("k,v\n1,'a,b'\n", {"csv": {"quote": "'"}}, ["a,b"]),
    "backslash": ('k,v\n1,"a \\"b\\", c"\n', {"csv": {"escape": "\\"}}, ['a "b", c']),
    "decimal comma": ("k;v\n1;1.234,5\n2;-0,5\n", {"csv": GERMAN}, [1234.5, -0.5]),
    "thousands": ('k,v\n1,"1,234"\n2,7\n', {"csv": {"thousands": ","}}, [1234, 7]),
    "lines to skip": ("written by X\n\nk,v\n1,a\n", {"csv": {"skip": 2}}, ["a"]),
    "quotes in the lines to skip": ('"by X\nof Y\nk,v\n1,a\n2,b\n', {"csv": {"skip": 2}}, ["a", "b"]),
    "crlf lines to skip": ("by X\r\nk,v\r\n1,a\r\n", {"csv": {"skip": 1}}, ["a"]),
    "a header of two lines": ('"k\n1",v\n1,a\n2,b\n', {}, ["a", "b"]),
    "comments": ("# by X\nk,v\n# more\n1,a # why\n2,b\n", {"csv": {"comment": "#"}}, ["a ", "b"]),
    "skip and comment": ("by X\n# more\nk,v\n1,a\n", {"csv": {"comment": "#", "skip": 1}}, ["a"]),
    "null words of a column": ("k,v\n1,-\n2,NA\n3,\n", {"csv": {"nullstr": {"v": ["-"]}}}, [None, "NA", ""]),
    "a name twice": ("v,v\n1,a\n", OTHER_NAMES, ["a"]),
    "one column": ("v\n1\n\n2\n", {}, [1, None, 2]),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_reads_files_as_they_come(case):
    content, options, expected = FILES[case]
    assert column(content, **options)[1] == expected


def test_lines_of_malformed_rows_count_skipped_lines_and_comments():
    text = "by X\n# more\nk,v\n" + "".join(f"{i},a\n" for i in range(50)) + "# again\nten,b\nk,v\n7,c,d\n"
    table, malformed = read(text, csv={"comment": "#", "skip": 1})
    assert [(bad["line"], bad["text"]) for bad in malformed] == [(55, "ten,b"), (56, "k,v"), (57, "7,c,d")]
    assert table["k"].to_pylist() == list(range(50))


@pytest.mark.parametrize("declared", [False, True])
def test_reads_wide_files(declared):
    """More columns than one query converts."""
    names = [f"c{i}" for i in range(250)]
    rows = [[i * j for j in range(250)] for i in range(40)]
    rows[20][240], rows[30][3] = "ten", "1.5.5"
    text = "\n".join(",".join(map(str, row)) for row in [names, *rows]) + "\n"
    table, malformed = read(text, columns=dict.fromkeys(names, "BIGINT") if declared else None)
    assert [bad["line"] for bad in malformed] == [22, 32]
    assert table.to_pylist() == [dict(zip(names, row, strict=True)) for i, row in enumerate(rows) if i not in (20, 30)]


REFUSED = {
    "semicolons": ("k;v\n1;2\n", {}, Code.UNREADABLE_FILE, ['delimiter to ";"']),
    "unknown encoding": ("k,v\n1,2\n", {"csv": {"encoding": "utf-99"}}, Code.INVALID_VALUE, ["'utf-99'", "cp1252"]),
    "another encoding": (b"k,v\n1,\xff\n", {"csv": {"encoding": "ascii"}}, None, []),
    "not utf-16": (b"k,v\n1,2\n3", {"csv": {"encoding": "utf-16-le"}}, Code.UNREADABLE_FILE, ["utf-16-le"]),
    "options for json": ("{}", {"csv": {"quote": ""}, "format": "jsonl"}, Code.INVALID_VALUE, ["jsonl"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_files_with_the_remedy(case):
    content, options, code, words = REFUSED[case]
    if code is None:
        assert len(read(content, **options)[1]) == 1
        return
    with pytest.raises(TidemillError) as error:
        read(content, **options)
    assert error.value.code is code
    for word in words:
        assert word in str(error.value)


@given(
    rows=st.lists(st.dictionaries(st.sampled_from("abc"), st.none() | st.integers() | st.text(max_size=5), min_size=1)),
    indent=st.sampled_from([None, 1]),
)
@SLOW
def test_a_json_array_has_the_rows_of_its_lines(rows, indent):
    lines, malformed = read({"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    array, also = read({"a.json": json.dumps(rows, indent=indent, ensure_ascii=False)})
    assert (array.to_pylist(), len(also)) == (lines.to_pylist(), len(malformed))


@pytest.mark.parametrize(
    ("text", "lines"), [('[{"k": 1}, 5]', [1]), ('[\n{"k": 1},\n{"k": }\n]', [3]), ('[{"k": 1}', [1])]
)
def test_reports_what_is_wrong_in_a_json_array(text, lines):
    table, malformed = read({"a.json": text})
    assert table["k"].to_pylist() == [1]
    assert [bad["line"] for bad in malformed] == lines
