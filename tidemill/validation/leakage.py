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
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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

SAMPLE_ROWS = 200_000
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
        untested: Why nothing was measured. Empty if the gate was measured.
    """

    alone: list[Strength] = field(default_factory=list)
    pairs: list[Strength] = field(default_factory=list)
    leaks: list[Strength] = field(default_factory=list)
    rows: int = 0
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
    """Measures the strength of the features on about 200,000 rows of train at most.

    A feature leaks if its strength minus two standard errors exceeds `settings.max_strength`. A pair leaks if its
    strength does so and it ranks at most half as many pairs of rows wrongly as the better of the two features by
    itself. Of a leaking pair, the feature that is stronger in its pairs with all other features is reported.

    Args:
        connection: From `scan.connect`.
        dataset: The examples.
        label: A binary column of the examples.
        columns: From `columns.resolve`.
        split_column: The column that the split reads, if any.
        settings: The limit, and the features that may exceed it.
        progress: Reports the progress.
    """
    features = [c for c in columns if c.role == "feature"]
    table = _sample(connection, dataset, label, features, split_column)
    target = table.column("label").to_numpy().astype(np.float64)
    held = _held_out(table)
    classes = [np.count_nonzero((target == y) & (held == h)) for y in (0, 1) for h in (False, True)]
    if min(classes) < MIN_CLASS_ROWS:
        reason = f"each half of train needs {MIN_CLASS_ROWS} rows of each class, and one has {min(classes)}"
        return LeakageReport(untested=reason)
    halves = _LabelHalves(target[~held], target[held])
    codes: dict[str, Codes] = {}
    alone: dict[str, Strength] = {}
    for index, column in enumerate(features):
        progress.rows(index, len(features), "leakage")
        values = table.column(f"f{index}")
        encode = _category_codes if _is_category(column) else _number_codes
        codes[column.name], auc = encode(values, held, halves)
        alone[column.name] = halves.strength(column.name, auc)
    progress.phase("leakage of pairs")
    judged = [c.name for c in features if c.name not in settings.allow]
    leaks = [alone[name] for name in judged if _exceeds_limit(alone[name], settings)]
    rest = [name for name in judged if not _exceeds_limit(alone[name], settings)]
    pair_leaks, pairs = _measure_pairs(halves, {name: codes[name] for name in rest}, alone, settings)
    ranked = sorted([*leaks, *pair_leaks], key=lambda s: (-s.auc, s.feature))
    return LeakageReport(
        sorted(alone.values(), key=lambda s: (-s.auc, s.feature)), pairs, ranked, len(halves.held_target)
    )


def _is_category(column: ExampleColumn) -> bool:
    """Returns whether the values have no order. Integers have an order, also those that are categories; lists have
    none."""
    return column.levels > 0 or column.type not in (
        statistics_pb2.FeatureNameStatistics.INT,
        statistics_pb2.FeatureNameStatistics.FLOAT,
    )


def _sample(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    label: ExampleColumn,
    features: Sequence[ExampleColumn],
    split_column: str | None,
) -> pa.Table:
    """Draws rows of train by a hash of their row number.

    Returns:
        The columns `label`, `row` and `part` (hashes of the row number and of the split's column), and the features
        `f0`, `f1` … (text or numbers).
    """
    share = min(1.0, SAMPLE_ROWS / max(dataset.rows("train"), 1))
    selected = [f"CAST({label.sql} AS DOUBLE) AS label", "hash(file_row_number) AS row"]
    selected.append(f"hash({quote(split_column)}) AS part" if split_column else "hash(file_row_number, 1) AS part")
    for index, column in enumerate(features):
        sql = quote(column.name) if column.levels else column.sql
        if not _is_category(column):
            selected.append(f"CAST({sql} AS DOUBLE) AS f{index}")
        elif column.view == "category" and not column.levels:
            selected.append(f"{sql} AS f{index}")
        else:
            selected.append(f"CASE WHEN {sql} IS NOT NULL THEN CAST(hash({sql}) AS VARCHAR) END AS f{index}")
    return connection.sql(
        f"SELECT {', '.join(selected)} FROM {table_of(dataset, 'train', row_number=True)} "
        f"WHERE {label.sql} IN (0, 1) AND hash(file_row_number) % {_HASH_RANGE} < {int(share * _HASH_RANGE)}"
    ).to_arrow_table()


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


Codes = tuple[np.ndarray, np.ndarray]
"""A feature's bin in each row of the fitted and of the held-out half, uint8 [rows]."""


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
