"""JSON-lines files of a table: one object per line, one column for each key that occurs.

DuckDB's own reader does not report the line numbers of rows that it skips. This module therefore splits the lines
itself and parses them with DuckDB's JSON functions. Nested values become JSON text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.data.column_types import INTEGERS, check_declared, count_kinds, infer_type, partition_types, with_expected
from tidemill.data.quarantine import Quarantine
from tidemill.data.source_files import StagedFiles, partition_values
from tidemill.duckdb_session import literal, quote

_CHUNK = 16 << 20


def create_table(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    types: dict[str, str],
    expected: Mapping[str, str],
    optional: Collection[str],
    staged: StagedFiles,
    quarantine: Quarantine,
) -> None:
    """Creates a table with the objects of JSON-lines files.

    A missing key is null. Types that are not declared are inferred from all values; a column with any JSON string does
    not become a number or a boolean.

    Args:
        connection: The database.
        table_name: Name of the table to create, in the schema `main`.
        types: Declared DuckDB types of some columns. Rows with a value of a different type go to quarantine, and so do
            fractions in columns that are declared as integers.
        expected: Types of columns in training. A column that is not declared has it if all its values fit.
        optional: Columns of `expected` that no object needs to have. If there is no object, none needs to be there.
        staged: The files with their local paths.
        quarantine: Takes the malformed rows.
    """
    _read_lines(connection, staged)
    position = f"""{literal(table_name)} AS "table", tidemill_line AS line,
        {literal([file.uri for _, file in staged])}[tidemill_file + 1] AS uri"""
    broken = """CASE WHEN NOT utf8 THEN 'Not UTF-8 text' WHEN NOT json_valid(tidemill_text) THEN 'Not valid JSON'
        WHEN json_type(tidemill_text) != 'OBJECT' THEN 'Not a JSON object' END"""
    quarantine.take(f"""SELECT {position}, {broken} AS reason, tidemill_text AS text
        FROM tidemill.lines WHERE {broken} IS NOT NULL""")
    connection.execute(f"DELETE FROM tidemill.lines WHERE {broken} IS NOT NULL")
    query = "SELECT DISTINCT unnest(json_keys(tidemill_text)) AS key FROM tidemill.lines ORDER BY key"
    keys = [key for (key,) in connection.execute(query).fetchall()]
    partitions = [partition_values(file.uri) for _, file in staged]
    partition_keys = [key for key in partitions[0] if key not in keys]
    present = [*keys, *partition_keys]
    absent = {c: types.get(c, t) for c, t in expected.items() if c not in present and (c in optional or not keys)}
    check_declared(table_name, types, [*present, *absent])
    types = with_expected(types, expected, keys)
    values = _values(keys)
    types = types | _inferred(connection, [key for key in keys if key not in types], values, expected)
    types = types | partition_types(connection, types, [{k: p[k] for k in partition_keys} for p in partitions])
    columns = [f"CAST({quote(k)} AS {types[k]}) AS {quote(k)}" for k in keys]
    columns += [
        f"CAST({literal([p[k] for p in partitions])}[tidemill_file + 1] AS {types[k]}) AS {quote(k)}"
        for k in partition_keys
    ]
    columns += [f"CAST(NULL AS {kind}) AS {quote(k)}" for k, kind in absent.items()]
    reason = _contradiction(keys, types)
    connection.execute(f"""CREATE TABLE main.{quote(table_name)} AS
        SELECT {", ".join(columns) or "tidemill_line"} FROM ({values}) WHERE {reason} IS NULL""")
    quarantine.take(f"""SELECT {position}, {reason} AS reason, tidemill_text AS text
        FROM ({values}) WHERE {reason} IS NOT NULL""")
    connection.execute("DROP TABLE tidemill.lines")


def _contradiction(keys: list[str], types: dict[str, str]) -> str:
    """Returns an expression for the first mistake among a row's values; null if there is none."""
    cases = ""
    for key in keys:
        value = quote(key)
        fraction = f"coalesce(TRY_CAST({value} AS DECIMAL(38,9)) % 1 != 0, false)"
        wrong = f"TRY_CAST({value} AS {types[key]}) IS NULL" + (f" OR {fraction}" if types[key] in INTEGERS else "")
        text = literal(f"Could not convert {key} to {types[key]}")
        cases += f" WHEN {value} IS NOT NULL AND ({wrong}) THEN {text}"
    return f"CASE{cases} END" if cases else "NULL"


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


def _inferred(
    connection: duckdb.DuckDBPyConnection, keys: list[str], values: str, expected: Mapping[str, str]
) -> dict[str, str]:
    if not keys:
        return {}
    pointers = literal(["/" + key.replace("~", "~0").replace("/", "~1") for key in keys])
    is_text = ", ".join(f"bool_or(kinds[{i + 1}] IN ('VARCHAR', 'OBJECT', 'ARRAY'))" for i in range(len(keys)))
    query = f"SELECT {is_text} FROM (SELECT json_type(tidemill_text, {pointers}) AS kinds FROM tidemill.lines)"
    texts = connection.execute(query).fetchall()[0]
    kinds: dict[str, Counter] = count_kinds(connection, values, keys)
    types = {key: infer_type(kinds[key], expected.get(key)) for key in keys}
    for key, text in zip(keys, texts, strict=True):
        if text and key not in expected and types[key] in ("BIGINT", "DOUBLE", "BOOLEAN"):
            types[key] = "VARCHAR"
    return types


def _lines(path: Path, index: int) -> Iterator[pa.Table]:
    """Yields the file's lines with their numbers. Skips blank lines."""
    number, rest = 1, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            yield _table(lines, index, number)
            number += len(lines)
    if rest:
        yield _table([rest], index, number)


def _table(lines: list[bytes], index: int, number: int) -> pa.Table:
    try:
        text, whole = pa.array(lines, pa.binary()).cast(pa.string()), [True] * len(lines)
    except pa.ArrowInvalid:
        decoded = [line.decode("utf-8", "replace") for line in lines]
        whole = [text.encode() == line for text, line in zip(decoded, lines, strict=True)]
        text = pa.array(decoded, pa.string())
    numbers = pa.array(range(number, number + len(lines)), pa.int64())
    files = pa.array([index] * len(lines), pa.int32())
    table = pa.table({"tidemill_file": files, "tidemill_line": numbers, "tidemill_text": text, "utf8": whole})
    return table.filter(pc.not_equal(pc.utf8_trim_whitespace(text), ""))
