"""Leakage gate: finds features that are known only after the label, because they predict it implausibly well.

The strength of a feature is the area under the ROC curve on held-out rows. It is measured for each single feature and
for pairs of features. A single feature leaks if it restates the label, such as the arrival delay. A pair leaks if a
comparison reveals the label, such as the arrival time and the scheduled arrival time; by itself, each of them may be
weak.

The score of a row is the mean label of its cell, fitted on the other rows. The cells of a single feature are its
values, or 256 quantile bins of a number. The cells of a pair are a grid of 256 by 256 bins. The mean of a cell with few
rows is shrunk towards the mean of the surrounding cell of a coarser grid, and that towards the mean of all rows (a
multi-resolution form of the m-estimate; Cestnik, 1990).

A hash divides the rows of train into a fitted and a held-out half. Rows with the same value of the split's column stay
in one half, so that a hash split by user or session is judged fairly.

The work is bounded: the rows are a sample, each feature is measured once, and pairs are measured of the features that
are the strongest by themselves. Columns are read in groups, so that memory does not grow with the number of columns.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
from tensorflow_metadata.proto.v0 import statistics_pb2

from tidemill.artifacts.examples import Dataset
from tidemill.duckdb_session import quote
from tidemill.experiment.source import Leakage
from tidemill.runtime import Progress
from tidemill.validation.columns import ExampleColumn
from tidemill.validation.scan import table_of

PAIRED_FEATURES = 100
"""Number of features whose pairs are measured. Of more features, those that are the strongest by themselves."""
MIN_CLASS_ROWS = 30
ERRORS = 2.0
GAIN = 0.5
_BITS = 8
_SCREEN_BITS = 6
_STEP_BITS = 2
_PRIOR_ROWS = 10.0
_REFINED = 50
_GROUPS = 200
_HASH_RANGE = 1 << 30
_COLUMNS_AT_ONCE = 50

Codes = tuple[np.ndarray, np.ndarray]
"""A feature's bin in each row of the fitted and of the held-out half, uint8 [rows]."""


@dataclass(frozen=True)
class Strength:
    """Strength of a feature: how well it predicts the label.

    Attributes:
        feature: The feature's name.
        auc: Area under the ROC curve on held-out rows, 0 to 1.
        error: Standard error of the area (Hanley and McNeil, 1982).
        partner: The other feature of the pair. None: the feature was measured by itself.
    """

    feature: str
    auc: float
    error: float
    partner: str | None = None

    def __str__(self) -> str:
        pair = "" if self.partner is None else f"with {self.partner}, "
        return f"{self.feature} ({pair}AUC {self.auc:.3f})"


@dataclass(frozen=True)
class LeakageReport:
    """Result of the leakage gate for one label.

    Attributes:
        alone: Strength of each feature by itself, the strongest first.
        pairs: The pairs that were measured on the fine grid, the strongest first.
        leaks: The features that exceed the limit, the strongest first, without those in `allow`.
        rows: Number of held-out rows.
        paired: Number of features whose pairs were measured.
        untested: Why nothing was measured. Empty if the gate was measured.
    """

    alone: list[Strength] = field(default_factory=list)
    pairs: list[Strength] = field(default_factory=list)
    leaks: list[Strength] = field(default_factory=list)
    rows: int = 0
    paired: int = 0
    untested: str = ""


