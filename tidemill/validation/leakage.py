"""The leakage gate: finds features that are known only after the label, by their implausible strength.

A feature's strength is the area under the ROC curve that it reaches on rows which it was not fitted on: alone, and
together with one other feature. Alone finds what restates the label (the delay on arrival). With another finds what
gives the label by comparison with a plan (the time of arrival, beside the scheduled one), which may be modest alone.

Strength alone is that of mean label by value, or by 256 quantile bins of a number; with another it is that of the mean
label on a grid of 256 by 256 such bins. Means of few rows are drawn towards those of the coarser grid, down from the
mean of all rows (a multi-resolution form of the m-estimate; Cestnik, 1990). Train rows are halved by hash for this;
rows of the same value of the split's column stay together, so that a hash split by user or session is judged as it is.
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
from tidemill.validation.columns import Column
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
    """How well a feature predicts the label.

    Attributes:
        feature: Its name.
        auc: Area under the ROC curve on held-out rows, 0 to 1.
        error: Its standard error (Hanley and McNeil, 1982).
        partner: The other feature that it was taken with; None: it was taken alone.
    """

    feature: str
    auc: float
    error: float
    partner: str | None = None

    def __str__(self) -> str:
        company = "" if self.partner is None else f"with {self.partner}, "
        return f"{self.feature} ({company}AUC {self.auc:.3f})"


@dataclass(frozen=True)
class LeakageReport:
    """What the gate measured.

    Attributes:
        alone: Strength of every feature alone, the strongest first.
        pairs: The strongest pairs that were measured on the fine grid, the strongest first.
        leaks: The features beyond the limit, the strongest first; those of `allow` are not among them.
        rows: Held-out rows that the strengths were measured on.
        untested: Why nothing was measured; empty if something was.
    """

    alone: list[Strength] = field(default_factory=list)
    pairs: list[Strength] = field(default_factory=list)
    leaks: list[Strength] = field(default_factory=list)
    rows: int = 0
    untested: str = ""


def measure(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    label: Column,
    columns: Sequence[Column],
    split_column: str | None,
    settings: Leakage,
    progress: Progress,
) -> LeakageReport:
    """Measures the features' strength on at most about 200,000 rows of train.

    A feature leaks when its strength, less two standard errors, exceeds `settings.max_strength`: alone, or with
    another feature if the two together rank at most half as many pairs of rows wrongly as the better one alone. Of
    two such features the one that is stronger in other company is named.

    Args:
        connection: From `scan.connect`.
        dataset: The examples.
        label: A column of them that is binary.
        columns: From `columns.resolve`.
        split_column: The column that rows were divided by, if any.
        settings: The limit and the features that may exceed it.
        progress: Told about the phase.
    """
    features = [c for c in columns if c.role == "feature"]
    table = _sample(connection, dataset, label, features, split_column)
    target = table.column("label").to_numpy().astype(np.float64)
    held = _held_out(table)
    classes = [np.count_nonzero((target == y) & (held == h)) for y in (0, 1) for h in (False, True)]
    if min(classes) < MIN_CLASS_ROWS:
        few = f"each half of train needs {MIN_CLASS_ROWS} rows of either label, and one has {min(classes)}"
        return LeakageReport(untested=few)
    rows = _Rows(target[~held], target[held])
    coded, alone = {}, {}
    for index, column in enumerate(features):
        progress.rows(index, len(features), "leakage")
        values = table.column(f"f{index}")
        code = _category_codes if _is_category(column) else _number_codes
        coded[column.name], auc = code(values, held, rows)
        alone[column.name] = rows.strength(column.name, auc)
    progress.phase("leakage of pairs")
    judged = [c.name for c in features if c.name not in settings.allow]
    leaks = [alone[name] for name in judged if _beyond(alone[name], settings)]
    rest = [name for name in judged if not _beyond(alone[name], settings)]
    pair_leaks, pairs = _pairs(rows, {name: coded[name] for name in rest}, alone, settings)
    ranked = sorted([*leaks, *pair_leaks], key=lambda s: (-s.auc, s.feature))
    return LeakageReport(
        sorted(alone.values(), key=lambda s: (-s.auc, s.feature)), pairs, ranked, len(rows.held_target)
    )


def _is_category(column: Column) -> bool:
    """Whether its values have no order of their own; integers have one even where they are categories."""
    return column.type not in (statistics_pb2.FeatureNameStatistics.INT, statistics_pb2.FeatureNameStatistics.FLOAT)


def _sample(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    label: Column,
    features: Sequence[Column],
    split_column: str | None,
) -> pa.Table:
    """Rows of train by a hash of their number: `label`, `row` and `part` (hashes), and `f0`, `f1` … (text or
    numbers)."""
    share = min(1.0, SAMPLE_ROWS / max(dataset.rows("train"), 1))
    parts = [f"CAST({label.sql} AS DOUBLE) AS label", "hash(file_row_number) AS row"]
    parts.append(f"hash({quote(split_column)}) AS part" if split_column else "hash(file_row_number, 1) AS part")
    for index, column in enumerate(features):
        if not _is_category(column):
            parts.append(f"CAST({column.sql} AS DOUBLE) AS f{index}")
        elif column.view == "category":
            parts.append(f"{column.sql} AS f{index}")
        else:
            parts.append(f"CASE WHEN {column.sql} IS NOT NULL THEN CAST(hash({column.sql}) AS VARCHAR) END AS f{index}")
    return connection.sql(
        f"SELECT {', '.join(parts)} FROM {table_of(dataset, 'train', row_number=True)} "
        f"WHERE {label.sql} IN (0, 1) AND hash(file_row_number) % {_HASH_RANGE} < {int(share * _HASH_RANGE)}"
    ).to_arrow_table()


def _held_out(table: pa.Table) -> np.ndarray:
    """Which half a row is in, bool [rows]: by the split's column, or by row where that has few values."""
    part = table.column("part").to_numpy()
    if len(np.unique(part)) < _GROUPS:
        part = table.column("row").to_numpy() // np.uint64(_HASH_RANGE)
    return (part >> np.uint64(20)) % np.uint64(2) == 1


