"""Vocabularies as TFT's nodes pass them on: tokens with the metric that orders them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.transform.analysis.count_store import CountStore

_DUMMIES = {"string": b"49d0cd50-04bb-48c0-bc6f-5b575dce351a"}
_INTEGER_DUMMY = b"-1"
_NEWLINES = (b"\n", b"\r")


@dataclass(frozen=True)
class VocabularyPairs:
    """A vocabulary in memory, already in its final order if TFT's node says so.

    Attributes:
        items: Pairs of a metric, of any type that can be ordered and formatted, and a token.
    """

    items: list[tuple[Any, bytes]]

    @classmethod
    def of(cls, pairs: Iterable[Sequence[Any]]) -> VocabularyPairs:
        """Returns a vocabulary of given metrics and tokens, such as keys with their outputs.

        Args:
            pairs: Pairs of a metric and a token. A token that is not bytes is written as text.
        """
        return cls([(_plain(metric), as_bytes(token)) for metric, token in pairs])

    def __len__(self) -> int:
        return len(self.items)


class VocabularyTable:
    """A vocabulary in DuckDB: a table with the columns `token` (BLOB or BIGINT) and `metric` (BIGINT or DOUBLE).

    Args:
        store: The store of the table. The table is dropped with the last reference to this object.
        table: Its name.
        is_integer: Whether tokens are BIGINT.
        is_float: Whether metrics are DOUBLE.
        extra_columns: Further columns: `frequency` (DOUBLE) if the metric is mutual information; `text` (VARCHAR), the
            metric as it is written. Defaults to none.
        rows: Number of rows. Defaults to counting them when needed.
    """

    def __init__(
        self,
        store: CountStore,
        table: str,
        *,
        is_integer: bool,
        is_float: bool = False,
        extra_columns: Sequence[str] = (),
        rows: int | None = None,
    ):
        self.store, self.table = store, table
        self.is_integer, self.is_float, self.extra_columns = is_integer, is_float, tuple(extra_columns)
        self._rows = rows
        weakref.finalize(self, store.drop_later, table).atexit = False

    def derived(self, query: str) -> VocabularyTable:
        """Returns a vocabulary of the same kind, selected from this one's table by a query."""
        table, rows = self.store.create_counted(query)
        return VocabularyTable(
            self.store,
            table,
            is_integer=self.is_integer,
            is_float=self.is_float,
            extra_columns=self.extra_columns,
            rows=rows,
        )

    def with_text(self) -> VocabularyTable:
        """Returns the same vocabulary with the column `text`."""
        if "text" in self.extra_columns:
            return self
        table = self.store.create(f"SELECT {self.columns}, {self.metric_text} AS text FROM {self.table}")
        return VocabularyTable(
            self.store,
            table,
            is_integer=self.is_integer,
            is_float=self.is_float,
            extra_columns=(*self.extra_columns, "text"),
        )

    def __len__(self) -> int:
        if self._rows is None:
            ((self._rows,),) = self.store.rows(f"SELECT count(*) FROM {self.table}")
        return self._rows

    @property
    def columns(self) -> str:
        """The columns' names, for SQL."""
        return ", ".join(("token", "metric", *self.extra_columns))

    @property
    def written(self) -> str:
        """SQL of a token as it is written to a vocabulary file, of type BLOB."""
        return "encode(CAST(token AS VARCHAR))" if self.is_integer else "token"

    @property
    def metric_text(self) -> str:
        """SQL of the metric as Python formats it, of type VARCHAR."""
        if "text" in self.extra_columns:
            return "text"
        # DuckDB prints the sign of NaN.
        text = "CAST(metric AS VARCHAR)"
        return f"CASE WHEN isnan(metric) THEN 'nan' ELSE {text} END" if self.is_float else text

    @property
    def largest_first(self) -> str:
        """SQL of TFT's order: by metric, then by the bytes that are written, both descending."""
        return f"metric DESC, {self.written} DESC"


def dummy(input_dtype: str) -> tuple[int, bytes]:
    """Returns the count and the token of an empty vocabulary, like `analyzers.get_empy_vocabulary_dummy_value`.

    Args:
        input_dtype: The name of the tokens' dtype, `string` or that of an integer.
    """
    return 1, _DUMMIES.get(input_dtype, _INTEGER_DUMMY)


def as_bytes(token: Any) -> bytes:
    """Returns a token as it is written to a vocabulary file."""
    if isinstance(token, bytes):
        return token
    return (token if isinstance(token, str) else str(token)).encode()


def blob(value: bytes) -> str:
    """Returns bytes as an SQL literal."""
    return "'" + "".join(f"\\x{byte:02X}" for byte in value) + "'::BLOB"


def is_dropped(token: bytes) -> bool:
    """Returns whether TFT's filter for text files drops a token: an empty one, or one with a line break."""
    return not token or any(newline in token for newline in _NEWLINES)


def are_kept(tokens: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns which of some tokens TFT's filter for text files keeps.

    Args:
        tokens: Binary.
    """
    breaks = [pc.match_substring(tokens, newline) for newline in _NEWLINES]
    return pc.and_not(pc.greater(pc.binary_length(tokens), 0), pc.or_(*breaks))


def _plain(metric: Any) -> Any:
    return metric.item() if isinstance(metric, np.generic) else metric
