"""JSON files of a table: one object per line, or one array of objects; one column for each key that occurs.

DuckDB's own reader does not report the line numbers of rows that it skips. This module therefore splits the lines
itself and parses them with DuckDB's JSON functions. Nested values become JSON text.

DuckDB parses a number with a fraction or an exponent as a DOUBLE. A number whose integer part is too long for that is
put in quotes before, so that it is a text with all its digits.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.data.column_types import (
    RENAME_PARTITION,
    check_declared,
    check_names,
    count_kinds,
    infer_type,
    partition_types,
    partition_value,
    with_expected,
)
from tidemill.data.quarantine import Quarantine
from tidemill.data.source_files import StagedFiles, partition_values
from tidemill.data.text_values import exact_sql, malformed_sql
from tidemill.duckdb_session import literal, quote

_CHUNK = 16 << 20
_ELEMENTS = 50_000
_LONG_NUMBER = r"[0-9]{16}"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?')
_LONG_FROM = 10**15
_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]|-?[0-9][0-9.eE+-]*')


def create_table(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    types: dict[str, str],
    expected: Mapping[str, str],
    optional: Collection[str],
    staged: StagedFiles,
    quarantine: Quarantine,
) -> None:
    """Creates a table with the objects of JSON files. A file that begins with `[` is one array.

    A missing key is null. A number in a text column keeps its spelling, as `1.50`. Types that are not declared are
    inferred from all values; a column with any JSON string does not become a number or a boolean.

    Args:
        connection: The database.
        table_name: Name of the table to create, in the schema `main`.
        types: Declared DuckDB types of some columns. Rows with a value of a different type go to quarantine, and so do
            fractions in columns that are declared as integers.
        expected: Types of columns in training. A column that is not declared has it if all its values fit.
        optional: Columns of `expected` that no object needs to have. If there is no object, none needs to be there.
        staged: The files with their local paths.
        quarantine: Takes the malformed rows.

    Raises:
        TidemillError: `unreadable-file` for keys that SQL does not distinguish, and for an empty key; `missing-column`.
    """
    _read_lines(connection, staged)
    position = f"""{literal(table_name)} AS "table", tidemill_line AS line,
        {literal([file.uri for _, file in staged])}[tidemill_file + 1] AS uri"""
    broken = """CASE WHEN NOT utf8 THEN 'Not UTF-8 text' WHEN NOT json_valid(tidemill_text) THEN 'Not valid JSON'
        WHEN json_type(tidemill_text) != 'OBJECT' THEN 'Not a JSON object'
        WHEN len(json_keys(tidemill_text)) != len(list_distinct(json_keys(tidemill_text))) THEN 'A key twice' END"""
    quarantine.take(f"""SELECT {position}, {broken} AS reason, tidemill_text AS text
        FROM tidemill.lines WHERE {broken} IS NOT NULL""")
    connection.execute(f"DELETE FROM tidemill.lines WHERE {broken} IS NOT NULL")
    query = "SELECT DISTINCT unnest(json_keys(tidemill_text)) AS key FROM tidemill.lines ORDER BY key"
    keys = [key for (key,) in connection.execute(query).fetchall()]
    partitions = [partition_values(file.uri) for _, file in staged]
    partition_keys = list(partitions[0])
    where = f"{table_name}: {staged[0][1].uri}" + (", …" if len(staged) > 1 else "")
    check_names(where, keys, "give each key of the objects a different name, whatever its case")
    check_names(where, [*keys, *partition_keys], RENAME_PARTITION)
    present = [*keys, *partition_keys]
    absent = {c: types.get(c, t) for c, t in expected.items() if c not in present and (c in optional or not keys)}
    check_declared(table_name, types, [*present, *absent])
    types = with_expected(types, expected, keys)
    connection.execute(f"CREATE OR REPLACE TABLE tidemill.texts AS {_values(keys)}")
    types = types | _inferred(connection, [key for key in keys if key not in types], expected)
    types = types | partition_types(connection, types, [{k: p[k] for k in partition_keys} for p in partitions])
    _keep_spelling(connection, [key for key in keys if types[key] == "VARCHAR"])
    columns = [f"{exact_sql(quote(k), types[k])} AS {quote(k)}" for k in keys]
    for key in partition_keys:
        wheres = [f"{table_name}: {file.uri}" for _, file in staged]
        texts = zip(wheres, partitions, strict=True)
        listed = [partition_value(connection, where, key, values[key], types[key]) for where, values in texts]
        columns.append(f"[{', '.join(listed)}][tidemill_file + 1] AS {quote(key)}")
    columns += [f"CAST(NULL AS {kind}) AS {quote(k)}" for k, kind in absent.items()]
    reason = _contradiction(keys, types)
    connection.execute(f"""CREATE TABLE main.{quote(table_name)} AS
        SELECT {", ".join(columns) or "tidemill_line"} FROM tidemill.texts WHERE {reason} IS NULL""")
    quarantine.take(f"""SELECT {position}, {reason} AS reason, tidemill_text AS text
        FROM tidemill.texts WHERE {reason} IS NOT NULL""")
    connection.execute("DROP TABLE tidemill.lines; DROP TABLE tidemill.texts")


def _contradiction(keys: list[str], types: dict[str, str]) -> str:
    """Returns an expression for the mistakes among a row's values; null if there is none."""
    reasons = []
    for key in keys:
        value = quote(key)
        wrong = malformed_sql(value, exact_sql(value, types[key]), types[key])
        if types[key] != "VARCHAR":
            text = literal(f"Could not convert {key} to {types[key]}")
            reasons.append(f"CASE WHEN {wrong} THEN {text} END")
    return f"coalesce({', '.join(reasons)})" if reasons else "NULL"


