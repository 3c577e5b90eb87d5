"""How often each token of a vocabulary occurs: from SQL over Parquet columns, or from batches of tensors."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.duckdb_session import literal, quote
from tidemill.transform.analysis.counts import STATE_FILE, Counts, Pieces
from tidemill.transform.analysis.sums import sums
from tidemill.transform.analysis.tokens import Tokens, as_bytes, blob, is_left_out, stays
from tidemill.transform.apply.rowwise import Substitution
from tidemill.transform.raw import SENTINELS
from tidemill.transform.rows.rows import Scan

_MOST_ROWS = 1 << 20
_MOST_BYTES = 1 << 28
COUNT_LABEL = -1
WEIGHT_LABEL = -2
"""Where the labels of a co-occurrence stand, the token's count and its weight stand under these."""


class Tally:
    """A reduction to a value per token, kept as pieces.

    Args:
        pieces: Where to keep them.
    """

    tensors: Sequence[Any] = ()
    scans = False

    def __init__(self, pieces: Pieces):
        self._pieces, self._store, self._is_integer = pieces, pieces.store, pieces.is_integer

    def close(self, file: int) -> None:
        """See `Reduction`. The pieces know their file."""

    def dump(self, file: int, folder: Path) -> None:
        """See `Reduction`."""
        self._pieces.dump(self._file(file), folder)

    def load(self, file: int, folder: Path) -> None:
        """See `Reduction`."""
        self._pieces.load(file, folder)

    def result(self) -> Any:
        """See `Reduction`: the `Tokens`."""
        table = self._store.create(self._counts("true", "metric"))
        self._pieces.forget()
        return Tokens(self._store, table, is_integer=self._is_integer)

    def _file(self, file: int) -> Iterable[pa.Table]:
        for batch in self._store.stream(self._counts(f"file = {file}", "value")):
            yield pa.Table.from_batches([batch])

    def _counts(self, where: str, name: str) -> str:
        self._pieces.flush()
        total = f"CAST(sum(value) AS BIGINT) AS {name}"
        return f"SELECT token, {total} FROM {self._pieces.table} WHERE {where} GROUP BY token"


