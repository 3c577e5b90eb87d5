"""Generator of synthetic rows in the format of Criteo's display advertising challenge.

The rows have the format of the challenge's `train.txt`: a label, 13 integers and 26 categoricals of 8 hexadecimal
digits, separated by tabs, without a header. They also have its numbers of distinct values, heavy tails and shares of
missing values, but none of its content. The labels are drawn from a logistic model with interactions. So the best log
loss that any model can reach on these rows is known.

    python examples/criteo/generate.py --rows 1000000 --out examples/criteo/data --seed 0 --files 4
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

NUMBERS = [f"i{i}" for i in range(1, 14)]
CATEGORIES = [f"c{i}" for i in range(1, 27)]
COLUMNS = ["label", *NUMBERS, *CATEGORIES]
BASE_RATE = 0.25

_CHUNK_ROWS = 1 << 18
_CALIBRATION_ROWS = 200_000
_AUC_BINS = 100_000

# Distinct values of the challenge's categoricals, and approximate shares of missing values.
_CARDINALITIES = [
    1460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5683, 8_351_593, 3194, 27,
    14_992, 5_461_306, 10, 5652, 2173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572,
]  # fmt: skip
_MISSING_CATEGORY = [0, 0, 0.03, 0.03, 0, 0.12, 0, 0, 0, 0, 0, 0.03, 0, 0, 0, 0.03, 0, 0, 0.44, 0.44, 0.03, 0.76, 0, 0.03, 0.44, 0.44]  # fmt: skip # noqa: E501
_MISSING_NUMBER = [0.45, 0, 0.21, 0.22, 0.03, 0.22, 0.04, 0.0005, 0.04, 0.45, 0.04, 0.76, 0.22]
_LOG_MEAN = [0.7, 2.3, 1.8, 1.6, 7.5, 3.4, 1.7, 2.1, 3.9, 0.2, 0.8, 0.1, 1.7]
_LOG_SPREAD = [1.1, 2.0, 1.4, 1.0, 2.2, 1.6, 1.4, 1.0, 1.4, 0.5, 0.9, 0.6, 1.0]

# The model has four kinds of effects: of numbers (centred log(1 + x)), of categories, of pairs of categories, and of
# numbers whose slope depends on a category.
_NUMBER_EFFECT = [0.30, 0.05, 0.12, -0.10, -0.10, -0.15, 0.20, 0.04, -0.04, 0.35, 0.22, 0.10, -0.06]
_NUMBER_MISSING = [-0.35, 0, -0.10, 0.10, 0.2, 0.15, -0.4, 0, -0.3, -0.35, -0.4, 0.05, 0.10]
_PAIRS = [(5, 8, 0.35), (16, 13, 0.35), (1, 22, 0.30), (19, 5, 0.30)]
_FACTORS = 3
"""Length of the vectors whose products are the effects of pairs. The matrix of these effects has a low rank, as
factorization machines (Rendle, ICDM 2010) and later embedding models assume."""
_RARE_RANK = 50
"""Rank of the value whose effect is on average half of the most frequent value's, alone and as the first of a pair."""
_SLOPES = [(4, 16, 0.10), (5, 8, 0.15), (10, 22, 0.25)]


@dataclass(frozen=True)
class Truth:
    """Known properties of the generated rows."""

    rows: int
    seed: int
    base_rate: float
    """Mean of the true probabilities."""
    positive_rate: float
    """Share of rows with label 1."""
    best_log_loss: float
    """Mean binary entropy of the true probabilities in nats: the expected log loss of the best model."""
    best_auc: float
    """Expected area under the ROC curve of the true probabilities, to 4 digits."""
    constant_log_loss: float
    """Binary entropy of the base rate: the log loss of a model that always predicts the base rate."""


