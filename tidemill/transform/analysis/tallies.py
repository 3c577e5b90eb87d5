"""Tallies of a vocabulary's tokens: counts, weights and co-occurrences with labels, from batches of tensors."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.transform.analysis.partial_counts import PartialCounts, sums
from tidemill.transform.analysis.vocabulary_table import VocabularyTable, are_kept

_MAX_ROWS = 1 << 20
_MAX_BYTES = 1 << 28
COUNT_LABEL = -1
WEIGHT_LABEL = -2
"""In the label column of co-occurrences, these mark a token's count and its weight."""


class Tally:
    """A reduction to one value per token, kept as partial counts.

    Args:
        partials: The partial counts.
    """

    tensors: Sequence[Any] = ()
    scans = False

    def __init__(self, partials: PartialCounts):
        self._partials, self._store, self._is_integer = partials, partials.store, partials.is_integer

    def close(self, file: int) -> None:
        """See `Reduction`. The partial counts know their file."""

    def dump(self, file: int, folder: Path) -> None:
        """See `Reduction`."""
        self._partials.dump(self._file(file), folder)

    def load(self, file: int, folder: Path) -> None:
        """See `Reduction`."""
        self._partials.load(file, folder)

    def result(self) -> Any:
        """See `Reduction`. Returns the `VocabularyTable`."""
        table = self._store.create(self._counts("true", "metric"))
        self._partials.discard()
        return VocabularyTable(self._store, table, is_integer=self._is_integer)

    def _file(self, file: int) -> Iterable[pa.Table]:
        for batch in self._store.stream(self._counts(f"file = {file}", "value")):
            yield pa.Table.from_batches([batch])

    def _counts(self, where: str, name: str) -> str:
        self._partials.flush()
        total = f"CAST(sum(value) AS BIGINT) AS {name}"
        return f"SELECT token, {total} FROM {self._partials.table} WHERE {where} GROUP BY token"


class BatchTally(Tally, abc.ABC):
    """A tally that adds up the tokens of batches, first within a unit.

    Args:
        partials: The units' sums.
        tensors: The tensors of a batch.
    """

    @property
    def _keys(self) -> Sequence[str]:
        return ("token",)

    def __init__(self, partials: PartialCounts, tensors: Sequence[Any]):
        super().__init__(partials)
        self.tensors = tuple(tensors)

    @abc.abstractmethod
    def table(self, values: tuple[np.ndarray, ...]) -> pa.Table:
        """Returns a batch's tokens with their values."""

    def start(self) -> list[pa.Table]:
        """See `FedReduction`."""
        return []

    def add(self, partial: list[pa.Table], values: tuple[np.ndarray, ...]) -> list[pa.Table]:
        """See `FedReduction`."""
        partial.append(self.table(values))
        if sum(t.num_rows for t in partial[1:]) > _MAX_ROWS or sum(t.nbytes for t in partial[1:]) > _MAX_BYTES:
            partial = [self._merged(partial)]
        return partial

    def finish(self, partial: list[pa.Table]) -> pa.Table | None:
        """See `FedReduction`."""
        return self._merged(partial) if partial else None

    def collect(self, file: int, partial: pa.Table | None) -> None:
        """See `FedReduction`."""
        if partial is not None:
            self._partials.append(file, {name: partial[name] for name in partial.column_names})

    def _merged(self, tables: list[pa.Table]) -> pa.Table:
        # With threads the order of the additions would be undefined.
        groups = pa.concat_tables(tables).group_by(list(self._keys), use_threads=False)
        return groups.aggregate([("value", "sum")]).rename_columns([*self._keys, "value"])

    def _tokens(self, values: np.ndarray) -> pa.Array | pa.ChunkedArray:
        return pa.array(np.ravel(values), pa.int64() if self._is_integer else pa.binary())


class CountTally(BatchTally):
    """A tally that counts tokens. A batch holds the tokens, `[tokens]`.

    Args:
        partials: See `BatchTally`.
        tensors: See `BatchTally`.
        is_filtered: Whether TFT's filter for text files applies to the tokens.
    """

    def __init__(self, partials: PartialCounts, tensors: Sequence[Any], is_filtered: bool):
        super().__init__(partials, tensors)
        self._is_filtered = is_filtered and not self._is_integer

    def table(self, values: tuple[np.ndarray, ...]) -> pa.Table:
        """See `BatchTally`. The table has no values yet."""
        return pa.table({"token": self._tokens(values[0])})

    def _merged(self, tables: list[pa.Table]) -> pa.Table:
        counted = [table for table in tables if "value" in table.column_names]
        if plain := [table["token"] for table in tables if "value" not in table.column_names]:
            pairs = pc.value_counts(pa.chunked_array([chunk for column in plain for chunk in column.chunks]))
            distinct = pa.table({"token": pairs.field("values"), "value": pairs.field("counts")})
            counted.append(distinct.filter(are_kept(distinct["token"])) if self._is_filtered else distinct)
        return counted[0] if len(counted) == 1 else super()._merged(counted)


class WeightTally(BatchTally):
    """A tally that sums the weights of tokens.

    A batch holds distinct tokens `[tokens]` and their weights, of any numeric dtype.
    """

    def table(self, values: tuple[np.ndarray, ...]) -> pa.Table:
        """See `BatchTally`."""
        tokens, weights = values
        columns = {"token": self._tokens(tokens)}
        if self._partials.ordered:
            return pa.table(columns | {"label": _repeated(0, len(tokens)), "value": weights.astype(np.float64)})
        return pa.table(columns | {"value": weights.astype(np.int64)})

    @property
    def _keys(self) -> Sequence[str]:
        return ("token", "label") if self._partials.ordered else ("token",)

    def result(self) -> VocabularyTable:
        """See `Reduction`."""
        if not self._partials.ordered:
            return super().result()
        table = self._store.create("SELECT NULL::BLOB AS token, 0.0::DOUBLE AS metric WHERE false")
        if self._is_integer:
            self._store.execute(f"ALTER TABLE {table} ALTER token TYPE BIGINT USING 0")
        for part in sums(self._partials):
            # Python's sum starts with 0, so that it never returns the negative zero.
            self._store.insert(table, pa.table({"token": part["token"], "metric": pc.add(part["value"], 0.0)}))
        self._partials.discard()
        return VocabularyTable(self._store, table, is_integer=self._is_integer, is_float=True)

    def _file(self, file: int) -> Iterable[pa.Table]:
        return sums(self._partials, f"file = {file}") if self._partials.ordered else super()._file(file)


class CooccurrenceTally(BatchTally):
    """A tally that counts how often tokens occur with each label.

    A batch holds distinct tokens `[tokens]`, the sums of their weights `[tokens]` if there are weights, the sums with
    each label `[tokens, labels]`, and the counts `[tokens]`.
    """

    @property
    def _keys(self) -> Sequence[str]:
        return ("token", "label")

    def table(self, values: tuple[np.ndarray, ...]) -> pa.Table:
        """See `BatchTally`."""
        tokens, *weights, positives, counts = values
        if not len(tokens):
            none = pa.array([], pa.float64())
            return pa.table({"token": self._tokens(tokens), "label": _repeated(0, 0), "value": none})
        present = positives != 0
        # The number of labels of a batch counts too, see `mutual_information`.
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

    def result(self) -> PartialCounts:
        """See `Reduction`. Returns the partial counts, for `vocabulary_by_information`."""
        return self._partials

    def _file(self, file: int) -> Iterable[pa.Table]:
        return sums(self._partials, f"file = {file}")


def _repeated(label: int, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(label, pa.int32()), rows)