class ScanTally(Tally):
    """Counts the tokens of a substitution in SQL, without feeding the rows through the graph.

    Args:
        store: Where to count.
        scan: The column.
        substitution: How its values become tokens.
        is_filtered: Whether TFT's filter for text files applies to the tokens.
    """

    scans = True

    def __init__(self, store: Counts, scan: Scan, substitution: Substitution, is_filtered: bool):
        is_integer = substitution.dtype == "int64" and not substitution.as_string
        super().__init__(store.pieces("BIGINT" if is_integer else "BLOB", "BIGINT", ordered=False))
        self._scan, self._is_filtered = scan, is_filtered and not is_integer
        self._missing = self._token(substitution.missing)
        self._replaced = {self._token(k): self._token(v) for k, v in substitution.replaced.items()}
        self._tables: dict[int, str] = {}
        """Of a file's tokens and counts; of all files together under the first one's number, if none is kept apart."""
        self._known: dict[int, str] = {}
        """The same of files that were counted before, which are read when all are added up."""
        self._sum: str | None = None
        """The same of many such files together."""
        self._whole: str | None = None
        """The same of all files."""

    def run(self, files: Sequence[int], threads: int, progress: Callable[[int], None]) -> None:
        """See `Scanning`. DuckDB's threads were chosen when it was opened."""
        del threads, progress
        for together in [[file] for file in files] if self._store.per_file else [files]:
            self._tables[together[0]] = self._count(together)

    def dump(self, file: int, folder: Path) -> None:
        """See `Reduction`. Nothing comes through Python."""
        self._copy(self._tables[file], folder)

    def load(self, file: int, folder: Path) -> None:
        """See `Reduction`."""
        self._known[file] = self._store.hold_file(folder / STATE_FILE)

    def dump_sum(self, folder: Path) -> None:
        """See `Scanning`."""
        self._copy(self._whole, folder)

    def load_sum(self, folder: Path) -> None:
        """See `Scanning`."""
        self._sum = f"(SELECT token, value AS metric FROM {self._store.hold_file(folder / STATE_FILE)})"

    def result(self) -> Tokens:
        """See `Reduction`."""
        known = [f"(SELECT token, value AS metric FROM {source})" for source in self._known.values()]
        sources = [*self._tables.values(), *known]
        if not sources and self._sum is None:
            return super().result()
        self._pieces.forget()
        if self._sum is None and sources == list(self._tables.values())[:1]:
            self._whole = sources[0]
        else:
            self._whole = self._store.create(self._added(sources))
            for table in self._tables.values():
                self._store.drop(table)
        return Tokens(self._store, self._whole, is_integer=self._is_integer)

    def _added(self, sources: Sequence[str]) -> str:
        """SQL of the tokens and counts of all sources and the sum together."""
        parts = " UNION ALL ".join(f"FROM {source}" for source in sources)
        added = f"SELECT token, CAST(sum(metric) AS BIGINT) AS metric FROM ({parts}) GROUP BY token"
        if self._sum is None:
            return added
        if not sources:
            return f"FROM {self._sum}"
        # A sum of many files has each token once: it is joined with what is new, which costs a third of a grouping.
        both = f"{self._sum} a FULL JOIN ({added if len(sources) > 1 else f'FROM {sources[0]}'}) b ON a.token = b.token"
        total = "coalesce(a.metric, 0) + coalesce(b.metric, 0)"
        return f"SELECT coalesce(a.token, b.token) AS token, {total} AS metric FROM {both}"

    def _copy(self, table: str | None, folder: Path) -> None:
        target = literal(str(folder / STATE_FILE))
        # Named as `Pieces.dump` does: either may load what the other wrote.
        query = f"SELECT token, metric AS value FROM {table}"
        self._store.execute(f"COPY ({query}) TO {target} (FORMAT parquet, COMPRESSION zstd)")

    def _token(self, value: bytes | int | None) -> bytes | int | None:
        return value if value is None or self._is_integer else as_bytes(value)

    def _count(self, files: Sequence[int]) -> str:
        """A table of files' tokens and counts.

        The column is grouped as it stands, and looked at value by value afterwards. Few values are replaced, and those
        are mended in the table, which is cheaper than grouping again.
        """
        count = _count_column(self._scan)
        # A filter would be run below the grouping, row by row.
        token = f"SELECT {self._token_sql()} AS token, {count} AS metric FROM"
        with self._store.source(grouped(self._scan, files)) as source:
            table = self._store.create(f"{token} (SELECT {self._value_sql()} AS v, {count} FROM {source})")
        self._replace(table)
        return table

    def _value_sql(self) -> str:
        """SQL of a value, in which missing ones, where they have a token, are the dtype's sentinel."""
        if self._missing is None:
            return self._scan.sql
        sentinel = SENTINELS[self._scan.dtype]
        literal_sql = f"'{sentinel}'::BIGINT" if isinstance(sentinel, int) else blob(sentinel)
        if self._scan.dtype == "string" and _is_text(self._scan.arrow_type):
            literal_sql = f"decode({literal_sql})"
        return f"coalesce({self._scan.sql}, {literal_sql})"

    def _token_sql(self) -> str:
        """SQL of the token of a value `v`, before it is replaced; NULL where the value gives none."""
        if self._is_integer:
            return "v"
        if self._scan.dtype == "int64":
            return "encode(CAST(v AS VARCHAR))"
        is_text = _is_text(self._scan.arrow_type)
        token = "encode(v)" if is_text else "v"
        if not self._is_filtered:
            return token
        odd = [value for value in self._replaced if is_left_out(value)]
        kept = _is_kept(is_text) + (f" OR {token} IN ({self._literals(odd)})" if odd else "")
        return f"CASE WHEN {kept} THEN {token} END"

    def _replace(self, table: str) -> None:
        missing = self._token(SENTINELS[self._scan.dtype])
        ours = {missing, *self._replaced, *self._replaced.values()}
        ours |= set() if self._missing is None else {self._missing}
        counts: dict[bytes | int, int] = {}
        if self._replaced or self._missing is not None:
            touched = f"token IN ({self._literals(ours)})"
            for value, count in self._store.rows(f"SELECT token, metric FROM {table} WHERE {touched}"):
                token = self._missing if value == missing else self._replaced.get(value, value)
                if not (self._is_filtered and is_left_out(token)):
                    counts[token] = counts.get(token, 0) + count
            self._store.execute(f"DELETE FROM {table} WHERE token IS NULL OR {touched}")
        else:
            self._store.execute(f"DELETE FROM {table} WHERE token IS NULL")
        if counts:
            rows = ", ".join(f"({self._literals([token])}, {count})" for token, count in counts.items())
            self._store.execute(f"INSERT INTO {table} VALUES {rows}")

    def _literals(self, tokens: Iterable[bytes | int]) -> str:
        return ", ".join(str(token) if isinstance(token, int) else blob(token) for token in tokens)