def generate(rows: int, out: str | Path, *, seed: int = 0, files: int = 1, probabilities: bool = False) -> Truth:
    """Writes `out/part-00000.tsv` … and `out/truth.json`.

    The rows depend only on `seed`. A larger `rows` appends rows and keeps the first ones. One chunk of 262,144 rows is
    in memory at a time.

    Args:
        rows: Number of rows, at least 1.
        out: Folder, which is created if it does not exist.
        seed: Seed of the rows. The model is always the same.
        files: Number of files, which have equally many rows.
        probabilities: Whether to add a last column with the true probability of label 1. Defaults to no.

    Returns:
        The known properties of the rows.

    Raises:
        ValueError: `rows` or `files` is less than 1, or there are more files than rows.
    """
    if rows < 1 or files < 1 or files > rows:
        raise ValueError(f"rows={rows}, files={files}: use at least one file, and at least one row per file")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    bounds = [round(rows * i / files) for i in range(files + 1)]
    entropy = probability = positives = 0.0
    histogram = np.zeros((2, _AUC_BINS))
    done, number, writer = 0, 0, None
    for table, p in chunks(rows, seed):
        entropy += float(np.sum(_entropy(p)))
        probability += float(np.sum(p))
        positives += float(np.sum(table.column("label").to_numpy()))
        bins = np.minimum((p * _AUC_BINS).astype(np.int64), _AUC_BINS - 1)
        histogram[0] += np.bincount(bins, weights=1 - p, minlength=_AUC_BINS)
        histogram[1] += np.bincount(bins, weights=p, minlength=_AUC_BINS)
        if probabilities:
            table = table.append_column("p", pa.array(p))
        start = 0
        while start < table.num_rows:
            if writer is None:
                writer = _open(out / f"part-{number:05d}.tsv", table.schema)
            end = min(table.num_rows, start + bounds[number + 1] - done)
            writer.write_table(table.slice(start, end - start))
            done, start = done + end - start, end
            if done == bounds[number + 1]:
                writer.close()
                writer, number = None, number + 1
    base = probability / rows
    truth = Truth(
        rows, seed, base, positives / rows, entropy / rows, round(_auc(histogram), 4), float(_entropy(np.float64(base)))
    )
    (out / "truth.json").write_text(json.dumps(asdict(truth), indent=1) + "\n", encoding="utf-8")
    return truth


