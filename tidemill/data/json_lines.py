"""JSON lines: one object a line, to a table with a column for each key that occurs.

DuckDB's own reader gives no line numbers for what it skips, so lines are split here and parsed by DuckDB's JSON functions.
Nested values become their JSON text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.data import formats, inference
from tidemill.data.engine import literal, name
from tidemill.data.quarantine import Quarantine
from tidemill.specs import SourceFile

_CHUNK = 16 << 20


def load(
    connection: duckdb.DuckDBPyConnection,
    table_name: str,
    types: dict[str, str],
    staged: list[tuple[Path, SourceFile]],
    quarantine: Quarantine,
) -> None:
    """Creates a table of the objects in the files.

    A key that a line lacks is null. Types that are not declared are found from all values; a column that holds a JSON
    string anywhere does not become a number or a boolean.

    Args:
        types: Declared DuckDB types of some columns. Their rows go to quarantine where the value is of another type.
    """
    from tidemill.data.tables import check_declared, partition_types

    connection.execute("CREATE OR REPLACE TABLE tidemill.lines (file INTEGER, line BIGINT, text VARCHAR)")
    for index, (path, _) in enumerate(staged):
        for batch in _lines(path, index):
            connection.register("lines_batch", batch)
            connection.execute("INSERT INTO tidemill.lines FROM lines_batch")
            connection.unregister("lines_batch")
    uris = literal([file.uri for _, file in staged])
    whole = "json_valid(text) AND json_type(text) = 'OBJECT'"
    quarantine.take(f"""SELECT {literal(table_name)} AS "table", {uris}[file + 1] AS uri, line,
        CASE WHEN json_valid(text) THEN 'No JSON object' ELSE 'No valid JSON' END AS reason, text
        FROM tidemill.lines WHERE NOT coalesce({whole}, false)""")
    connection.execute(f"DELETE FROM tidemill.lines WHERE NOT coalesce({whole}, false)")
    rows = connection.execute("SELECT DISTINCT unnest(json_keys(text)) AS key FROM tidemill.lines ORDER BY key").fetchall()
    keys = [key for (key,) in rows]
    partitions = [formats.partitions(file.uri) for _, file in staged]
    check_declared(table_name, types, [*keys, *partitions[0]])
    given = [key for key in partitions[0] if key not in keys]
    values = _values(keys)
    types = types | _inferred(connection, [key for key in keys if key not in types], values)
    types = types | partition_types(connection, types, [{k: p[k] for k in given} for p in partitions])
    good = " AND ".join(f"(TRY_CAST({name(k)} AS {types[k]}) IS NOT NULL OR {name(k)} IS NULL)" for k in keys) or "true"
    columns = [f"CAST({name(k)} AS {types[k]}) AS {name(k)}" for k in keys]
    columns += [f"CAST({literal([p[k] for p in partitions])}[file + 1] AS {types[k]}) AS {name(k)}" for k in given]
    connection.execute(f"""CREATE TABLE main.{name(table_name)} AS
        SELECT {', '.join(columns) or 'line'} FROM ({values}) WHERE {good}""")
    if keys:
        reason = " ".join(
            f"WHEN TRY_CAST({name(k)} AS {types[k]}) IS NULL AND {name(k)} IS NOT NULL THEN "
            f"{literal(f'Could not convert key {k} to {types[k]}')}"
            for k in keys
        )
        quarantine.take(f"""SELECT {literal(table_name)} AS "table", {uris}[file + 1] AS uri, tidemill_line AS line,
            CASE {reason} END AS reason, tidemill_text AS text FROM ({values}) WHERE NOT ({good})""")
    connection.execute("DROP TABLE tidemill.lines")


def _values(keys: list[str]) -> str:
    """A query for the lines with a text column for each key; each line is parsed once."""
    pointers = literal(["/" + key.replace("~", "~0").replace("/", "~1") for key in keys])
    columns = "".join(f", found[{i + 1}] AS {name(key)}" for i, key in enumerate(keys))
    found = f"json_extract_string(text, {pointers})" if keys else "NULL"
    return f"""SELECT file, line AS tidemill_line, text AS tidemill_text{columns}
        FROM (SELECT file, line, text, {found} AS found FROM tidemill.lines)"""


def _inferred(connection: duckdb.DuckDBPyConnection, keys: list[str], values: str) -> dict[str, str]:
    if not keys:
        return {}
    pointers = literal(["/" + key.replace("~", "~0").replace("/", "~1") for key in keys])
    is_text = ", ".join(f"bool_or(kinds[{i + 1}] IN ('VARCHAR', 'OBJECT', 'ARRAY'))" for i in range(len(keys)))
    query = f"SELECT {is_text} FROM (SELECT json_type(text, {pointers}) AS kinds FROM tidemill.lines)"
    texts = connection.execute(query).fetchone()
    kinds: dict[str, Counter] = inference.count_kinds(connection, values, keys)
    types = {key: inference.type_of(kinds[key]) for key in keys}
    for key, text in zip(keys, texts, strict=True):
        if text and types[key] in ("BIGINT", "DOUBLE", "BOOLEAN"):
            types[key] = "VARCHAR"
    return types


def _lines(path: Path, index: int) -> Iterator[pa.Table]:
    """The file's lines with their numbers; blank lines are left out, bytes that are not UTF-8 become `\\ufffd`."""
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
        text = pa.array(lines, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        text = pa.array([line.decode("utf-8", "replace") for line in lines], pa.string())
    numbers = pa.array(range(number, number + len(lines)), pa.int64())
    table = pa.table({"file": pa.array([index] * len(lines), pa.int32()), "line": numbers, "text": text})
    return table.filter(pc.not_equal(pc.utf8_trim_whitespace(text), ""))