class BatchTally(Tally, abc.ABC):
    """Adds up what batches hold, first of a unit.

    Args:
        pieces: Where to keep the units' sums.
        tensors: What a batch gives.
    """

    _keys: Sequence[str] = ("token",)

    def __init__(self, pieces: Pieces, tensors: Sequence[Any]):
        super().__init__(pieces)
        self.tensors = tuple(tensors)

    @abc.abstractmethod
    def table(self, values: tuple[np.ndarray, ...]) -> pa.Table:
        """A batch's tokens with their values."""

    def start(self) -> list[pa.Table]:
        """See `Reduction`."""
        return []

    def add(self, partial: list[pa.Table], values: tuple[np.ndarray, ...]) -> list[pa.Table]:
        """See `Reduction`."""
        partial.append(self.table(values))
        if sum(t.num_rows for t in partial[1:]) > _MOST_ROWS or sum(t.nbytes for t in partial[1:]) > _MOST_BYTES:
            partial = [self._merged(partial)]
        return partial

    def finish(self, partial: list[pa.Table]) -> pa.Table | None:
        """See `Reduction`."""
        return self._merged(partial) if partial else None

    def collect(self, file: int, partial: pa.Table | None) -> None:
        """See `Reduction`."""
        if partial is not None:
            self._pieces.append(file, {name: partial[name] for name in partial.column_names})

    def _merged(self, tables: list[pa.Table]) -> pa.Table:
        # With threads the order of the additions would be open.
        groups = pa.concat_tables(tables).group_by(list(self._keys), use_threads=False)
        return groups.aggregate([("value", "sum")]).rename_columns([*self._keys, "value"])

    def _tokens(self, values: np.ndarray) -> pa.Array | pa.ChunkedArray:
        return pa.array(np.ravel(values), pa.int64() if self._is_integer else pa.binary())


class CountTally(BatchTally):
    """Occurrences of tokens. A batch gives the tokens, `[tokens]`.

    Args:
        pieces: See `BatchTally`.
        tensors: See `BatchTally`.
        is_filtered: Whether TFT's filter for text files applies to the tokens.
    """

    def __init__(self, pieces: Pieces, tensors: Sequence[Any], is_filtered: bool):
        super().__init__(pieces, tensors)
        self._is_filtered = is_filtered and not self._is_integer

    def table(self, values: tuple[np.ndarray, ...]) -> pa.Table:
        """See `BatchTally`. There are no values yet."""
        return pa.table({"token": self._tokens(values[0])})

    def _merged(self, tables: list[pa.Table]) -> pa.Table:
        counted = [table for table in tables if "value" in table.column_names]
        if plain := [table["token"] for table in tables if "value" not in table.column_names]:
            pairs = pc.value_counts(pa.chunked_array([chunk for column in plain for chunk in column.chunks]))
            distinct = pa.table({"token": pairs.field("values"), "value": pairs.field("counts")})
            counted.append(distinct.filter(stays(distinct["token"])) if self._is_filtered else distinct)
        return counted[0] if len(counted) == 1 else super()._merged(counted)


