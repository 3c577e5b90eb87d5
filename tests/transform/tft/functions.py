"""preprocessing_fns over the same rows, for comparing the local engine's artifact with Beam's."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import wrappers_pb2
from tensorflow_transform import schema_inference

FEATURE_SPEC = {
    "x": tf.io.FixedLenFeature([], tf.float32),
    "i": tf.io.FixedLenFeature([], tf.int64),
    "m": tf.io.FixedLenFeature([3], tf.float32),
    "key": tf.io.FixedLenFeature([], tf.string),
    "s": tf.io.FixedLenFeature([], tf.string),
    "words": tf.io.VarLenFeature(tf.string),
    "ints": tf.io.VarLenFeature(tf.int64),
    "ragged": tf.io.RaggedFeature(tf.string, value_key="ragged_values", row_splits_dtype=tf.int64),
    "sparse": tf.io.SparseFeature(["sparse_index"], "sparse_value", tf.float32, [10]),
}


def rows(count: int) -> list[dict]:
    """Returns rows of `FEATURE_SPEC` as dicts."""
    rng = np.random.default_rng(7)
    words = ["a", "b", "dd", "größe", "x y", "eee", "line\nbreak", ""]

    def some(values: list, most: int) -> list:
        return [values[j] for j in rng.integers(0, len(values), rng.integers(0, most))]

    def row(n: int) -> dict:
        at = sorted(rng.choice(10, rng.integers(0, 4), replace=False).tolist())
        return {
            "x": float(rng.normal(3, 2)),
            "i": int(rng.integers(-3, 9)),
            "m": rng.normal(size=3).astype(np.float32).tolist(),
            "key": words[n % 3],
            "s": words[int(rng.integers(0, len(words)) * rng.random())],
            "words": some(words, 5),
            "ints": some([1, 2, 30, -4], 4),
            "ragged_values": some(words, 4),
            "sparse_index": at,
            "sparse_value": rng.normal(size=len(at)).astype(np.float32).tolist(),
        }

    return [row(n) for n in range(count)]


def _row_wise(value: tf.Tensor, inputs: dict) -> tf.Tensor:
    """Repeats a scalar for each row."""
    return tf.zeros_like(inputs["x"]) + tf.cast(value, tf.float32)


def one_phase(inputs):
    x = inputs["x"]
    constants = [tft.min(x), tft.max(x), tft.sum(x), tft.mean(x), tft.var(x), tft.size(x)]
    outputs = {f"constant_{n}": _row_wise(value, inputs) for n, value in enumerate(constants)}
    return outputs | {
        "z": tft.scale_to_z_score(x),
        "unit": tft.scale_to_0_1(inputs["m"], elementwise=True),
        "bucket": tft.bucketize(x, 4),
        "quantiles": tf.tile(tft.quantiles(x, 5, 0.01), [tf.shape(x)[0], 1]),
    }


def two_phases(inputs):
    unit = tft.scale_to_0_1(inputs["x"])
    bucket = tft.bucketize(tft.scale_to_z_score(unit), 3)
    return {"z": tft.scale_to_z_score(unit), "bucket": bucket, "mean": _row_wise(tft.mean(bucket), inputs)}


def vocabulary_then_mean(inputs):
    ids = tft.compute_and_apply_vocabulary(inputs["s"], vocab_filename="first", num_oov_buckets=2)
    again = tft.compute_and_apply_vocabulary(ids, vocab_filename="second", default_value=-7)
    return {"ids": ids, "again": again, "mean": _row_wise(tft.mean(ids), inputs), "z": tft.scale_to_z_score(again)}


def tfidf(inputs):
    tokens = tf.compat.v1.string_split(inputs["s"], "")
    ids = tft.compute_and_apply_vocabulary(tokens, vocab_filename="letters", top_k=5, num_oov_buckets=1)
    terms, weights = tft.tfidf(ids, tft.experimental.get_vocabulary_size_by_name("letters") + 1)
    return {"terms": terms, "weights": weights}


def per_key(inputs):
    x, key = inputs["x"], inputs["key"]
    return {
        "bucket": tft.bucketize_per_key(x, key, 3),
        "z": tft.scale_to_z_score_per_key(x, key),
        "z_file": tft.scale_to_z_score_per_key(x, key, key_vocabulary_filename="moments"),
        "unit_file": tft.scale_to_0_1_per_key(x, key, key_vocabulary_filename="ranges"),
    }


def pca(inputs):
    m = inputs["m"]
    return {"pca": tf.matmul(m, tft.pca(m, 2, tf.float32)), "cov": tf.matmul(m, tft.covariance(m, tf.float32))}


def annotated(inputs):
    ids = tft.compute_and_apply_vocabulary(inputs["s"], vocab_filename="my words/1", reserved_tokens=["one", "two"])
    number = tf.cast(inputs["i"], tf.int64) * 2
    size = tf.strings.as_string(tft.experimental.get_vocabulary_size_by_name("my words/1"))
    schema_inference.annotate("type.googleapis.com/own", tf.strings.join(["size ", size]), number)
    message = wrappers_pb2.StringValue(value="whole").SerializeToString()
    schema_inference.annotate("type.googleapis.com/google.protobuf.StringValue", tf.constant(message))
    schema_inference.set_tensor_schema_override(number, tft.min(inputs["i"]) * 2, tft.max(inputs["i"]) * 2)
    tft.annotate_asset("the words", "my-words_1")
    buckets = tft.get_num_buckets_for_transformed_feature(ids)
    return {"ids": ids, "number": number, "buckets": tf.zeros_like(inputs["i"]) + buckets}


def sparse_and_ragged(inputs):
    scaled = tft.scale_to_z_score(inputs["sparse"])
    tft.experimental.annotate_sparse_output_shape(scaled, tft.max(inputs["i"])[tf.newaxis] + 20)
    bags = tft.bag_of_words(inputs["words"], (1, 2), " ", name="bag")
    tft.experimental.annotate_true_sparse_output(bags)
    return {
        "scaled": scaled,
        "bags": bags,
        "ids": tft.compute_and_apply_vocabulary(inputs["words"], vocab_filename="words"),
        "ragged": tft.compute_and_apply_vocabulary(inputs["ragged"], vocab_filename="ragged"),
        "copy": inputs["ints"],
    }


def applied_twice(inputs):
    words = tft.vocabulary(tf.concat([inputs["s"], inputs["key"]], 0), vocab_filename="both", top_k=3)
    return {
        "s": tft.apply_vocabulary(inputs["s"], words, num_oov_buckets=3),
        "key": tft.apply_vocabulary(inputs["key"], words, default_value=99),
        "words": tft.apply_vocabulary(inputs["words"], words),
    }


def other_files(inputs):
    """Vocabularies in compressed files, with frequencies, of integers, and one that is not applied."""
    tft.vocabulary(inputs["key"], vocab_filename="unused", store_frequency=True)
    i = inputs["i"]
    return {
        "gzip": tft.compute_and_apply_vocabulary(inputs["s"], vocab_filename="gzip", file_format="tfrecord_gzip"),
        "gzip_counts": tft.compute_and_apply_vocabulary(
            inputs["s"], vocab_filename="gzip_counts", file_format="tfrecord_gzip", store_frequency=True
        ),
        "counts": tft.compute_and_apply_vocabulary(inputs["s"], vocab_filename="counts", store_frequency=True),
        "int": tft.compute_and_apply_vocabulary(i, vocab_filename="int", num_oov_buckets=1),
        "int_gzip": tft.compute_and_apply_vocabulary(i, vocab_filename="int_gzip", file_format="tfrecord_gzip"),
        "approximate": tft.experimental.compute_and_apply_approximate_vocabulary(
            inputs["s"], top_k=3, vocab_filename="approximate"
        ),
    }


def _own_lookup(x, path):
    initializer = tf.lookup.TextFileInitializer(
        path, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    table = tf.lookup.StaticHashTable(initializer, default_value=-5)
    return table.lookup(x), table.size()


def own_lookup(inputs):
    """Passes a vocabulary's path to the user's own lookup, and analyzes the result."""
    words = tft.vocabulary(inputs["s"], vocab_filename="own")
    ids = tft.apply_vocabulary(inputs["s"], words, lookup_fn=_own_lookup)
    return {"ids": ids, "z": tft.scale_to_z_score(tf.cast(ids, tf.float32)), "x": tft.scale_to_z_score(inputs["x"])}


def path_as_output(inputs):
    """Reads a vocabulary's path in the graph, and also looks tokens up in the same vocabulary."""
    words = tft.vocabulary(inputs["key"], vocab_filename="read")
    length = tf.strings.length(tf.io.read_file(words))
    return {"length": _row_wise(length, inputs), "ids": tft.apply_vocabulary(inputs["key"], words)}


