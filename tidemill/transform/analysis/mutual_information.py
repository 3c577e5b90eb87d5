"""The mutual information of tokens and labels.

The formulas, and the dtypes in which they are computed, are those of `_calculate_mutual_information_for_feature_value`
in `tensorflow_transform/beam/analyzer_impls.py`, which cannot be imported without Beam. A token's information is that
of its presence in a record, in bits, times the number of records; it is adjusted for chance after Vinh, Epps and Bailey
(2009), "MutualInformation theoretic measures for clusterings comparison".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from tensorflow_transform import analyzers, info_theory, tf_utils

from tidemill.transform.analysis.partial_counts import PartialCounts, changes, sums
from tidemill.transform.analysis.tallies import COUNT_LABEL, WEIGHT_LABEL
from tidemill.transform.analysis.vocabulary_table import VocabularyTable, blob

_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Occurrences:
    """How often a token occurs.

    Attributes:
        count: The number of records.
        weight: The records' mean weight; 1 where they have none.
        means: Of each label the share of the token's weight, `[labels]`.
    """

    count: np.int64
    weight: np.float32
    means: np.ndarray

    @property
    def total(self) -> np.float64:
        """The token's weight."""
        return self.count * self.weight

    @property
    def key(self) -> tuple:
        """What the token's information depends on."""
        return int(self.count), float(self.weight), self.means.tobytes()


class MutualInformation:
    """Computes tokens' mutual information with the label.

    Args:
        every: The occurrences of all records.
        adjusted: Whether to subtract what chance would give.
        min_diff_from_avg: How far a count has to be from what is expected, or it gives no information. Defaults to
            TFT's choice by the number of records.
    """

    def __init__(self, every: Occurrences, adjusted: bool, min_diff_from_avg: float | None):
        self._every, self._adjusted = every, adjusted
        if min_diff_from_avg is None:
            min_diff_from_avg = analyzers.calculate_recommended_min_diff_from_avg(every.total)
        self._least = min_diff_from_avg
        self._label_counts = every.means * every.weight * every.count
        self._known: dict[tuple, tuple[float, float]] = {}
        self._expected: dict[tuple[float, float], float] = {}

    def of(self, token: bytes | int, occurrences: Occurrences) -> tuple[float, float]:
        """A token's information in bits, and its weight.

        Raises:
            ValueError: The token is in more records than there are: it occurs more than once in one.
        """
        key = occurrences.key
        if key not in self._known:
            self._known[key] = self._compute(token, occurrences)
        return self._known[key]

    def _compute(self, token: bytes | int, occurrences: Occurrences) -> tuple[float, float]:
        n, x = self._every.total, occurrences.total
        if n == 0:
            return float("nan"), 0
        if round(x) == round(n):
            return 0, x
        if round(x) > round(n):
            raise ValueError(
                f"Frequency of token {token!r} higher than number of records {x} > {n}. This likely means you have"
                " provided tft.vocabulary with input that has repeated tokens per row, rather than a set"
                " representation."
            )
        information, by_chance = 0, 0
        for label, y in enumerate(self._label_counts):
            if y == 0:
                continue
            mean = occurrences.means[label] if label < len(occurrences.means) else 0
            both = np.clip(mean, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY) * occurrences.weight * occurrences.count
            if abs((x * y / n) - both) < self._least:
                continue
            information += info_theory.calculate_partial_mutual_information(both, x, y, n)
            if self._adjusted:
                by_chance += self._expect(n, x, y)
        return (information - by_chance if self._adjusted else information), x

    def _expect(self, n: float, x: float, y: float) -> float:
        if (x, y) not in self._expected:
            self._expected[x, y] = info_theory.calculate_partial_expected_mutual_information(n, x, y)
        return self._expected[x, y]


def vocabulary_by_information(
    pieces: PartialCounts, adjusted: bool, min_diff_from_avg: float | None
) -> VocabularyTable:
    """A vocabulary by mutual information.

    Args:
        pieces: Co-occurrences of tokens and labels, see `CooccurrenceTally`.
        adjusted: See `MutualInformation`.
        min_diff_from_avg: See `MutualInformation`.
    """
    store, is_integer = pieces.store, pieces.is_integer
    token = "BIGINT" if is_integer else "BLOB"
    table = store.new_table()
    store.execute(f"CREATE TABLE {table} (token {token}, metric DOUBLE, frequency DOUBLE, text VARCHAR)")
    sentinel = tf_utils.GLOBAL_Y_COUNT_SENTINEL_INT if is_integer else tf_utils.GLOBAL_Y_COUNT_SENTINEL_STRING
    of_all = str(sentinel) if is_integer else blob(sentinel)
    every = [found for _, found in _occurrences(pieces, f"token = {of_all}")]
    if every:
        information = MutualInformation(every[0], adjusted, min_diff_from_avg)
        rows: list[tuple] = []
        for value, found in _occurrences(pieces, f"token <> {of_all}"):
            metric, frequency = information.of(value, found)
            rows.append((value, float(metric), float(frequency), format(metric)))
            if len(rows) == 1 << 16:
                store.insert(table, _table(rows, is_integer))
                rows = []
        store.insert(table, _table(rows, is_integer))
    pieces.discard()
    return VocabularyTable(store, table, is_integer=is_integer, is_float=True, more=("frequency", "text"))


def _occurrences(pieces: PartialCounts, where: str) -> Iterator[tuple[bytes | int, Occurrences]]:
    for table in sums(pieces, where):
        starts = np.flatnonzero(changes(table["token"]))
        tokens = table["token"].take(pa.array(starts)).to_pylist()
        labels, values = table["label"].to_numpy(), table["value"].to_numpy()
        for token, start, end in zip(tokens, starts, [*starts[1:], len(labels)], strict=True):
            yield token, _occurrence(labels[start:end], values[start:end])


def _occurrence(labels: np.ndarray, values: np.ndarray) -> Occurrences:
    """A token's sums by label, in the order of the labels, as TFT's combiner gives them."""
    first = int(np.searchsorted(labels, 0))
    by_label = dict(zip(labels[:first].tolist(), values[:first].tolist(), strict=True))
    count = by_label[COUNT_LABEL]
    total = by_label.get(WEIGHT_LABEL, count)
    positives = np.zeros(labels[-1] + 1 if len(labels) > first else 0)
    positives[labels[first:]] = values[first:]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (positives / total).astype(np.float32)
    return Occurrences(np.int64(count), np.float32(total / count if count else 0.0), means)


def _table(rows: list[tuple], is_integer: bool) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [[]] * 4
    types = [pa.int64() if is_integer else pa.binary(), pa.float64(), pa.float64(), pa.string()]
    names = ["token", "metric", "frequency", "text"]
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names)