def _read_lines(connection: duckdb.DuckDBPyConnection, staged: StagedFiles) -> None:
    connection.execute("""CREATE OR REPLACE TABLE tidemill.lines
        (tidemill_file INTEGER, tidemill_line BIGINT, tidemill_text VARCHAR, utf8 BOOLEAN)""")
    for index, (path, _) in enumerate(staged):
        for batch in _lines(path, index):
            connection.register("lines_batch", batch)
            connection.execute("INSERT INTO tidemill.lines FROM lines_batch")
            connection.unregister("lines_batch")


def _values(keys: list[str]) -> str:
    """Returns a query for the lines with a text column for each key. Each line is parsed once."""
    pointers = literal(["/" + key.replace("~", "~0").replace("/", "~1") for key in keys])
    columns = "".join(f", extracted[{i + 1}] AS {quote(key)}" for i, key in enumerate(keys))
    extracted = f"json_extract_string(tidemill_text, {pointers})" if keys else "NULL"
    return f"""SELECT tidemill_file, tidemill_line, tidemill_text{columns}
        FROM (SELECT *, {extracted} AS extracted FROM tidemill.lines)"""


def _inferred(connection: duckdb.DuckDBPyConnection, keys: list[str], expected: Mapping[str, str]) -> dict[str, str]:
    if not keys:
        return {}
    pointers = literal(["/" + key.replace("~", "~0").replace("/", "~1") for key in keys])
    is_text = ", ".join(f"bool_or(kinds[{i + 1}] IN ('VARCHAR', 'OBJECT', 'ARRAY'))" for i in range(len(keys)))
    query = f"SELECT {is_text} FROM (SELECT json_type(tidemill_text, {pointers}) AS kinds FROM tidemill.lines)"
    texts = connection.execute(query).fetchall()[0]
    kinds: dict[str, Counter] = count_kinds(
        connection, "tidemill.texts", {key: _exact_number(quote(key)) for key in keys}
    )
    types = {key: infer_type(kinds[key], expected.get(key)) for key in keys}
    for key, text in zip(keys, texts, strict=True):
        if text and key not in expected and types[key] in ("BIGINT", "DOUBLE", "BOOLEAN"):
            types[key] = "VARCHAR"
    return types


def _keep_spelling(connection: duckdb.DuckDBPyConnection, keys: list[str]) -> None:
    """Replaces the numbers of text columns in `tidemill.texts`, which DuckDB has printed, with those of the file."""
    if not keys:
        return
    pointers = literal(["/" + key.replace("~", "~0").replace("/", "~1") for key in keys])
    query = f"""SELECT rowid, tidemill_text FROM tidemill.texts
        WHERE list_contains(json_type(tidemill_text, {pointers}), 'DOUBLE')
            OR regexp_matches(tidemill_text, '[:\\s]-0\\s*[,}}]')"""
    names = [f"tidemill_{i}" for i in range(len(keys))]
    shape = ", ".join(f"{name} VARCHAR" for name in names)
    connection.execute(f"CREATE OR REPLACE TABLE tidemill.spelled (tidemill_row BIGINT, {shape})")
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(query)
        while rows := cursor.fetchmany(_ELEMENTS):
            numbers = [_numbers(text) for _, text in rows]
            columns = [pa.array([each.get(key) for each in numbers], pa.string()) for key in keys]
            batch = pa.table([pa.array([row for row, _ in rows], pa.int64()), *columns], ["tidemill_row", *names])
            connection.register("spelled_batch", batch)
            connection.execute("INSERT INTO tidemill.spelled FROM spelled_batch")
            connection.unregister("spelled_batch")
    values = ", ".join(f"{quote(k)} = coalesce({name}, {quote(k)})" for k, name in zip(keys, names, strict=True))
    connection.execute(f"UPDATE tidemill.texts SET {values} FROM tidemill.spelled WHERE texts.rowid = tidemill_row")
    connection.execute("DROP TABLE tidemill.spelled")