def tables_and_objects(inputs):
    """Uses the user's own tables and other resources."""
    with tf.init_scope():
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([10, 20], tf.int64))
        table = tf.lookup.StaticHashTable(pairs, -1)
    numbers = tft.make_and_track_object(lambda: tf.data.Dataset.from_tensor_slices([1.0, 2.0, 3.0]))
    with tf.init_scope():
        first = next(iter(numbers.as_numpy_iterator()))
    weights = tft.make_and_track_object(lambda: tf.Variable([1.0, 2.0, 3.0], trainable=False), name="weights")
    return {
        "key": table.lookup(inputs["key"]),
        "z": tft.scale_to_z_score(tf.cast(table.lookup(inputs["key"]), tf.float32)) + first,
        "m": inputs["m"] * weights,
    }


def control_flow(inputs):
    x, high = inputs["x"], tft.max(inputs["x"])
    with tf.control_dependencies([tf.debugging.assert_less_equal(x, high + 1e3)]):
        checked = tf.identity(x)
    halved = tf.while_loop(lambda v: tf.reduce_max(v) > 1, lambda v: v / 2, [checked], shape_invariants=[x.shape])[0]
    chosen = tf.cond(high > 5, lambda: x - high, lambda: x + high)
    mapped = tf.map_fn(lambda row: tf.reduce_sum(row) * tf.math.log(tf.abs(high) + 1.0), inputs["m"])
    return {"halved": halved, "chosen": tft.scale_to_z_score(chosen), "mapped": mapped}


