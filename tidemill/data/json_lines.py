"""JSON lines: one object a line, to a table with a column for each key that occurs.

DuckDB's own reader gives no line numbers for what it skips, so lines are split here and parsed by DuckDB's JSON
functions. Nested values become their JSON text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.data import formats, inference
from tidemill.data.columns import INTEGERS, check_declared, partition_types
from tidemill.data.groups import Staged
from tidemill.data.quarantine import Quarantine
from tidemill.duckdb_session import literal, quote

_CHUNK = 16 << 20


def load(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    types: dict[str, str],
    staged: Staged,
    quarantine: Quarantine,
) -> None:
    """Creates a table of the objects in the files.

    A key that a line lacks is null. Types that are not declared are found from all values; a column that holds a JSON
    string anywhere does not become a number or a boolean.

    Args:
        types: Declared DuckDB types of some columns. Their rows go to quarantine where the value is of another type; a
            fraction is not of an integer type.
    """
    _read_lines(connection, staged)
    place = f"""{literal(table_name)} AS "table", {literal([file.uri for _, file in staged])}[tidemill_file + 1] AS uri,
        tidemill_line AS line"""
    broken = """CASE WHEN NOT utf8 THEN 'No UTF-8 text' WHEN NOT json_valid(tidemill_text) THEN 'No valid JSON'
        WHEN json_type(tidemill_text) != 'OBJECT' THEN 'No JSON object' END"""
    quarantine.take(f"""SELECT {place}, {broken} AS reason, tidemill_text AS text
        FROM tidemill.lines WHERE {broken} IS NOT NULL""")
    connection.execute(f"DELETE FROM tidemill.lines WHERE {broken} IS NOT NULL")
    query = "SELECT DISTINCT unnest(json_keys(tidemill_text)) AS key FROM tidemill.lines ORDER BY key"
    keys = [key for (key,) in connection.execute(query).fetchall()]
    partitions = [formats.partitions(file.uri) for _, file in staged]
    given = [key for key in partitions[0] if key not in keys]
    check_declared(table_name, types, [*keys, *given])
    values = _values(keys)
    types = types | _inferred(connection, [key for key in keys if key not in types], values)
    types = types | partition_types(connection, types, [{k: p[k] for k in given} for p in partitions])
    columns = [f"CAST({quote(k)} AS {types[k]}) AS {quote(k)}" for k in keys]
    columns += [
        f"CAST({literal([p[k] for p in partitions])}[tidemill_file + 1] AS {types[k]}) AS {quote(k)}" for k in given
    ]
    reason = _contradiction(keys, types)
    connection.execute(f"""CREATE TABLE main.{quote(table_name)} AS
        SELECT {", ".join(columns) or "tidemill_line"} FROM ({values}) WHERE {reason} IS NULL""")
    quarantine.take(f"""SELECT {place}, {reason} AS reason, tidemill_text AS text
        FROM ({values}) WHERE {reason} IS NOT NULL""")
    connection.execute("DROP TABLE tidemill.lines")


def _contradiction(keys: list[str], types: dict[str, str]) -> str:
    """An expression for what is wrong with a row's values, null where nothing is."""
    cases = ""
    for key in keys:
        value = quote(key)
        fraction = f"coalesce(TRY_CAST({value} AS DECIMAL(38,9)) % 1 != 0, false)"
        wrong = f"TRY_CAST({value} AS {types[key]}) IS NULL" + (f" OR {fraction}" if types[key] in INTEGERS else "")
        text = literal(f"Could not convert {key} to {types[key]}")
        cases += f" WHEN {value} IS NOT NULL AND ({wrong}) THEN {text}"
    return f"CASE{cases} END" if cases else "NULL"


def _read_lines(connection: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    connection.execute("""CREATE OR REPLACE TABLE tidemill.lines
        (tidemill_file INTEGER, tidemill_line BIGINT, tidemill_text VARCHAR, utf8 BOOLEAN)""")
    for index, (path, _) in enumerate(staged):
        for batch in _lines(path, index):
            connection.register("lines_batch", batch)
            connection.execute("INSERT INTO tidemill.lines FROM lines_batch")
            connection.unregister("lines_batch")


def _values(keys: list[str]) -> str:
    """A query for the lines with a text column for each key; each line is parsed once."""
    pointers = literal(["/" + key.replace("~", "~0").replace("/", "~1") for key in keys])
    columns = "".join(f", found[{i + 1}] AS {quote(key)}" for i, key in enumerate(keys))
    found = f"json_extract_string(tidemill_text, {pointers})" if keys else "NULL"
    return f"""SELECT tidemill_file, tidemill_line, tidemill_text{columns}
        FROM (SELECT *, {found} AS found FROM tidemill.lines)"""


def _inferred(connection: duckdb.DuckDBPyConnection, keys: list[str], values: str) -> dict[str, str]:
    if not keys:
        return {}
    pointers = literal(["/" + key.replace("~", "~0").replace("/", "~1") for key in keys])
    is_text = ", ".join(f"bool_or(kinds[{i + 1}] IN ('VARCHAR', 'OBJECT', 'ARRAY'))" for i in range(len(keys)))
    query = f"SELECT {is_text} FROM (SELECT json_type(tidemill_text, {pointers}) AS kinds FROM tidemill.lines)"
    texts = connection.execute(query).fetchall()[0]
    kinds: dict[str, Counter] = inference.count_kinds(connection, values, keys)
    types = {key: inference.type_of(kinds[key]) for key in keys}
    for key, text in zip(keys, texts, strict=True):
        if text and types[key] in ("BIGINT", "DOUBLE", "BOOLEAN"):
            types[key] = "VARCHAR"
    return types


def _lines(path: Path, index: int) -> Iterator[pa.Table]:
    """The file's lines with their numbers, without blank ones."""
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