class WeightTally(BatchTally):
    """Sums of tokens' weights. A batch gives distinct tokens, `[tokens]`, and their weights of any numeric dtype."""

    def table(self, values: tuple[np.ndarray, ...]) -> pa.Table:
        """See `BatchTally`."""
        tokens, weights = values
        columns = {"token": self._tokens(tokens)}
        if self._pieces.ordered:
            return pa.table(columns | {"label": _repeated(0, len(tokens)), "value": weights.astype(np.float64)})
        return pa.table(columns | {"value": weights.astype(np.int64)})

    @property
    def _keys(self) -> Sequence[str]:
        return ("token", "label") if self._pieces.ordered else ("token",)

    def result(self) -> Tokens:
        """See `Reduction`."""
        if not self._pieces.ordered:
            return super().result()
        table = self._store.create("SELECT NULL::BLOB AS token, 0.0::DOUBLE AS metric WHERE false")
        if self._is_integer:
            self._store.execute(f"ALTER TABLE {table} ALTER token TYPE BIGINT USING 0")
        for part in sums(self._pieces):
            # Python's sum begins with 0, so that it never gives the negative zero.
            self._store.insert(table, pa.table({"token": part["token"], "metric": pc.add(part["value"], 0.0)}))
        self._pieces.forget()
        return Tokens(self._store, table, is_integer=self._is_integer, is_float=True)

    def _file(self, file: int) -> Iterable[pa.Table]:
        return sums(self._pieces, f"file = {file}") if self._pieces.ordered else super()._file(file)


class CooccurrenceTally(BatchTally):
    """How often tokens occur with each label.

    A batch gives distinct tokens `[tokens]`, where there are weights their sums `[tokens]`, the sums with each label
    `[tokens, labels]`, and the counts `[tokens]`.
    """

    _keys = ("token", "label")

    def table(self, values: tuple[np.ndarray, ...]) -> pa.Table:
        """See `BatchTally`."""
        tokens, *weights, positives, counts = values
        if not len(tokens):
            none = pa.array([], pa.float64())
            return pa.table({"token": self._tokens(tokens), "label": _repeated(0, 0), "value": none})
        present = positives != 0
        # How many labels a batch knows counts too, see `information`.
        present[:, -1:] = True
        rows, labels = np.nonzero(present)
        every = np.arange(len(tokens))
        special = [(WEIGHT_LABEL, weight) for weight in weights] + [(COUNT_LABEL, counts)]
        indices = np.concatenate([rows, *(every for _ in special)])
        all_labels = np.concatenate([labels, *(np.full(len(tokens), label) for label, _ in special)])
        all_values = [positives[rows, labels], *(numbers for _, numbers in special)]
        return pa.table(
            {
                "token": pc.take(self._tokens(tokens), pa.array(indices)),
                "label": pa.array(all_labels.astype(np.int32)),
                "value": np.concatenate([v.astype(np.float64) for v in all_values]),
            }
        )

    def result(self) -> Pieces:
        """See `Reduction`: the pieces, for `information.informative`."""
        return self._pieces

    def _file(self, file: int) -> Iterable[pa.Table]:
        return sums(self._pieces, f"file = {file}")


def grouped(scan: Scan, files: Sequence[int]) -> str:
    """SQL of a column's distinct values in files, as they stand there, and how often each occurs."""
    column = quote(scan.column)
    source = f"read_parquet({literal([scan.files[file] for file in files])}, hive_partitioning = false)"
    return f"SELECT {column}, count(*) AS {_count_column(scan)} FROM {source} GROUP BY {column}"


def _count_column(scan: Scan) -> str:
    return quote(f"{scan.column} count")


def _is_kept(is_text: bool) -> str:
    """SQL of TFT's filter for text files."""
    if is_text:
        return "v <> '' AND NOT contains(v, chr(10)) AND NOT contains(v, chr(13))"
    # Bytes as text escape what cannot be printed, and the backslash itself.
    text = "CAST(v AS VARCHAR)"
    return f"octet_length(v) > 0 AND NOT contains({text}, '\\x0A') AND NOT contains({text}, '\\x0D')"


def _is_text(type_: pa.DataType) -> bool:
    """Whether DuckDB reads a column of the type as VARCHAR, not as BLOB."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    is_a = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(check(type_) for check in is_a)


def _repeated(label: int, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(label, pa.int32()), rows)