def chunks(rows: int, seed: int) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yields tables of rows with their true probabilities, float64 [rows]."""
    intercept = _intercept()
    for chunk, start in enumerate(range(0, rows, _CHUNK_ROWS)):
        rng = np.random.default_rng([seed, chunk])
        numbers, ranks = _draw(rng, _CHUNK_ROWS)
        p = 1 / (1 + np.exp(-(intercept + _logit(numbers, ranks))))
        label = (rng.random(_CHUNK_ROWS) < p).astype(np.int8)
        columns = [pa.array(label)]
        columns += [pa.array(x.astype(np.int64), mask=~known) for x, known in numbers]
        columns += [_hex(_hash(j, rank, 0), rank >= 0) for j, rank in enumerate(ranks)]
        count = min(_CHUNK_ROWS, rows - start)
        yield pa.table(columns, names=COLUMNS).slice(0, count), p[:count]


def _draw(rng: np.random.Generator, rows: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[np.ndarray]]:
    """Draws the integers (float64 [rows], with masks of known values) and the categories' ranks (int64 [rows]; -1:
    missing)."""
    numbers = []
    for j in range(13):
        x = np.floor(np.exp(_LOG_MEAN[j] + _LOG_SPREAD[j] * rng.standard_normal(rows)))
        x = np.minimum(x, 2.0**31 - 1) - (3.0 if j == 1 else 0.0)
        numbers.append((x, rng.random(rows) >= _MISSING_NUMBER[j]))
    ranks = []
    for j, size in enumerate(_CARDINALITIES):
        rank = _zipf(rng.random(rows), size, 1.05 + 0.02 * (j % 8))
        rank[rng.random(rows) < _MISSING_CATEGORY[j]] = -1
        ranks.append(rank)
    return numbers, ranks


def _zipf(u: np.ndarray, size: int, exponent: float) -> np.ndarray:
    """Returns ranks from 0 to size - 1 with a bounded power law, by the inverse of its distribution function."""
    power = 1 - exponent
    ranks = ((float(size + 1) ** power - 1) * u + 1) ** (1 / power)
    return np.minimum(ranks.astype(np.int64) - 1, size - 1)


def _logit(numbers: list[tuple[np.ndarray, np.ndarray]], ranks: list[np.ndarray]) -> np.ndarray:
    logs = []
    logit = np.zeros(len(ranks[0]))
    for j, (x, known) in enumerate(numbers):
        log = np.where(known, np.log1p(np.maximum(x, 0)) - _LOG_MEAN[j], 0.0)
        logs.append(log)
        logit += np.where(known, _NUMBER_EFFECT[j] * log, _NUMBER_MISSING[j])
    for j, size in enumerate(_CARDINALITIES):
        # Rare values have smaller effects. No model could learn large ones from few rows, and the best log loss would
        # be out of reach: with effects of one size it is 4 % below the best estimate from a million rows.
        effect = (0.30 if size < 20_000 else 0.18) / (1 + np.maximum(ranks[j], 0) / _RARE_RANK)
        logit += effect * _normal(_hash(j, ranks[j], 1))
    for a, b, effect in _PAIRS:
        effect = effect / (1 + np.maximum(ranks[a], 0) / _RARE_RANK)
        logit += effect * _affinity(100 + a, ranks[a], 150 + b, ranks[b])
    for number, category, effect in _SLOPES:
        logit += effect * logs[number] * _normal(_hash(200 + number, ranks[category], 3))
    return logit


def _affinity(a: int, rank_a: np.ndarray, b: int, rank_b: np.ndarray) -> np.ndarray:
    """Returns the interaction of two columns, the product of their values' vectors: float64 [rows], mean 0, variance
    1."""
    factors = (_normal(_hash(a, rank_a, 4 + k)) * _normal(_hash(b, rank_b, 4 + k)) for k in range(_FACTORS))
    return sum(factors) / np.sqrt(_FACTORS)


@functools.cache
def _intercept() -> float:
    """Returns the intercept for which the mean probability is the base rate, on rows of a fixed seed."""
    logit = _logit(*_draw(np.random.default_rng(20140628), _CALIBRATION_ROWS))
    low, high = -10.0, 10.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-(middle + logit)))) < BASE_RATE else (low, middle)
    return (low + high) / 2


def _hash(column: int, value: np.ndarray, salt: int) -> np.ndarray:
    """Returns 64-bit hashes, uint64 [rows], by the finalizer of SplitMix64 (Steele et al., OOPSLA 2014)."""
    stream = np.uint64((column * 16 + salt) * 0x632BE59BD9B4E019 % 2**64)
    x = value.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + stream
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _normal(hashes: np.ndarray) -> np.ndarray:
    """Returns nearly normal numbers with mean 0 and variance 1: each is the sum of the four quarters of a hash."""
    quarters = hashes.view(np.uint16).reshape(-1, 4).sum(axis=1, dtype=np.float64)
    return (quarters / 65535 - 2) * np.sqrt(3)


def _hex(hashes: np.ndarray, known: np.ndarray) -> pa.Array:
    """Returns the lower halves of the hashes as 8 hexadecimal digits. Null if not known."""
    digits = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), np.uint8).reshape(256, 2)
    text = digits[(hashes & np.uint64(0xFFFFFFFF)).astype(">u4").view(np.uint8)].reshape(-1)
    offsets = np.arange(0, 8 * len(hashes) + 1, 8, dtype=np.int32)
    mask = np.packbits(known, bitorder="little")
    return pa.StringArray.from_buffers(len(hashes), pa.py_buffer(offsets), pa.py_buffer(text), pa.py_buffer(mask))


def _open(path: Path, schema: pa.Schema) -> pa.csv.CSVWriter:
    options = pa.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    return pa.csv.CSVWriter(path, schema, write_options=options)


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p) + (1 - p) * np.log1p(-p))


def _auc(histogram: np.ndarray) -> float:
    """Returns the expected area under the ROC curve, from the expected negatives and positives per bin."""
    negatives, positives = histogram
    below = np.cumsum(negatives) - negatives
    return float(np.sum(positives * (below + negatives / 2)) / (negatives.sum() * positives.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Synthetic rows in Criteo's format, drawn from a known model.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", required=True, help="folder for part-*.tsv and truth.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--probabilities", action="store_true", help="add the true probability as a last column")
    args = parser.parse_args()
    truth = generate(args.rows, args.out, seed=args.seed, files=args.files, probabilities=args.probabilities)
    print(json.dumps({"synthetic": True, **asdict(truth)}))


if __name__ == "__main__":
    main()
