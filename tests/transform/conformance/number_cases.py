"""Cases with analyzers of numbers: reductions, scalers, quantiles, histograms, covariance."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform.conformance.case import (
    Case,
    Inputs,
    QuantileOutput,
    dense,
    present_values,
    repeat,
    repeat_joined,
    row_values,
)


def reductions(inputs: Inputs) -> dict:
    made = {}
    for name in ("x", "n", "x_dense", "wide", "x64", "same", "flag", "counts", "ragged_floats"):
        for analyzer in (tft.min, tft.max, tft.sum, tft.size):
            made[f"{analyzer.__name__}_{name}"] = repeat(analyzer(inputs[name]), inputs)
    return made


def reductions_exact() -> dict:
    made = {}
    for name in ("x", "n", "x_dense", "wide", "x64", "same", "flag", "counts", "ragged_floats"):
        for reduce in (np.min, np.max, np.sum, np.size):
            key = f"{reduce.__name__.removeprefix('a')}_{name}"
            made[key] = lambda table, reduce=reduce, name=name: reduce(present_values(table, name))
    return made


def elementwise_reductions(inputs: Inputs) -> dict:
    analyzers = (tft.min, tft.max, tft.sum, tft.size, tft.mean, tft.var)
    return {
        f"{analyzer.__name__}_{name}": repeat(analyzer(inputs[name], reduce_instance_dims=False), inputs)
        for analyzer in analyzers
        for name in ("vector", "x_dense")
    }


def moments(inputs: Inputs) -> dict:
    made = {}
    for name in ("x", "n", "x_dense", "wide", "x64", "offset", "floats", "ragged_floats", "counts"):
        made[f"mean_{name}"] = repeat(tft.mean(inputs[name]), inputs)
        made[f"var_{name}"] = repeat(tft.var(inputs[name]), inputs)
        as64 = tf.cast(getattr(inputs[name], "values", inputs[name]), tf.float64)
        made[f"deviation_{name}"] = repeat(tf.sqrt(tft.var(as64)), inputs)
    return made


def moments_exact() -> dict:
    made = {}
    for name in ("x", "n", "x_dense", "wide", "x64", "offset", "floats", "ragged_floats", "counts"):
        for what, reduce in (("mean", np.mean), ("var", np.var), ("deviation", np.std)):
            made[f"{what}_{name}"] = lambda table, reduce=reduce, name=name: reduce(present_values(table, name))
    return made


def extremes(inputs: Inputs) -> dict:
    """The smallest and largest int64; their sum wraps around."""
    return {
        f"{analyzer.__name__}_huge": repeat(analyzer(inputs["huge"]), inputs)
        for analyzer in (tft.min, tft.max, tft.sum, tft.size, tft.mean)
    }


def not_finite(inputs: Inputs) -> dict:
    """Lists that contain NaN and infinities."""
    odd = inputs["odd"]
    made = {f"{a.__name__}_odd": repeat(a(odd), inputs) for a in (tft.min, tft.max, tft.size, tft.mean, tft.var)}
    finite = tf.SparseTensor(odd.indices, tf.where(tf.math.is_inf(odd.values), 0.0, odd.values), odd.dense_shape)
    made["mean_nan"] = repeat(tft.mean(finite), inputs)
    made["z"] = tft.scale_to_z_score(finite)
    made["bucket"] = tft.bucketize(finite, 5)
    return made


def scalers(inputs: Inputs) -> dict:
    x = inputs["x_dense"]
    return {
        "by_min_max": tft.scale_by_min_max(x, -1.0, 3.0),
        "zero_one": tft.scale_to_0_1(x),
        "z": tft.scale_to_z_score(x),
        "z_int": tft.scale_to_z_score(inputs["label3"]),
        "z64": tf.cast(tft.scale_to_z_score(tf.cast(x, tf.float64), output_dtype=tf.float64), tf.float32),
        "z_offset": tft.scale_to_z_score(inputs["offset"]),
        "z_filled": tft.scale_to_z_score(dense(inputs["x"], -1.0)),
        "z_same": tft.scale_to_z_score(dense(inputs["same"], 4.5)),
        "vector_z": tft.scale_to_z_score(inputs["vector"], elementwise=True),
        "vector_z_whole": tft.scale_to_z_score(inputs["vector"]),
        "vector_zero_one": tft.scale_to_0_1(inputs["vector"], elementwise=True),
        "sparse_z": tft.scale_to_z_score(inputs["floats"]),
        "sparse_zero_one": tft.scale_to_0_1(inputs["x"]),
        "ragged_z": tft.scale_to_z_score(inputs["ragged_floats"]),
        "ragged_min_max": tft.scale_by_min_max(inputs["ragged_floats"]),
        "true_sparse_z": tft.scale_to_z_score(inputs["sparse"]),
    }


def _z(column: str):
    return lambda t: (row_values(t, column) - present_values(t, column).mean()) / present_values(t, column).std()


def _zero_one(table, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    x = row_values(table, "x_dense")
    return (x - x.min()) / (x.max() - x.min()) * (high - low) + low


def scalers_per_key(inputs: Inputs) -> dict:
    x, key = inputs["x_dense"], inputs["key"]
    return {
        "by_min_max": tft.scale_by_min_max_per_key(x, key, -1.0, 3.0),
        "zero_one": tft.scale_to_0_1_per_key(x, key),
        "z": tft.scale_to_z_score_per_key(x, key),
        "z_int": tft.scale_to_z_score_per_key(inputs["label3"], key),
        "vector_z": tft.scale_to_z_score_per_key(inputs["vector"], key, elementwise=True),
        "sparse_z": tft.scale_to_z_score_per_key(inputs["floats"], key),
        "zero_one_file": tft.scale_to_0_1_per_key(x, key, key_vocabulary_filename="numbers_zero_one"),
        "z_file": tft.scale_to_z_score_per_key(x, key, key_vocabulary_filename="numbers_z"),
    }


def _z_per_key(table) -> np.ndarray:
    x, key = row_values(table, "x_dense"), np.array(table["key"].to_pylist())
    made = np.empty_like(x)
    for one in np.unique(key):
        made[key == one] = (x[key == one] - x[key == one].mean()) / x[key == one].std()
    return made


def counts_per_key(inputs: Inputs) -> dict:
    made = {}
    for name, key in (("key", inputs["key"]), ("word", inputs["word"].values), ("n", inputs["n"].values)):
        keys, counts = tft.count_per_key(key)
        made[f"keys_{name}"], made[f"counts_{name}"] = repeat_joined(keys, inputs), repeat_joined(counts, inputs)
    tft.count_per_key(inputs["key"], key_vocabulary_filename="counts_of_keys")
    return made


def tukey(inputs: Inputs) -> dict:
    made = {
        "gaussian": tft.scale_to_gaussian(inputs["x_dense"]),
        "gaussian_vector": tft.scale_to_gaussian(inputs["vector"], elementwise=True),
    }
    for name in ("x64", "ragged_floats"):
        made[f"location_{name}"] = repeat(tft.tukey_location(inputs[name]), inputs)
        made[f"scale_{name}"] = repeat(tft.tukey_scale(inputs[name]), inputs)
        left, right = tft.tukey_h_params(inputs[name])
        made[f"left_{name}"], made[f"right_{name}"] = repeat(left, inputs), repeat(right, inputs)
    return made


QUANTILES = {"q4": ("x_dense", 4, 0.01), "q10": ("x", 10, 0.01), "q100": ("wide", 100, 0.001), "q_n": ("n", 7, 0.05)}


def quantiles(inputs: Inputs) -> dict:
    made = {}
    for output, (column, buckets, epsilon) in QUANTILES.items():
        boundaries = tft.quantiles(getattr(inputs[column], "values", inputs[column]), buckets, epsilon)
        made[output] = repeat(tf.reshape(tf.cast(boundaries, tf.float32), [buckets - 1]), inputs)
    weighted = tft.quantiles(inputs["x_dense"], 10, 0.01, weights=inputs["weight"])
    made["weighted"] = repeat(tf.reshape(weighted, [9]), inputs)
    by_axis = tft.quantiles(inputs["vector"], 5, 0.01, reduce_instance_dims=False)
    made["by_axis"] = repeat(tf.reshape(by_axis, [12]), inputs)
    return made


def bucketizers(inputs: Inputs) -> dict:
    x = inputs["x_dense"]
    boundaries = tft.quantiles(x, 6, 0.01)
    return {
        "dense": tft.bucketize(x, 10),
        "ints": tft.bucketize(inputs["label3"], 3),
        "sparse": tft.bucketize(inputs["floats"], 4, epsilon=0.05),
        "ragged": tft.bucketize(inputs["ragged_floats"], 4),
        "weighted": tft.bucketize(x, 4, weights=inputs["weight"]),
        "vector": tft.bucketize(inputs["vector"], 5, elementwise=True),
        "applied": tft.apply_buckets(x, boundaries),
        "interpolated": tft.apply_buckets_with_interpolation(x, boundaries),
        "missing_filled": tft.bucketize(dense(inputs["x"], 0.0), 8),
        "few_values": tft.bucketize(inputs["n"], 100),
    }


def bucketizers_per_key(inputs: Inputs) -> dict:
    x, key = inputs["x_dense"], inputs["key"]
    return {
        "plain": tft.bucketize_per_key(x, key, 4),
        "weighted": tft.bucketize_per_key(x, key, 3, weights=inputs["weight"]),
        "ints": tft.bucketize_per_key(inputs["label3"], key, 3),
    }


def histograms(inputs: Inputs) -> dict:
    made = {}
    counts, boundaries = tft.histogram(inputs["x_dense"], boundaries=[-5.0, 0.0, 5.0])
    made["counts"], made["boundaries"] = repeat_joined(counts, inputs), repeat_joined(boundaries, inputs)
    counts, boundaries = tft.histogram(inputs["n"], boundaries=6)
    made["counts_even"], made["boundaries_even"] = repeat_joined(counts, inputs), repeat_joined(boundaries, inputs)
    counts, words = tft.histogram(inputs["key"], categorical=True)
    made["counts_key"], made["words_key"] = repeat_joined(counts, inputs), repeat_joined(words, inputs)
    made["density"] = tft.estimated_probability_density(inputs["x_dense"], boundaries=8)
    made["density_key"] = tft.estimated_probability_density(inputs["key"], categorical=True)
    return made


def matrices(inputs: Inputs) -> dict:
    made = {}
    for name, dtype in (("32", tf.float32), ("64", tf.float64)):
        vector = tf.cast(inputs["vector"], dtype)
        made[f"covariance_{name}"] = repeat(tf.reshape(tft.covariance(vector, dtype), [9]), inputs)
        made[f"pca_{name}"] = repeat(tf.reshape(tft.pca(vector, 2, dtype), [6]), inputs)
    return made


def _covariance(table) -> np.ndarray:
    vectors = np.array(table["vector"].to_pylist(), np.float32).astype(np.float64)
    return np.tile(np.cov(vectors.T, bias=True).reshape(1, 9), (table.num_rows, 1))


CASES = [
    Case("reductions", reductions, reductions_exact()),
    Case("elementwise_reductions", elementwise_reductions),
    Case("moments", moments, moments_exact()),
    Case("extremes", extremes),
    Case("not_finite", not_finite),
    Case(
        "scalers",
        scalers,
        {
            "z": _z("x_dense"),
            "z64": _z("x_dense"),
            "z_offset": _z("offset"),
            "z_int": _z("label3"),
            "zero_one": _zero_one,
            "by_min_max": lambda table: _zero_one(table, -1, 3),
        },
    ),
    Case("scalers_per_key", scalers_per_key, {"z": _z_per_key, "z_file": _z_per_key}),
    Case("counts_per_key", counts_per_key),
    Case("tukey", tukey),
    Case(
        "quantiles",
        quantiles,
        quantiles={
            **{
                output: QuantileOutput(lambda t, column=column: (present_values(t, column), None), buckets, epsilon)
                for output, (column, buckets, epsilon) in QUANTILES.items()
            },
            "weighted": QuantileOutput(lambda t: (present_values(t, "x_dense"), present_values(t, "weight")), 10, 0.01),
        },
    ),
    # A sketch with a large epsilon drops other values when it is merged in another order.
    Case("bucketizers", bucketizers, near={"sparse": 0.05}),
    Case("bucketizers_per_key", bucketizers_per_key),
    Case("histograms", histograms),
    Case("matrices", matrices, {"covariance_32": _covariance, "covariance_64": _covariance}),
]