def measure(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    label: ExampleColumn,
    columns: Sequence[ExampleColumn],
    split_column: str | None,
    settings: Leakage,
    progress: Progress,
) -> LeakageReport:
    """Measures the strength of the features on a sample of the rows of train, `settings.sample_rows` at most.

    A feature leaks if its strength minus two standard errors exceeds `settings.max_strength`. A pair leaks if its
    strength does so and it ranks at most half as many pairs of rows wrongly as the better of the two features by
    itself. Of a leaking pair, the feature that is stronger in its pairs with all other features is reported. If
    `settings.max_strength` is 1, nothing is measured.

    Args:
        connection: From `scan.connect`.
        dataset: The examples.
        label: A binary column of the examples.
        columns: From `columns.resolve`.
        split_column: The column that the split reads, if any.
        settings: The limit, the size of the sample, and the features that may exceed the limit.
        progress: Reports the progress.
    """
    if settings.max_strength >= 1:
        return LeakageReport(untested="validation.leakage.max_strength is 1, which turns the gate off")
    features = [c for c in columns if c.role == "feature"]
    sample = _Sample(connection, dataset, label, split_column, settings.sample_rows)
    rows = sample.rows()
    target = rows.column("label").to_numpy().astype(np.float64)
    held = _held_out(rows)
    classes = [np.count_nonzero((target == y) & (held == h)) for y in (0, 1) for h in (False, True)]
    if min(classes) < MIN_CLASS_ROWS:
        reason = f"each half of train needs {MIN_CLASS_ROWS} rows of each class, and one has {min(classes)}"
        return LeakageReport(untested=reason)
    halves = _LabelHalves(target[~held], target[held])
    alone: dict[str, Strength] = {}
    leaks: list[Strength] = []
    strongest = _Strongest()
    for index, (column, values) in enumerate(sample.values(features)):
        progress.rows(index, len(features), "leakage", unit="features")
        encode = _category_codes if _is_category(column) else _number_codes
        encoded, auc = encode(values, held, halves)
        strength = alone[column.name] = halves.strength(column.name, auc)
        if column.name in settings.allow:
            continue
        if _exceeds_limit(strength, settings):
            leaks.append(strength)
        else:
            strongest.add(auc, index, column.name, encoded)
    progress.phase("leakage of pairs")
    codes = strongest.codes()
    pair_leaks, pairs = _measure_pairs(halves, codes, alone, settings)
    ranked = sorted([*leaks, *pair_leaks], key=lambda s: (-s.auc, s.feature))
    return LeakageReport(
        sorted(alone.values(), key=lambda s: (-s.auc, s.feature)), pairs, ranked, len(halves.held_target), len(codes)
    )


class _Strongest:
    """The codes of the `PAIRED_FEATURES` features that are the strongest by themselves."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, Codes]] = []

    def add(self, auc: float, index: int, name: str, codes: Codes) -> None:
        """Adds a feature, and drops the weakest one if there are too many. Of equal ones the earliest stays."""
        heapq.heappush(self._heap, (auc, -index, name, codes))
        if len(self._heap) > PAIRED_FEATURES:
            heapq.heappop(self._heap)

    def codes(self) -> dict[str, Codes]:
        """Returns the codes by feature, in the order of the columns."""
        return {name: codes for _, _, name, codes in sorted(self._heap, key=lambda item: -item[1])}


def _is_category(column: ExampleColumn) -> bool:
    """Returns whether the values have no order. Integers have an order, also those that are categories; lists have
    none."""
    return column.levels > 0 or column.type not in (
        statistics_pb2.FeatureNameStatistics.INT,
        statistics_pb2.FeatureNameStatistics.FLOAT,
    )


class _Sample:
    """Rows of train, drawn by a hash of their row number. All reads return them in the same order.

    Args:
        connection: From `scan.connect`.
        dataset: The examples.
        label: The label's column.
        split_column: The column that the split reads, if any.
        size: Number of rows to draw, about.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        dataset: Dataset,
        label: ExampleColumn,
        split_column: str | None,
        size: int,
    ) -> None:
        self._connection = connection
        self._dataset = dataset
        self._label = label.sql
        self._part = f"hash({quote(split_column)})" if split_column else "hash(file_row_number, 1)"
        share = min(1.0, size / max(dataset.rows("train"), 1))
        self._condition = (
            f"{label.sql} IN (0, 1) AND hash(file_row_number) % {_HASH_RANGE} < {int(share * _HASH_RANGE)}"
        )

    def rows(self) -> pa.Table:
        """Returns the columns `label`, `row` and `part` (hashes of the row number and of the split's column)."""
        selected = [f"CAST({self._label} AS DOUBLE) AS label", "hash(file_row_number) AS row", f"{self._part} AS part"]
        return self._read(selected)

    def values(self, features: Sequence[ExampleColumn]) -> Iterator[tuple[ExampleColumn, pa.ChunkedArray]]:
        """Yields each feature with its values, text or numbers."""
        for start in range(0, len(features), _COLUMNS_AT_ONCE):
            some = features[start : start + _COLUMNS_AT_ONCE]
            table = self._read([f"{_value_sql(column)} AS f{index}" for index, column in enumerate(some)])
            for index, column in enumerate(some):
                yield column, table.column(index)

    def _read(self, selected: list[str]) -> pa.Table:
        table = table_of(self._dataset, "train", row_number=True)
        self._connection.execute("SET preserve_insertion_order = true")
        try:
            query = f"SELECT {', '.join(selected)} FROM {table} WHERE {self._condition}"
            return self._connection.sql(query).to_arrow_table()
        finally:
            self._connection.execute("SET preserve_insertion_order = false")