class _Rows:
    """Labels of the two halves, and strengths on them."""

    def __init__(self, fit_target: np.ndarray, held_target: np.ndarray):
        self.fit_target, self.held_target = fit_target, held_target
        self.prior = float(fit_target.mean())
        self._positive = float(held_target.sum())
        self._negative = float(len(held_target) - self._positive)

    def rates(self, fit: np.ndarray, cells: int, prior: np.ndarray | float) -> np.ndarray:
        """Mean label of the fitted rows by cell, drawn towards `prior`: float64 [cells]."""
        counts = np.bincount(fit, minlength=cells)
        positive = np.bincount(fit, self.fit_target, minlength=cells)
        return (positive + _PRIOR_ROWS * prior) / (counts + _PRIOR_ROWS)

    def auc(self, rates: np.ndarray, held: np.ndarray) -> float:
        """Area under the ROC curve of the cells' rates as scores of the held-out rows; ties count half."""
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
        """The strength with its standard error."""
        first, second = auc / (2 - auc), 2 * auc * auc / (1 + auc)
        variance = auc * (1 - auc)
        variance += (self._positive - 1) * (first - auc * auc) + (self._negative - 1) * (second - auc * auc)
        return Strength(feature, auc, math.sqrt(max(variance, 0.0) / (self._positive * self._negative)), partner)

    def pair_auc(self, one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray], bits: int) -> float:
        """Strength of two features on grids of 4 by 4 cells up to 2^bits by 2^bits."""
        prior: np.ndarray | float = self.prior
        for level in range(_STEP_BITS, bits + 1, _STEP_BITS):
            fit, held = (_cells(a, b, level) for a, b in zip(one, two, strict=True))
            rates = self.rates(fit, 1 << 2 * level, prior)
            square = rates.reshape(1 << level, 1 << level)
            prior = square.repeat(1 << _STEP_BITS, axis=0).repeat(1 << _STEP_BITS, axis=1).ravel()
        return self.auc(rates, held)


def _cells(one: np.ndarray, two: np.ndarray, bits: int) -> np.ndarray:
    return (one.astype(np.int64) >> (_BITS - bits) << bits) | (two >> (_BITS - bits))


Codes = tuple[np.ndarray, np.ndarray]


