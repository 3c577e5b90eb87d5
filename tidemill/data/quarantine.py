"""Quarantine for malformed rows: stores them with position and reason, counts them, and limits their share.

The quarantine file has one JSON object per line, sorted by table, URI and line:

    {"table": "t", "uri": "a.csv", "line": 9, "reason": "Expected Number of Columns: 9 Found: 8", "text": "…"}

`line` counts the file's lines from 1, including the header; in Parquet files it counts rows. Rows of the query's
result that contradict the given schema have the table `(query)` and neither URI nor line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from tidemill.data.malformed_advice import advice
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Table

MAX_TEXT_CHARS = 1000
"""Largest length of the text that is kept of a row, in characters."""

REJECT_CHARS = 10_000
"""Largest length of a rejected row in DuckDB's rejects table (`rejects_line_size_limit`), in characters."""

QUERY = "(query)"
"""Table name of rows that come from the query's result."""
_CHUNK = 8 << 20
_BATCH_ROWS = 50_000


class Quarantine:
    """The quarantine of one ingest: malformed rows in a table of its database, so that memory does not limit their
    number."""

    def __init__(self, connection: duckdb.DuckDBPyConnection):
        self._connection = connection
        connection.execute(
            'CREATE TABLE tidemill.quarantine ("table" VARCHAR, uri VARCHAR, line BIGINT, reason VARCHAR, '
            "text VARCHAR, lost BIGINT)"
        )

    def take_csv_rejects(self, table: str, uris: Mapping[str, str]) -> None:
        """Takes the rows that DuckDB's CSV reader rejected in the last scan.

        A row with several mistakes counts once, with its first mistake. An unclosed quote makes one field of all lines
        up to the next quote. Such a row counts as all of these lines, or as the rest of the file if DuckDB cuts its
        text off.

        Args:
            table: The table's name.
            uris: The source URI of each path in the scan.
        """
        self._connection.execute("""CREATE OR REPLACE TABLE tidemill.rejects AS
            SELECT file_path, line_byte_position - 1 AS position, arg_min(csv_line, byte_position) AS text,
                arg_min(error_message, byte_position) AS reason
            FROM reject_errors JOIN reject_scans USING (scan_id, file_id) GROUP BY ALL""")
        self.discard_csv_rejects()
        cursor = self._connection.cursor()
        rejects = cursor.execute("FROM tidemill.rejects ORDER BY file_path, position")
        counter: _LineCounter | None = None
        while rows := rejects.fetchmany(_BATCH_ROWS):
            line_numbers, lost = [], []
            for path, position, text, _ in rows:
                if counter is None or counter.path != path:
                    counter = _LineCounter(path)
                text = text or ""
                line_numbers.append(counter.line_at(position + len(text) - len(text.lstrip("\r\n"))))
                swallowed = text.strip("\r\n").count("\n")
                if swallowed and len(text) >= REJECT_CHARS:
                    swallowed = max(swallowed, counter.last_line() - line_numbers[-1])
                lost.append(1 + swallowed)
            batch = pa.table(
                {
                    "table": [table] * len(rows),
                    "uri": [uris[path] for path, _, _, _ in rows],
                    "line": pa.array(line_numbers, pa.int64()),
                    "reason": [reason for _, _, _, reason in rows],
                    "text": [(text or "").strip("\r\n")[:MAX_TEXT_CHARS] for _, _, text, _ in rows],
                    "lost": pa.array(lost, pa.int64()),
                }
            )
            self.insert(batch)
        cursor.close()
        self._connection.execute("DROP TABLE tidemill.rejects")

    def discard_csv_rejects(self) -> None:
        """Forgets the rows that DuckDB's CSV reader rejected in the last scan."""
        self._connection.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")

    def forget(self, table: str) -> None:
        """Forgets all malformed rows of a table, which is going to be read again."""
        self.discard_csv_rejects()
        self._connection.execute('DELETE FROM tidemill.quarantine WHERE "table" = ?', [table])

    def has_open_quotes(self, table: str) -> bool:
        """Returns whether a row of a table was rejected because of its quotes."""
        query = """SELECT count(*) FROM tidemill.quarantine WHERE "table" = ? AND contains(reason, 'quote')"""
        return self._connection.execute(query, [table]).fetchall()[0][0] > 0

    def insert(self, batch: pa.Table) -> None:
        """Takes rows with the columns table, uri, line, reason, text, lost."""
        self._connection.register("quarantine_batch", batch)
        self._connection.execute("INSERT INTO tidemill.quarantine BY NAME FROM quarantine_batch")
        self._connection.unregister("quarantine_batch")

    def take(self, query: str) -> None:
        """Takes the rows of a query with the columns table, uri, line, reason, text."""
        self._connection.execute(f"""INSERT INTO tidemill.quarantine
            SELECT "table", uri, line, reason, text[1:{MAX_TEXT_CHARS}], 1 FROM ({query})""")

    def count(self, table: str | None = None) -> int:
        """Returns the number of malformed rows of a table, or of all tables. Lines in an unclosed quote count."""
        query = "SELECT coalesce(sum(lost), 0)::BIGINT FROM tidemill.quarantine"
        if table is None:
            return self._connection.execute(query).fetchall()[0][0]
        return self._connection.execute(f'{query} WHERE "table" = ?', [table]).fetchall()[0][0]

    def check(self, table: str, rows: int, max_share: float, options: Table | None = None) -> None:
        """Checks the share of malformed rows of a table.

        Args:
            table: The table's name.
            rows: Number of all rows of the table, malformed or not.
            max_share: Largest share, 0 to 1.
            options: The table's section, for advice. Defaults to none, for rows of the query's result.

        Raises:
            TidemillError: `malformed-rows` with the first malformed row.
        """
        malformed = self.count(table)
        if malformed <= max_share * rows:
            return
        uri, line, reason, text = self._connection.execute(
            'SELECT uri, line, reason, text FROM tidemill.quarantine WHERE "table" = ? ORDER BY ALL LIMIT 1', [table]
        ).fetchall()[0]
        where = f"{table}: {uri}, line {line}" if uri else table
        share = malformed / rows
        got = f"{malformed:,} of {rows:,} rows ({share:.3%}) malformed; the first: {reason} in {text[:80]!r}"
        want = advice(reason, share, max_share, options)
        details = {"table": table, "uri": uri, "line": line, "rows": rows, "bad_rows": malformed, "share": share}
        raise TidemillError(Code.MALFORMED_ROWS, where, got, want, details)

    def write(self, path: str | os.PathLike) -> int:
        """Writes the quarantine file under a temporary name and renames it. Returns its number of rows."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = self._connection.execute(
            'SELECT "table", uri, line, reason, text FROM tidemill.quarantine ORDER BY ALL NULLS LAST'
        )
        count = 0
        with partial.open("w", encoding="utf-8") as file:
            while batch := rows.fetchmany(_BATCH_ROWS):
                count += len(batch)
                for row in batch:
                    entry = dict(zip(("table", "uri", "line", "reason", "text"), row, strict=True))
                    file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        os.replace(partial, path)
        return count


class _LineCounter:
    """A counter of lines: returns line numbers of ascending byte positions in one file, which it reads once, in
    chunks."""

    def __init__(self, path: str):
        self.path = path
        self._lines_before = 0
        self._breaks = np.empty(0, np.int64)
        self._end = 0
        self._last: int | None = None

    def line_at(self, position: int) -> int:
        if position > self._end:
            self._read_to(position)
        return 1 + self._lines_before + int(np.searchsorted(self._breaks, position))

    def last_line(self) -> int:
        if self._last is None:
            self._last = _LineCounter(self.path).line_at(os.path.getsize(self.path))
        return self._last

    def _read_to(self, position: int) -> None:
        with open(self.path, "rb") as file:
            file.seek(self._end)
            while position > self._end and (chunk := file.read(_CHUNK)):
                self._lines_before += len(self._breaks)
                self._breaks = self._end + np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n"))
                self._end += len(chunk)
