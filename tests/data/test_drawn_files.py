"""Drawn files: dialects, names, times, null words and malformed rows, against readings by pandas and pyarrow."""

import codecs
import datetime as dt
import io
import itertools
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.data.runs import Runner, read_table
from tidemill.artifacts.examples import NULL_WORDS
from tidemill.errors import Code, TidemillError

SLOW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def read(files: dict[str, bytes], **options) -> tuple[pa.Table, list[dict]]:
    with TemporaryDirectory() as folder:
        return read_table(Path(folder), files, **options)


@st.composite
def dialects(draw):
    """Draws how a file is written, and the characters that its cells can have."""
    delim = draw(st.sampled_from([",", ";", "\t", "|"]))
    quote = draw(st.sampled_from(['"', "'", ""]))
    escape = draw(st.sampled_from([None, "\\"])) if quote else None
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"]))
    skip = draw(st.lists(st.sampled_from(["", 'by "X', "'", f"a{delim}b"]), max_size=2))
    ends = draw(st.sampled_from([["\n"], ["\r\n"], ["\n", "\r\n"]]))
    letters = "ab0 é'\"" + ("\\" if escape else "") + ",;\t|" * bool(quote) + "\n" * bool(quote)
    if not quote:
        letters = letters.replace('"', "") + '"'
    return {"delim": delim, "quote": quote, "escape": escape, "encoding": encoding, "skip": skip, "ends": ends}, letters


def text_of(rows: list[list[str]], dialect: dict, ends: list[str]) -> str:
    quote, escape = dialect["quote"], dialect["escape"]

    def cell(text: str) -> str:
        if not quote:
            return text
        inner = (
            text.replace(escape, escape * 2).replace(quote, escape + quote)
            if escape
            else text.replace(quote, quote * 2)
        )
        return f"{quote}{inner}{quote}"

    lines = [*dialect["skip"], *(dialect["delim"].join(map(cell, row)) for row in rows)]
    return "".join(line + ends[index % len(ends)] for index, line in enumerate(lines))


@given(data=st.data(), drawn=dialects(), word=st.sampled_from([None, "-", "a"]))
@SLOW
def test_a_file_of_any_dialect_has_the_cells_that_pandas_reads(data, drawn, word):
    dialect, letters = drawn
    cells = st.text(st.sampled_from(letters), max_size=4) | st.sampled_from(["-", "a"])
    rows = data.draw(st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=12))
    text = text_of([["k", "v"], *rows], dialect, dialect["ends"])
    content = text.encode(dialect["encoding"])
    null_words = {"v": [word]} if word else {"v": []}
    options = {"delim": dialect["delim"], "quote": dialect["quote"], "skip": len(dialect["skip"])}
    options |= {"escape": dialect["escape"]} if dialect["escape"] else {}
    options |= {"encoding": dialect["encoding"], "nullstr": {"k": [], **null_words}}
    table, malformed = read({"a.csv": content}, csv=options, columns={"k": "VARCHAR", "v": "VARCHAR"})
    frame = pd.read_csv(
        # pandas looks for quotes in lines that it skips.
        io.BytesIO("".join(text.splitlines(keepends=True)[len(dialect["skip"]) :]).encode(dialect["encoding"])),
        sep=dialect["delim"],
        quoting=0 if dialect["quote"] else 3,
        quotechar=dialect["quote"] or '"',
        doublequote=dialect["escape"] is None,
        escapechar=dialect["escape"],
        encoding=dialect["encoding"],
        skip_blank_lines=False,
        dtype=str,
        keep_default_na=False,
        na_values=null_words,
    )
    assert not malformed
    assert table.to_pydict() == {name: [None if pd.isna(v) else v for v in frame[name]] for name in ("k", "v")}
    assert table["k"].to_pylist() == [k for k, _ in rows]


@pytest.mark.parametrize("above", [{}, {"skip": 1}, {"comment": "#"}])
@pytest.mark.parametrize("quote", ["", '"'])
def test_reads_line_ends_of_two_kinds_in_any_order(quote, above):
    lines = ["k,v", "1,a", "2,b"]
    lines = ["# by X"] * bool(above) + [",".join(f"{quote}{c}{quote}" for c in line.split(",")) for line in lines]
    for ends in itertools.product(["\n", "\r\n"], repeat=len(lines)):
        content = "".join(line + end for line, end in zip(lines, ends, strict=True)).encode()
        table, malformed = read({"a.csv": content}, csv=above)
        assert (table.to_pydict(), malformed) == ({"k": [1, 2], "v": ["a", "b"]}, []), ends


NAMES = st.lists(st.sampled_from(["a", "A", "b", "B", "ä", "Ä", "a b", "", " ", "index"]), min_size=1, max_size=4)


@given(names=NAMES, kind=st.sampled_from(["csv", "jsonl", "parquet"]), folder=st.sampled_from(["", "b=7/", "c=7/"]))
@settings(SLOW, max_examples=40)
def test_names_are_distinct_for_sql_or_refused(names, kind, folder):
    """Independent reading: the names that pyarrow and pandas see, where they keep all of them apart."""
    values = [f"w{i}" for i in range(len(names))]
    if kind == "jsonl":
        assume(len(set(names)) == len(names))
        content = (json.dumps(dict(zip(names, values, strict=True))) + "\n").encode()
    elif kind == "csv":
        content = f"{','.join(names)}\n{','.join(values)}\n".encode()
    else:
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_arrays([pa.array([v]) for v in values], names=names), sink)
        content = sink.getvalue()
    seen = list(names)
    if kind == "csv" and len(names) > 1 and names[0] == "" and "index" not in names:
        seen[0] = "index"
    if folder:
        seen.append(folder[0])
    is_distinct = len({name.lower() for name in seen}) == len(seen) and all(name.strip() for name in seen)
    try:
        table, malformed = read({f"{folder}a.{kind}": content})
    except TidemillError as error:
        assert error.code is Code.UNREADABLE_FILE
        assert not is_distinct
        return
    assert is_distinct and not malformed
    expected = dict(zip(seen, [*values, 7], strict=False))
    assert table.to_pylist() == [expected]