def _category_codes(values: pa.ChunkedArray, held: np.ndarray, rows: _Rows) -> tuple[Codes, float]:
    """Codes of a category, uint8 [rows] of each half, in the order of the values' mean label; and its strength
    alone."""
    encoded = values.combine_chunks().dictionary_encode(null_encoding="encode")
    index = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    rates = rows.rates(index[~held], len(encoded.dictionary), rows.prior)
    auc = rows.auc(rates, index[held])
    return _quantile_codes(rates[index], held), auc


def _number_codes(values: pa.ChunkedArray, held: np.ndarray, rows: _Rows) -> tuple[Codes, float]:
    """Codes of a number by quantiles, missing values last; and its strength alone, by code or by value."""
    numbers = values.to_numpy(zero_copy_only=False)
    codes = _quantile_codes(numbers, held)
    distinct, index = np.unique(numbers, return_inverse=True)
    by_code = rows.auc(rows.rates(codes[0], 1 << _BITS, rows.prior), codes[1])
    by_value = rows.auc(rows.rates(index[~held], len(distinct), rows.prior), index[held])
    return codes, max(by_code, by_value)


def _quantile_codes(numbers: np.ndarray, held: np.ndarray) -> Codes:
    """Up to 255 bins of equally many fitted rows, and the last code for NaN: uint8 [rows] of each half."""
    fit = np.sort(numbers[~held & ~np.isnan(numbers)])
    last = (1 << _BITS) - 1
    distinct = np.unique(fit)
    edges = distinct[1:] if len(distinct) <= last else np.unique(fit[np.arange(1, last) * len(fit) // last])
    codes = np.searchsorted(edges, numbers, side="right")
    codes[np.isnan(numbers)] = last
    codes = codes.astype(np.uint8)
    return codes[~held], codes[held]


def _beyond(strength: Strength, settings: Leakage) -> bool:
    return strength.auc - ERRORS * strength.error > settings.max_strength


def _pairs(
    rows: _Rows, coded: dict[str, Codes], alone: dict[str, Strength], settings: Leakage
) -> tuple[list[Strength], list[Strength]]:
    """Screens all pairs on a coarse grid, measures the strongest on the fine one, and names a feature of each leaking
    pair; pairs with a feature that is named already are left out from then on.

    Returns:
        The leaks, and all pairs that were measured on the fine grid.
    """
    names = list(coded)
    company = np.full((len(names), len(names)), np.nan)
    for i, j in itertools.combinations(range(len(names)), 2):
        company[i, j] = company[j, i] = rows.pair_auc(coded[names[i]], coded[names[j]], _SCREEN_BITS)
    order = sorted(itertools.combinations(range(len(names)), 2), key=lambda ij: (-company[ij], ij))
    measured: dict[tuple[int, int], Strength] = {}
    leaks: list[Strength] = []
    named: set[int] = set()
    while True:
        open_pairs = [ij for ij in order if not named & set(ij)][:_REFINED]
        for i, j in open_pairs:
            if (i, j) not in measured:
                auc = rows.pair_auc(coded[names[i]], coded[names[j]], _BITS)
                measured[i, j] = rows.strength(names[i], auc, names[j])
        leaking = [ij for ij in open_pairs if _pair_leaks(measured[ij], alone, settings)]
        if not leaking:
            return leaks, sorted(measured.values(), key=lambda s: (-s.auc, s.feature, s.partner))
        i, j = max(leaking, key=lambda ij: measured[ij].auc)
        culprit, partner = (i, j) if _mean_without(company, i, j) >= _mean_without(company, j, i) else (j, i)
        found = measured[i, j]
        leaks.append(Strength(names[culprit], found.auc, found.error, names[partner]))
        named.add(culprit)


def _pair_leaks(pair: Strength, alone: dict[str, Strength], settings: Leakage) -> bool:
    better = max(alone[pair.feature].auc, alone[pair.partner].auc)
    return _beyond(pair, settings) and 1 - pair.auc <= GAIN * (1 - better)


def _mean_without(company: np.ndarray, feature: int, partner: int) -> float:
    """Mean strength of a feature with all others than the partner; 0 where there is no other."""
    others = np.delete(company[feature], [feature, partner])
    return float(others.mean()) if len(others) else 0.0
