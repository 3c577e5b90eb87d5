"""Tallies in SQL: vocabularies counted from a Parquet column without running the graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidemill.duckdb_session import literal, parquet_sql, quote
from tidemill.transform.analysis.count_store import STATE_FILE, CountStore
from tidemill.transform.analysis.partial_counts import PartialCounts
from tidemill.transform.analysis.tallies import Tally
from tidemill.transform.analysis.vocabulary_table import VocabularyTable, as_bytes, blob, is_dropped
from tidemill.transform.apply.substitution import Substitution
from tidemill.transform.raw import SENTINELS
from tidemill.transform.rows.row_source import Scan


class ScanTally(Tally):
    """A reduction that counts a vocabulary's tokens in SQL, without feeding the rows through the graph.

    Args:
        store: The store that counts.
        scan: How DuckDB reads the raw column.
        substitution: Which raw values become other tokens.
        is_filtered: Whether TFT's filter for text files applies to the tokens.
    """

    scans = True

    def __init__(self, store: CountStore, scan: Scan, substitution: Substitution, is_filtered: bool):
        is_integer = substitution.dtype == "int64" and not substitution.as_string
        super().__init__(PartialCounts(store, "BIGINT" if is_integer else "BLOB", "BIGINT", ordered=False))
        self._scan, self._is_filtered = scan, is_filtered and not is_integer
        self._missing = None if substitution.missing is None else self._token(substitution.missing)
        self._replaced = {self._token(k): self._token(v) for k, v in substitution.replaced.items()}
        self._tables: dict[int, str] = {}
        """Tables of a file's tokens and counts. If files are not kept apart, one table of all files, by the first
        file's index."""
        self._cached: dict[int, str] = {}
        """Counts of cached files, as SQL that is read when all files are added up; keys as in `_tables`."""
        self._sum: str | None = None
        """Counts of many cached files together, as SQL."""
        self._whole: str | None = None
        """Table of the counts of all files."""

    def run(self, files: Sequence[int]) -> None:
        """See `ScanningReduction`."""
        for together in [[file] for file in files] if self._store.per_file else [files]:
            self._tables[together[0]] = self._count(together)

    def dump(self, file: int, folder: Path) -> None:
        """See `Reduction`. The rows do not pass through Python."""
        self._copy(self._tables[file], folder)

    def load(self, file: int, folder: Path) -> None:
        """See `Reduction`."""
        self._cached[file] = self._store.pin_file(folder / STATE_FILE)

    def dump_sum(self, folder: Path) -> None:
        """See `ScanningReduction`."""
        self._copy(self._whole, folder)

    def load_sum(self, folder: Path) -> None:
        """See `ScanningReduction`."""
        self._sum = f"(SELECT token, value AS metric FROM {self._store.pin_file(folder / STATE_FILE)})"

    def result(self) -> VocabularyTable:
        """See `Reduction`."""
        known = [f"(SELECT token, value AS metric FROM {source})" for source in self._cached.values()]
        sources = [*self._tables.values(), *known]
        if not sources and self._sum is None:
            return super().result()
        self._partials.discard()
        if self._sum is None and sources == list(self._tables.values())[:1]:
            self._whole = sources[0]
        else:
            self._whole = self._store.create(self._added(sources))
            for table in self._tables.values():
                self._store.drop(table)
        return VocabularyTable(self._store, self._whole, is_integer=self._is_integer)

    def _added(self, sources: Sequence[str]) -> str:
        """Returns SQL of the tokens and counts of all sources and the cached sum."""
        parts = " UNION ALL ".join(f"FROM {source}" for source in sources)
        added = f"SELECT token, CAST(sum(metric) AS BIGINT) AS metric FROM ({parts}) GROUP BY token"
        if self._sum is None:
            return added
        if not sources:
            return f"FROM {self._sum}"
        # A sum has each token once, so it is joined with the new counts, which takes a third of the time of grouping.
        both = f"{self._sum} a FULL JOIN ({added if len(sources) > 1 else f'FROM {sources[0]}'}) b ON a.token = b.token"
        total = "coalesce(a.metric, 0) + coalesce(b.metric, 0)"
        return f"SELECT coalesce(a.token, b.token) AS token, {total} AS metric FROM {both}"

    def _copy(self, table: str | None, folder: Path) -> None:
        target = literal(str(folder / STATE_FILE))
        # Columns are named as in `PartialCounts.dump`, so that either can load the other's file.
        query = f"SELECT token, metric AS value FROM {table}"
        self._store.execute(f"COPY ({query}) TO {target} (FORMAT parquet, COMPRESSION zstd)")

    def _token(self, value: Any) -> bytes | int:
        return value if self._is_integer else as_bytes(value)

    def _count(self, files: Sequence[int]) -> str:
        """Creates a table of files' tokens and counts.

        SQL groups the raw column, and then maps each distinct value to its token. Few values are replaced; they are
        corrected in the table, which is cheaper than grouping again.
        """
        count = _count_column(self._scan)
        # DuckDB would push a filter below the grouping and run it row by row.
        token = f"SELECT {self._token_sql()} AS token, {count} AS metric FROM"
        with self._store.source(grouped(self._scan, files)) as source:
            table = self._store.create(f"{token} (SELECT {self._value_sql()} AS v, {count} FROM {source})")
        self._replace(table)
        return table

    def _value_sql(self) -> str:
        """Returns SQL of a value. A missing value that has a token becomes the dtype's sentinel."""
        if self._missing is None:
            return self._scan.sql
        sentinel: Any = SENTINELS[self._scan.dtype]
        literal_sql = f"'{sentinel}'::BIGINT" if isinstance(sentinel, int) else blob(sentinel)
        if self._scan.dtype == "string" and _is_text(self._scan.arrow_type):
            literal_sql = f"decode({literal_sql})"
        return f"coalesce({self._scan.sql}, {literal_sql})"

    def _token_sql(self) -> str:
        """Returns SQL of the token of a value `v`, before replacements; NULL if the value has no token."""
        if self._is_integer:
            return "v"
        if self._scan.dtype == "int64":
            return "encode(CAST(v AS VARCHAR))"
        is_text = _is_text(self._scan.arrow_type)
        token = "encode(v)" if is_text else "v"
        if not self._is_filtered:
            return token
        filtered = [value for value in self._replaced if self._is_dropped(value)]
        kept = _is_kept(is_text) + (f" OR {token} IN ({self._literals(filtered)})" if filtered else "")
        return f"CASE WHEN {kept} THEN {token} END"

    def _replace(self, table: str) -> None:
        missing = self._token(SENTINELS[self._scan.dtype])
        special = {missing, *self._replaced, *self._replaced.values()}
        special |= set() if self._missing is None else {self._missing}
        counts: dict[bytes | int, int] = {}
        if self._replaced or self._missing is not None:
            touched = f"token IN ({self._literals(special)})"
            for value, count in self._store.rows(f"SELECT token, metric FROM {table} WHERE {touched}"):
                token = self._missing if value == missing else self._replaced.get(value, value)
                if token is not None and not self._is_dropped(token):
                    counts[token] = counts.get(token, 0) + count
            self._store.execute(f"DELETE FROM {table} WHERE token IS NULL OR {touched}")
        else:
            self._store.execute(f"DELETE FROM {table} WHERE token IS NULL")
        if counts:
            rows = ", ".join(f"({self._literals([token])}, {count})" for token, count in counts.items())
            self._store.execute(f"INSERT INTO {table} VALUES {rows}")

    def _is_dropped(self, token: bytes | int) -> bool:
        return self._is_filtered and isinstance(token, bytes) and is_dropped(token)

    def _literals(self, tokens: Iterable[bytes | int]) -> str:
        return ", ".join(str(token) if isinstance(token, int) else blob(token) for token in tokens)


def grouped(scan: Scan, files: Sequence[int]) -> str:
    """Returns SQL of a column's distinct values in files, unchanged, and the number of rows of each."""
    column = quote(scan.column)
    source = parquet_sql([scan.files[file] for file in files])
    return f"SELECT {column}, count(*) AS {_count_column(scan)} FROM {source} GROUP BY {column}"


def _count_column(scan: Scan) -> str:
    return quote(f"{scan.column} count")


def _is_kept(is_text: bool) -> str:
    """Returns SQL of TFT's filter for text files."""
    if is_text:
        return "v <> '' AND NOT contains(v, chr(10)) AND NOT contains(v, chr(13))"
    # Casting bytes to text escapes unprintable bytes and the backslash itself.
    text = "CAST(v AS VARCHAR)"
    return f"octet_length(v) > 0 AND NOT contains({text}, '\\x0A') AND NOT contains({text}, '\\x0D')"


def _is_text(type_: pa.DataType) -> bool:
    """Returns whether DuckDB reads a column of the type as VARCHAR, not as BLOB."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    is_a = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(check(type_) for check in is_a)