FORMATS = [
    ("%Y-%m-%d", None),
    ("%d/%m/%Y", {"dateformat": "%d/%m/%Y"}),
    ("%m-%d-%Y", {"dateformat": "%m-%d-%Y"}),
    ("%Y-%m-%d %H:%M:%S", None),
    ("%Y-%m-%dT%H:%M:%S.%f", None),
    ("%Y-%m-%dT%H:%M:%S+02:00", None),
    ("%Y-%m-%d %I:%M:%S %p", None),
    ("%d.%m.%Y %H:%M:%S", {"timestampformat": "%d.%m.%Y %H:%M:%S"}),
    ("%Y-%m-%d %H:%M:%S noon", None),
]


@given(
    instants=st.lists(st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1)), min_size=1, max_size=10),
    written=st.sampled_from(FORMATS),
    other=st.none() | st.sampled_from(FORMATS),
)
@settings(SLOW, max_examples=25)
def test_times_are_the_instants_that_pandas_reads_or_text(instants, written, other):
    """Several forms in one column are all understood, or the column is text."""
    form, options = written
    texts = [instant.strftime(form) for instant in instants]
    texts += [instants[0].strftime(other[0])] if other else []
    content = "k,v\n" + "".join(f"{k},{text}\n" for k, text in enumerate(texts))
    table, malformed = read({"a.csv": content.encode()}, csv=options)
    kind = table.schema.field("v").type
    assert table.num_rows + len(malformed) == len(texts)
    for k, value in zip(table["k"].to_pylist(), table["v"].to_pylist(), strict=True):
        if pa.types.is_string(kind):
            assert value == texts[k]
            continue
        read_as = (form if k < len(instants) else other[0]).replace("+02:00", "%z")
        expected = pd.to_datetime(texts[k], format=read_as, utc=True)
        assert pd.Timestamp(value, tz="UTC") == expected
        assert isinstance(value, dt.datetime) or expected == expected.normalize()
    if other is None and "noon" not in form:
        assert not pa.types.is_string(kind)


ROWS = {
    "good": lambda k: (f"{k},{k}.5,w{k}".encode(), True),
    "null": lambda k: (f"{k},,".encode(), True),
    "few fields": lambda k: (f"{k},1.5".encode(), False),
    "many fields": lambda k: (f"{k},1.5,a,b".encode(), False),
    "a word": lambda k: (f"{k},x,a".encode(), False),
    "a fraction": lambda k: (f"{k}.5,1.5,a".encode(), False),
    "not utf-8": lambda k: (f"{k},1.5,".encode() + b"\xff", False),
}  # fmt: skip


@given(kinds=st.lists(st.sampled_from(sorted(ROWS)), min_size=1, max_size=20))
@SLOW
def test_each_row_is_read_or_counted_as_malformed(kinds):
    lines, good = zip(*(ROWS[kind](k) for k, kind in enumerate(kinds)), strict=True)
    content = b"k,x,v\n" + b"\n".join(lines) + b"\n"
    table, malformed = read({"a.csv": content}, columns={"k": "BIGINT", "x": "DOUBLE", "v": "VARCHAR"})
    assert sorted(table["k"].to_pylist()) == [k for k, is_good in enumerate(good) if is_good]
    assert sorted(entry["line"] for entry in malformed) == [k + 2 for k, is_good in enumerate(good) if not is_good]


@given(words=st.lists(st.sampled_from(["NA", "", "a", "nan", "null"]), min_size=1, max_size=20))
@SLOW
def test_null_words_of_text_columns_are_counted_as_pandas_counts_them(words):
    assume("a" in words)
    content = "k,v\n" + "".join(f"{k},{word}\n" for k, word in enumerate(words))
    with TemporaryDirectory() as folder:
        runner = Runner(Path(folder))
        run = runner.run({"t": runner.write("a.csv", content)}, stage="predict", labels=[])
        found = run.dataset.metadata[NULL_WORDS]
        values = {row["k"]: row["v"] for row in run.rows()}
    column = pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False)["v"]
    shares = column.value_counts(normalize=True).to_dict()
    assert found.get("t", {}).get("v", {}) == pytest.approx({w: s for w, s in shares.items() if w in ("NA", "")})
    assert [values[k] for k in range(len(words))] == [None if w in ("NA", "") else w for w in words]


def is_utf8(value: bytes) -> bool:
    return codecs.decode(value, "utf-8", "ignore").encode() == value


@given(values=st.lists(st.none() | st.binary(max_size=3) | st.text(max_size=3).map(str.encode), max_size=10))
@SLOW
def test_binary_columns_are_the_text_that_python_decodes(values):
    sink = io.BytesIO()
    pq.write_table(pa.table({"v": pa.array(values, pa.binary())}), sink)
    table, _ = read({"a.parquet": sink.getvalue()})
    if all(value is None or is_utf8(value) for value in values):
        assert table["v"].to_pylist() == [None if value is None else value.decode() for value in values]
    else:
        assert table["v"].to_pylist() == values
