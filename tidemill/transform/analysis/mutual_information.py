"""The mutual information of tokens and labels.

The formulas and their dtypes are those of `_calculate_mutual_information_for_feature_value` in
`tensorflow_transform/beam/analyzer_impls.py`, which cannot be imported without Beam. A token's information is the
mutual information of its presence in a record with the label, in bits, times the number of records. It is adjusted for
chance after Vinh, Epps and Bailey (2009), "Information theoretic measures for clusterings comparison".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from tensorflow_transform import analyzers, info_theory, tf_utils

from tidemill.transform.analysis.partial_counts import PartialCounts, changes, sums
from tidemill.transform.analysis.tallies import COUNT_LABEL, WEIGHT_LABEL
from tidemill.transform.analysis.vocabulary_table import VocabularyTable, blob

_MIN_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Occurrences:
    """The occurrences of a token.

    Attributes:
        count: Number of records.
        weight: Mean weight of the records; 1 if they have none.
        means: Share of each label in the token's weight, `[labels]`.
    """

    count: np.int64
    weight: np.float32
    means: np.ndarray

    @property
    def total(self) -> Any:
        """The token's total weight."""
        return self.count * self.weight

    @property
    def key(self) -> tuple:
        """The values that determine the token's information."""
        return int(self.count), float(self.weight), self.means.tobytes()


class MutualInformation:
    """A calculator of the mutual information of tokens with the label.

    Args:
        every: The occurrences of all records.
        adjusted: Whether to subtract the information expected by chance.
        min_diff_from_avg: A count closer than this to its expected value adds no information. Defaults to TFT's choice
            by the number of records.
    """

    def __init__(self, every: Occurrences, adjusted: bool, min_diff_from_avg: float | None):
        self._every, self._adjusted = every, adjusted
        if min_diff_from_avg is None:
            min_diff_from_avg = analyzers.calculate_recommended_min_diff_from_avg(every.total)
        self._min_diff = min_diff_from_avg
        self._label_counts = every.means * every.weight * every.count
        self._by_key: dict[tuple, tuple[float, float]] = {}
        self._expected: dict[tuple[float, float], float] = {}

    def of(self, token: bytes | int, occurrences: Occurrences) -> tuple[float, float]:
        """Returns a token's information in bits, and its weight.

        Raises:
            ValueError: The token is in more records than exist: it occurs more than once in a record.
        """
        key = occurrences.key
        if key not in self._by_key:
            self._by_key[key] = self._compute(token, occurrences)
        return self._by_key[key]

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
            both = np.clip(mean, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY) * occurrences.weight * occurrences.count
            if abs((x * y / n) - both) < self._min_diff:
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
    partials: PartialCounts, adjusted: bool, min_diff_from_avg: float | None
) -> VocabularyTable:
    """Returns a vocabulary ordered by mutual information.

    Args:
        partials: Co-occurrences of tokens and labels, see `CooccurrenceTally`.
        adjusted: See `MutualInformation`.
        min_diff_from_avg: See `MutualInformation`.
    """
    store, is_integer = partials.store, partials.is_integer
    token = "BIGINT" if is_integer else "BLOB"
    table = store.new_table()
    store.execute(f"CREATE TABLE {table} (token {token}, metric DOUBLE, frequency DOUBLE, text VARCHAR)")
    sentinel = tf_utils.GLOBAL_Y_COUNT_SENTINEL_INT if is_integer else tf_utils.GLOBAL_Y_COUNT_SENTINEL_STRING
    of_all = str(sentinel) if is_integer else blob(sentinel)
    every = [occurrences for _, occurrences in _occurrences(partials, f"token = {of_all}")]
    if every:
        information = MutualInformation(every[0], adjusted, min_diff_from_avg)
        rows: list[tuple] = []
        for value, occurrences in _occurrences(partials, f"token <> {of_all}"):
            metric, frequency = information.of(value, occurrences)
            rows.append((value, float(metric), float(frequency), format(metric)))
            if len(rows) == 1 << 16:
                store.insert(table, _table(rows, is_integer))
                rows = []
        store.insert(table, _table(rows, is_integer))
    partials.discard()
    return VocabularyTable(store, table, is_integer=is_integer, is_float=True, extra_columns=("frequency", "text"))


def _occurrences(partials: PartialCounts, where: str) -> Iterator[tuple[bytes | int, Occurrences]]:
    for table in sums(partials, where):
        starts = np.flatnonzero(changes(table["token"]))
        tokens = table["token"].take(pa.array(starts)).to_pylist()
        labels, values = table["label"].to_numpy(), table["value"].to_numpy()
        for token, start, end in zip(tokens, starts, [*starts[1:], len(labels)], strict=True):
            yield token, _occurrence(labels[start:end], values[start:end])


def _occurrence(labels: np.ndarray, values: np.ndarray) -> Occurrences:
    """Returns a token's occurrences from its sums by label, sorted by label, as in TFT's combiner."""
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