def _value_sql(column: ExampleColumn) -> str:
    sql = quote(column.name) if column.levels else column.sql
    if not _is_category(column):
        return f"CAST({sql} AS DOUBLE)"
    if column.view == "category" and not column.levels:
        return sql
    return f"CASE WHEN {sql} IS NOT NULL THEN CAST(hash({sql}) AS VARCHAR) END"


def _held_out(table: pa.Table) -> np.ndarray:
    """Returns whether each row is held out, bool [rows]: by the split's column, or by row if that has few values."""
    part = table.column("part").to_numpy()
    if len(np.unique(part)) < _GROUPS:
        part = table.column("row").to_numpy() // np.uint64(_HASH_RANGE)
    return (part >> np.uint64(20)) % np.uint64(2) == 1


class _LabelHalves:
    """Labels of the fitted and the held-out half of the rows."""

    def __init__(self, fit_target: np.ndarray, held_target: np.ndarray) -> None:
        self.fit_target, self.held_target = fit_target, held_target
        self.prior = float(fit_target.mean())
        self._positive = float(held_target.sum())
        self._negative = float(len(held_target) - self._positive)

    def rates(self, fit: np.ndarray, cells: int, prior: np.ndarray | float) -> np.ndarray:
        """Returns the mean label of the fitted rows in each cell, shrunk towards `prior`: float64 [cells]."""
        counts = np.bincount(fit, minlength=cells)
        positive = np.bincount(fit, self.fit_target, minlength=cells)
        return (positive + _PRIOR_ROWS * prior) / (counts + _PRIOR_ROWS)

    def auc(self, rates: np.ndarray, held: np.ndarray) -> float:
        """Returns the area under the ROC curve of the held-out rows, whose scores are their cells' rates. Ties count
        half."""
        counts = np.bincount(held, minlength=len(rates)).astype(np.float64)
        used = np.flatnonzero(counts)
        positive = np.bincount(held, self.held_target, minlength=len(rates))[used]
        order = np.argsort(rates[used], kind="stable")
        scores, positive, counts = rates[used][order], positive[order], counts[used][order]
        starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
        positive = np.add.reduceat(positive, starts)
        negative = np.add.reduceat(counts, starts) - positive
        before = np.cumsum(negative) - negative / 2
        return float((positive * before).sum() / (self._positive * self._negative))

    def strength(self, feature: str, auc: float, partner: str | None = None) -> Strength:
        """Returns the strength with its standard error."""
        first, second = auc / (2 - auc), 2 * auc * auc / (1 + auc)
        variance = auc * (1 - auc)
        variance += (self._positive - 1) * (first - auc * auc) + (self._negative - 1) * (second - auc * auc)
        return Strength(feature, auc, math.sqrt(max(variance, 0.0) / (self._positive * self._negative)), partner)

    def pair_auc(self, one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray], bits: int) -> float:
        """Returns the area under the ROC curve of a pair of features on a grid of 2^bits by 2^bits cells.

        Coarser grids, from 4 by 4 cells on, are the priors of the finer ones.
        """
        rates = np.array([self.prior])
        for level in range(_STEP_BITS, bits + 1, _STEP_BITS):
            coarse = rates.reshape(1 << level - _STEP_BITS, -1)
            prior = coarse.repeat(1 << _STEP_BITS, axis=0).repeat(1 << _STEP_BITS, axis=1).ravel()
            rates = self.rates(_cells(one[0], two[0], level), 1 << 2 * level, prior)
        return self.auc(rates, _cells(one[1], two[1], bits))


def _cells(one: np.ndarray, two: np.ndarray, bits: int) -> np.ndarray:
    return (one.astype(np.int64) >> (_BITS - bits) << bits) | (two >> (_BITS - bits))


