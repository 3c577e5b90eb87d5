"""Confidence intervals by the percentile bootstrap (Efron, 1979, Annals of Statistics 7).

A resample gives each row a Poisson(1) weight (Chamandy et al., 2012), so its number of rows is random. Three things
make it fast:

- A resample is a set of counts over at most `MAX_CELLS` cells of equal frequency, not sorted rows (see
  `tidemill.evaluation.metric_values`). These coarser cells change a metric by at most 1e-4; the change is measured on
  the whole sample and subtracted.
- Without a baseline, the weights of all rows of a cell are drawn as one Poisson number, which has the same
  distribution. The time does not depend on the number of rows.
- With a baseline, both models need the same resampled rows, so weights are drawn row by row. Of more than
  `MAX_PAIRED_ROWS` rows, a random subset of that size is resampled, and the distances between the value and the ends of
  the interval are multiplied by sqrt(subset / rows).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from tidemill.evaluation.metric_values import Cells, group, measure
from tidemill.experiment.evaluation import Bootstrap
from tidemill.metric_definitions import METRICS, goodness

MAX_CELLS = 4096
MAX_PAIRED_ROWS = 1 << 17
MIN_DEFINED = 0.9
_CHUNK = 1 << 20
Interval = tuple[float, float]
"""The low and the high end."""
Intervals = dict[str, Interval | None]
"""Intervals by metric."""


def intervals(
    labels: np.ndarray, scores: np.ndarray, threshold: float, settings: Bootstrap, name: str = ""
) -> Intervals:
    """Returns the intervals of all metrics of one model.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], probabilities of class 1.
        threshold: Lowest probability that counts as positive.
        settings: Number of resamples, coverage and seed.
        name: Name of the slice. Slices draw independent numbers. Defaults to the empty name, of all rows.

    Returns:
        Intervals by metric. An interval is None if the metric exists in less than `MIN_DEFINED` of the resamples,
        because resamples of few rows may lack a class, or if `settings.resamples` is 0.
    """
    if not settings.resamples or not len(labels):
        return dict.fromkeys(METRICS)
    cells = group(labels, scores, threshold, MAX_CELLS)
    rng = _rng(settings, name)
    chunk = max(1, _CHUNK // cells.counts.size)
    parts = []
    for start in range(0, settings.resamples, chunk):
        size = min(chunk, settings.resamples - start)
        parts.append(measure(cells, rng.poisson(cells.counts, (size, *cells.counts.shape)).astype(np.float64)))
    samples = _join(parts)
    exact, coarse = measure(group(labels, scores, threshold)), measure(cells)
    return {m: _interval(m, samples[m], exact[m], coarse[m], settings, 1.0) for m in METRICS}


def paired_intervals(
    labels: np.ndarray, scores: np.ndarray, baseline: np.ndarray, threshold: float, settings: Bootstrap, name: str = ""
) -> tuple[Intervals, Intervals, Intervals]:
    """Returns the intervals of a model, of a baseline on the same rows, and of the gain.

    The gain of a metric is the `goodness` of the model minus that of the baseline. Both models are measured on the same
    resampled rows, so the interval of the gain is much narrower than their own.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], the model's probabilities of class 1.
        baseline: [rows], the baseline's probabilities.
        threshold: Lowest probability that counts as positive.
        settings: Number of resamples, coverage and seed.
        name: Name of the slice. Defaults to the empty name, of all rows.

    Returns:
        Intervals of the model, the baseline and the gain, each as `intervals` returns them.
    """
    if not settings.resamples or not len(labels):
        return dict.fromkeys(METRICS), dict.fromkeys(METRICS), dict.fromkeys(METRICS)
    exact = [measure(group(labels, each, threshold)) for each in (scores, baseline)]
    rng, scale = _rng(settings, name), 1.0
    if len(labels) > MAX_PAIRED_ROWS:
        chosen = np.sort(rng.permutation(len(labels))[:MAX_PAIRED_ROWS])
        scale = float(np.sqrt(len(chosen) / len(labels)))
        labels, scores, baseline = labels[chosen], scores[chosen], baseline[chosen]
    both = [group(labels, each, threshold, MAX_CELLS) for each in (scores, baseline)]
    drawn = [
        tuple(measure(cells, each) for cells, each in zip(both, counts, strict=True))
        for counts in _row_resamples(both, rng, settings)
    ]
    samples = [_join([pair[i] for pair in drawn]) for i in range(2)]
    coarse = [measure(cells) for cells in both]
    own = [
        {m: _interval(m, samples[i][m], exact[i][m], coarse[i][m], settings, scale) for m in METRICS} for i in range(2)
    ]
    gain = {}
    for m in METRICS:
        gain[m] = _interval("gain", _gain(m, samples), _gain(m, exact), _gain(m, coarse), settings, scale)
    return own[0], own[1], gain


def _gain(metric: str, pair: list[dict[str, np.ndarray]]) -> np.ndarray:
    return goodness(metric, pair[0][metric]) - goodness(metric, pair[1][metric])


def _row_resamples(both: list[Cells], rng: np.random.Generator, settings: Bootstrap) -> Iterator[list[np.ndarray]]:
    """Yields the counts [resamples, 2, K] of both models under the same row weights, some resamples at a time."""
    table = _poisson_table()
    rows = len(both[0].labels)
    flat = [cells.labels * np.int64(cells.counts.shape[1]) + cells.index for cells in both]
    chunk = max(1, _CHUNK // max(rows, *(cells.counts.size for cells in both)))
    for start in range(0, settings.resamples, chunk):
        size = min(chunk, settings.resamples - start)
        weights = table[rng.integers(0, len(table), (size, rows), np.uint16)].ravel()
        counts = []
        for cells, index in zip(both, flat, strict=True):
            width = cells.counts.size
            shifted = (index + np.arange(size)[:, None] * width).ravel() if size > 1 else index
            counts.append(np.bincount(shifted, weights, size * width).reshape(size, *cells.counts.shape))
        yield counts


def _poisson_table() -> np.ndarray:
    """Returns 65,535 values distributed as Poisson(1) to within 1/65,535.

    Drawing an index into this table is ten times faster than drawing a Poisson number.
    """
    size = np.iinfo(np.uint16).max
    probability = np.exp(-1) / np.cumprod(np.maximum(np.arange(12), 1))
    edges = np.round(np.cumsum(probability) * size).astype(int)
    return np.searchsorted(edges, np.arange(size), side="right").astype(np.float64)


def _rng(settings: Bootstrap, name: str) -> np.random.Generator:
    return np.random.default_rng([settings.seed, zlib.crc32(name.encode())])


def _join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {metric: np.concatenate([part[metric] for part in parts]) for metric in METRICS}


def _interval(
    metric: str, samples: np.ndarray, exact: np.ndarray, coarse: np.ndarray, settings: Bootstrap, scale: float
) -> Interval | None:
    defined = samples[np.isfinite(samples)]
    if not np.isfinite(exact) or not np.isfinite(coarse) or len(defined) < MIN_DEFINED * len(samples):
        return None
    tail = (1 - settings.confidence) / 2
    low, high = exact + (np.quantile(defined, [tail, 1 - tail]) - coarse) * scale
    if metric == "ece":
        # Resampling adds noise to every bin, so a resample has a larger ECE than the sample. The interval always
        # contains the value itself.
        low, high = max(min(low, exact), 0.0), max(high, exact)
    return float(low), float(high)