def _numbers(text: str) -> dict[str, str]:
    """Returns the numbers of a JSON object by key, as they are written. Numbers inside nested values are left out."""
    depth, last, found = 0, '""', {}
    for match in _PART.finditer(text):
        part = match[0]
        if part in "{[":
            depth += 1
        elif part in "}]":
            depth -= 1
        elif depth == 1 and part[0] == '"':
            last = part
        elif depth == 1 and part[0] != '"':
            found[json.loads(last, strict=False)] = part
    return found


def _exact_number(text: str) -> str:
    """Returns an expression for a text in which a long number with a fraction is a short one. As a text of CSV it would
    change as a DOUBLE; here it is one already, or it is in quotes and the column is text."""
    is_long = f"length({text}) > 16 AND regexp_full_match({text}, '-?[0-9]+\\.[0-9]*')"
    return f"CASE WHEN {is_long} THEN '0.5' ELSE {text} END"


def _lines(path: Path, index: int) -> Iterator[pa.Table]:
    """Yields the file's lines, or the elements of its array, with their numbers. Skips blank lines."""
    number, rest = 1, b""
    with path.open("rb") as file:
        if file.read(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
            yield from _elements(path, index)
            return
        file.seek(0)
        while chunk := file.read(_CHUNK):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            yield _table(lines, index, range(number, number + len(lines)))
            number += len(lines)
    if rest:
        yield _table([rest], index, [number])


def _elements(path: Path, index: int) -> Iterator[pa.Table]:
    """Yields the texts of the elements of a file that holds one JSON array, with the lines where they begin.

    What follows a mistake becomes one element, which is not valid JSON.
    """
    decoder, separator = json.JSONDecoder(), re.compile(r"[\s,]*")
    text, elements, numbers, number = path.read_text("utf-8-sig", "surrogateescape"), [], [], 1
    position, end = text.index("[") + 1, len(text.rstrip())
    number += text.count("\n", 0, position)
    broken = False
    while True:
        start = separator.match(text, position).end()  # type: ignore[union-attr]
        number += text.count("\n", position, start)
        if broken or start >= end or text[start] == "]":
            break
        try:
            position = decoder.raw_decode(text, start)[1]
        except json.JSONDecodeError:
            position, broken = end, True
        elements.append(text[start:position].encode("utf-8", "surrogateescape"))
        numbers.append(number)
        number += text.count("\n", start, position)
        if len(elements) == _ELEMENTS:
            yield _table(elements, index, numbers)
            elements, numbers = [], []
    if not broken and (start >= end or start + 1 < end):
        elements.append(text[start:end].encode("utf-8", "surrogateescape") or b"(the array does not end)")
        numbers.append(number)
    if elements:
        yield _table(elements, index, numbers)


def _table(lines: list[bytes], index: int, line_numbers: Sequence[int]) -> pa.Table:
    try:
        text, whole = pa.array(lines, pa.binary()).cast(pa.string()), [True] * len(lines)
    except pa.ArrowInvalid:
        decoded = [line.decode("utf-8", "replace") for line in lines]
        whole = [text.encode() == line for text, line in zip(decoded, lines, strict=True)]
        text = pa.array(decoded, pa.string())
    text = _with_long_numbers_quoted(text)
    numbers = pa.array(line_numbers, pa.int64())
    files = pa.array([index] * len(lines), pa.int32())
    table = pa.table({"tidemill_file": files, "tidemill_line": numbers, "tidemill_text": text, "utf8": whole})
    return table.filter(pc.not_equal(pc.utf8_trim_whitespace(text), ""))


def _with_long_numbers_quoted(texts: pa.StringArray) -> pa.StringArray:
    """Returns JSON texts in which quotes are around the numbers that a DOUBLE would change: `1e3` is not one of them,
    and `12345678901234567.0` is. Integers stay, because DuckDB keeps their digits."""
    found = pc.match_substring_regex(texts, _LONG_NUMBER)
    if not pc.any(found).as_py():
        return texts
    replaced = [_TOKEN.sub(_quoted_if_long, text) for text in texts.filter(found).to_pylist()]
    return pc.replace_with_mask(texts, found, pa.array(replaced, pa.string()))


def _quoted_if_long(match: re.Match[str]) -> str:
    token = match[0]
    if token[0] == '"' or token.lstrip("-").isdecimal():
        return token
    number = float(token)
    changes = abs(number) >= _LONG_FROM and math.isfinite(number) and Decimal(repr(number)) != Decimal(token)
    return f'"{token}"' if changes else token