def branch_with_a_width(inputs):
    """The width of an output is known only after the keys are counted, and a branch hides it."""
    keys, counts = tft.count_per_key(inputs["key"])
    equal = tf.cast(inputs["key"][:, tf.newaxis] == keys, tf.int64)
    return {"wide": tf.cond(tf.reduce_sum(counts) > 3, lambda: equal * counts, lambda: equal)}


def lookups_that_others_wait_for(inputs):
    """Looks tokens up in a branch and in a loop, and has ids that other ops only wait for."""
    key, x = inputs["key"], inputs["x"]
    words = tft.vocabulary(key, vocab_filename="inside")
    zeros = tf.zeros_like(key, tf.int64)
    branch = tf.cond(tf.reduce_sum(x) > -1e9, lambda: tft.apply_vocabulary(key, words), lambda: zeros)
    loop = tf.map_fn(lambda word: tft.apply_vocabulary(word, words), key, fn_output_signature=tf.int64)
    ids = tft.compute_and_apply_vocabulary(key, vocab_filename="waited_for")
    with tf.control_dependencies([ids]):
        after = tf.identity(x)
    first, second = tf.tuple([ids, x])
    return {
        "branch": branch,
        "loop": loop,
        "after": after,
        "scaled": tft.scale_to_0_1(after),
        "first": first,
        "second": second,
    }


def counted(inputs):
    keys, counts = tft.count_per_key(inputs["key"])
    edges, bins = tft.histogram(inputs["x"], boundaries=4)
    mine = tf.reduce_sum(tf.where(inputs["key"][:, tf.newaxis] == keys, counts, 0), axis=1)
    return {
        "count": mine,
        "bins": _row_wise(tf.reduce_max(bins), inputs),
        "edges": _row_wise(tf.reduce_max(tf.strings.to_number(edges) if edges.dtype == tf.string else edges), inputs),
    }


def no_analyzers(inputs):
    return {"x": inputs["x"] * 2, "words": inputs["words"], "i": inputs["i"]}


def shared_tensors(inputs):
    """Returns one tensor under two names; TFT has metadata for one of them."""
    ids = tft.bucketize(inputs["x"], 3)
    inputs["x"] = tf.zeros_like(inputs["x"])
    return {"a": ids, "b": ids, "x": inputs["x"], "c": tf.cast(ids, tf.int64)}


ALL = [
    one_phase,
    two_phases,
    vocabulary_then_mean,
    tfidf,
    per_key,
    pca,
    annotated,
    sparse_and_ragged,
    applied_twice,
    other_files,
    own_lookup,
    path_as_output,
    tables_and_objects,
    control_flow,
    branch_with_a_width,
    lookups_that_others_wait_for,
    counted,
    no_analyzers,
    shared_tensors,
]
