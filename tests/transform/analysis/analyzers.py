"""Functions that together call every analyzer except exact vocabularies, and rows for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import analyzers

from tests.transform.analysis.constants import batch, beam_constants
from tests.transform.recordings import write_arrays


def simple(inputs):
    """Analyzers over all rows."""
    x, pair, sparse, number, ragged = (inputs[name] for name in ("x", "pair", "sparse", "number", "ragged"))
    constants = {}
    for name, value in {"x": x, "pair": pair, "sparse": sparse, "number": number, "ragged": ragged}.items():
        for analyzer in (tft.min, tft.max, tft.sum, tft.size, tft.mean, tft.var):
            constants[f"{analyzer.__name__}_{name}"] = analyzer(value)
    for analyzer in (tft.min, tft.max, tft.sum, tft.size, tft.mean, tft.var):
        constants[f"{analyzer.__name__}_elements"] = analyzer(pair, reduce_instance_dims=False)
    for analyzer in (tft.tukey_location, tft.tukey_scale, tft.tukey_h_params):
        for k, part in enumerate(tf.nest.flatten(analyzer(x))):
            constants[f"{analyzer.__name__}_{k}"] = part
    constants["covariance"] = tft.covariance(pair, tf.float64)
    constants["pca"] = tf.abs(tft.pca(pair, 2, tf.float64))
    constants["quantiles"] = tft.quantiles(x, 4, 0.01)
    constants["boundaries"] = tft.quantiles(sparse.values, 5, 0.01)
    constants["elementwise_quantiles"] = tft.quantiles(pair, 4, 0.01, reduce_instance_dims=False)
    constants["weighted_quantiles"] = tft.quantiles(x, 4, 0.01, weights=inputs["weight"])
    return constants


def per_key(inputs):
    """Analyzers per key, some with several phases."""
    x, key = inputs["x"], inputs["key"]
    constants = {}
    with tf.name_scope("min_and_max"):
        keys, low, high = analyzers._min_and_max_per_key(x, key)
    constants |= {"min_max_keys": keys, "min": low, "max": high}
    with tf.name_scope("mean_and_var"):
        keys, mean, var = analyzers._mean_and_var_per_key(x, key)
    constants |= {"mean_var_keys": keys, "mean": mean, "var": var}
    with tf.name_scope("pair"):
        keys, mean, var = analyzers._mean_and_var_per_key(inputs["pair"], key, reduce_instance_dims=False)
    constants |= {"pair_mean": mean, "pair_var": var}
    keys, counts = tft.count_per_key(key)
    constants |= {"count_keys": keys, "count": counts}
    keys, counts = tft.count_per_key(inputs["number"])
    constants |= {"number_keys": keys, "number_counts": counts}
    counts, elements = tft.histogram(inputs["number"], categorical=True)
    constants |= {"histogram": counts, "elements": elements}
    counts, bounds = tft.histogram(x, [-5.0, 0.0, 0.5, 5.0])
    constants |= {"histogram_x": counts, "bounds_x": bounds}
    return constants


def phases(inputs):
    """Analyzers that depend on other analyzers."""
    x = inputs["x"]
    z = tft.scale_to_z_score(x)
    scaled = tft.scale_to_0_1(z)
    gaussian = tft.scale_to_gaussian(x)
    counts, bounds = tft.histogram(x, boundaries=4)
    buckets = tft.bucketize(tft.scale_by_min_max(x, -1.0, 1.0), 3, epsilon=0.01)
    by_key = tft.scale_to_z_score_per_key(x, inputs["key"])
    lines = tf.strings.regex_replace(inputs["key"], "\n", "")
    large = tft.scale_to_0_1_per_key(x, lines, key_vocabulary_filename="by_key")
    return {
        "sum_z": tft.sum(z * z),
        "sum_scaled": tft.sum(scaled),
        "sum_gaussian": tft.sum(gaussian * gaussian),
        "histogram": counts,
        "bounds": bounds,
        "buckets": tft.histogram(buckets, categorical=True)[0],
        "sum_by_key": tft.sum(by_key * by_key),
        "sum_large": tft.sum(large),
    }


def buckets_per_key(inputs):
    """Boundaries per key, for which Beam fails without rows."""
    x, key = inputs["x"], inputs["key"]
    names = ["keys", "boundaries", "scale", "shift", "buckets"]
    constants = dict(zip(names, analyzers._quantiles_per_key(x, key, 3, 0.01), strict=True))
    weighted = analyzers._quantiles_per_key(x, key, 3, 0.01, weights=inputs["weight"])
    return constants | {f"weighted_{name}": value for name, value in zip(names, weighted, strict=True)}


def approximate(inputs):
    """Approximate vocabularies: ids, a file and a count."""
    tokens = tft.experimental.approximate_vocabulary(inputs["words"], 20, vocab_filename="words")
    weighted = tft.experimental.approximate_vocabulary(
        inputs["key"], 20, vocab_filename="weighted", weights=inputs["weight"], store_frequency=True
    )
    return {
        "words": tft.apply_vocabulary(tf.constant([b"w0", b"w1", b"w2", b"w3", b"other"]), tokens),
        "file": tf.io.read_file(tf.convert_to_tensor(weighted)),
        "count": tft.sum(tf.cast(tft.apply_vocabulary(inputs["words"], tokens).values >= 0, tf.int64)),
    }


def rows(count: int, seed: int = 0) -> list[dict]:
    """Returns random rows with missing values, empty lists and repeated keys."""
    random = np.random.default_rng(seed)
    made = []
    for k in range(count):
        numbers = [int(n) for n in random.integers(-3, 4, random.integers(0, 3))]
        made.append(
            {
                "row": k,
                "x": float(np.float32(random.normal() * 3 + 1)),
                "pair": [float(np.float32(v)) for v in random.normal(size=2) * [1, 100]],
                "weight": float(random.integers(0, 3)),
                "key": random.choice([b"", b"a", "é".encode(), b"b\n", b"zz"]),
                "sparse": [float(np.float32(v)) for v in random.normal(size=random.integers(0, 3))],
                "number": numbers,
                "words": [b"w%d" % w for w in random.zipf(1.5, random.integers(0, 4)) % 9],
                "ragged": [float(k), 1.0] if k % 3 else [],
            }
        )
    return made


BATCHES = {
    "many_rows": [batch(rows(300)[start : start + 50]) for start in range(0, 300, 50)],
    "one_row": [batch(rows(1, seed=3))],
    "no_rows": [],
}
FUNCTIONS = {
    "simple": simple,
    "per_key": per_key,
    "phases": phases,
    "buckets": buckets_per_key,
    "approximate": approximate,
}
FAIL_WITHOUT_ROWS = ("phases", "buckets")
"""Functions for which Beam fails without rows: TFT expects a dimension that its empty keys do not have."""


def combined(names):
    """Returns a function with the constants of several functions, each with its function's name before a slash."""

    def function(inputs):
        constants = {}
        for name in names:
            with tf.name_scope(name):
                constants |= {f"{name}/{key}": value for key, value in FUNCTIONS[name](inputs).items()}
        return constants

    return function


def record(folder: Path) -> dict[str, bytes]:
    """Returns the constants that Beam computes, one file for each function and list of batches."""
    files = {}
    for batches_name, batches in BATCHES.items():
        for name, function in FUNCTIONS.items():
            if batches or name not in FAIL_WITHOUT_ROWS:
                files[f"{name}/{batches_name}.json"] = write_arrays(beam_constants(function, batches))
    return files