def _category_codes(values: pa.ChunkedArray, held: np.ndarray, halves: _LabelHalves) -> tuple[Codes, float]:
    """Returns the codes of a category, ordered by the values' mean label, and its own area under the ROC curve."""
    encoded = values.combine_chunks().dictionary_encode(null_encoding="encode")
    index = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    rates = halves.rates(index[~held], len(encoded.dictionary), halves.prior)
    auc = halves.auc(rates, index[held])
    return _quantile_codes(rates[index], held), auc


def _number_codes(values: pa.ChunkedArray, held: np.ndarray, halves: _LabelHalves) -> tuple[Codes, float]:
    """Returns the codes of a number and the area under the ROC curve of its codes or its values, whichever is
    larger."""
    numbers = values.to_numpy(zero_copy_only=False)
    codes = _quantile_codes(numbers, held)
    distinct, index = np.unique(numbers, return_inverse=True)
    by_code = halves.auc(halves.rates(codes[0], 1 << _BITS, halves.prior), codes[1])
    by_value = halves.auc(halves.rates(index[~held], len(distinct), halves.prior), index[held])
    return codes, max(by_code, by_value)


def _quantile_codes(numbers: np.ndarray, held: np.ndarray) -> Codes:
    """Returns the quantile bin of each number: up to 255 bins with equally many fitted rows. NaN has the last code."""
    fit = np.sort(numbers[~held & ~np.isnan(numbers)])
    last = (1 << _BITS) - 1
    distinct = np.unique(fit)
    edges = distinct[1:] if len(distinct) <= last else np.unique(fit[np.arange(1, last) * len(fit) // last])
    codes = np.searchsorted(edges, numbers, side="right")
    codes[np.isnan(numbers)] = last
    codes = codes.astype(np.uint8)
    return codes[~held], codes[held]


def _exceeds_limit(strength: Strength, settings: Leakage) -> bool:
    return strength.auc - ERRORS * strength.error > settings.max_strength


def _measure_pairs(
    halves: _LabelHalves, codes: dict[str, Codes], alone: dict[str, Strength], settings: Leakage
) -> tuple[list[Strength], list[Strength]]:
    """Screens all pairs on a coarse grid, measures the strongest on the fine grid, and finds the leaks.

    Of the strongest leaking pair one feature is a leak. Its pairs are then excluded, and the search is repeated until
    no pair leaks.

    Returns:
        The leaks, and all pairs that were measured on the fine grid, the strongest first.
    """
    names = list(codes)
    screened = np.full((len(names), len(names)), np.nan)
    for i, j in itertools.combinations(range(len(names)), 2):
        screened[i, j] = screened[j, i] = halves.pair_auc(codes[names[i]], codes[names[j]], _SCREEN_BITS)
    order = sorted(itertools.combinations(range(len(names)), 2), key=lambda ij: (-screened[ij], ij))
    measured: dict[tuple[int, int], Strength] = {}
    leaks: list[Strength] = []
    excluded: set[int] = set()
    while True:
        strongest = [ij for ij in order if not excluded & set(ij)][:_REFINED]
        for i, j in strongest:
            if (i, j) not in measured:
                auc = halves.pair_auc(codes[names[i]], codes[names[j]], _BITS)
                measured[i, j] = halves.strength(names[i], auc, names[j])
        leaking = [ij for ij in strongest if _pair_leaks(*ij, names, measured[ij], alone, settings)]
        if not leaking:
            return leaks, sorted(measured.values(), key=lambda s: (-s.auc, s.feature, s.partner))
        i, j = max(leaking, key=lambda ij: measured[ij].auc)
        leak, partner = (i, j) if _mean_without(screened, i, j) >= _mean_without(screened, j, i) else (j, i)
        pair = measured[i, j]
        leaks.append(Strength(names[leak], pair.auc, pair.error, names[partner]))
        excluded.add(leak)


def _pair_leaks(
    i: int, j: int, names: Sequence[str], pair: Strength, alone: dict[str, Strength], settings: Leakage
) -> bool:
    better = max(alone[names[i]].auc, alone[names[j]].auc)
    return _exceeds_limit(pair, settings) and 1 - pair.auc <= GAIN * (1 - better)


def _mean_without(screened: np.ndarray, feature: int, partner: int) -> float:
    """Returns the mean strength of a feature's pairs, except the pair with `partner`. 0 if there is no other pair."""
    others = np.delete(screened[feature], [feature, partner])
    return float(others.mean()) if len(others) else 0.0
