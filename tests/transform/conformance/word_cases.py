"""Cases with tokens: vocabularies of all kinds, term counts, hashes, several phases, composite tensors."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform.conformance.case import Case, Inputs, dense, repeat, repeat_joined


def vocabularies(inputs: Inputs) -> dict:
    word = inputs["word"]
    tft.vocabulary(word, vocab_filename="all", store_frequency=True)
    tft.vocabulary(word, vocab_filename="top", top_k=7, store_frequency=True)
    tft.vocabulary(word, vocab_filename="often", frequency_threshold=40)
    tft.vocabulary(inputs["bag"], vocab_filename="bag", store_frequency=True)
    tft.vocabulary(inputs["ragged_words"], vocab_filename="ragged", store_frequency=True)
    tft.vocabulary(inputs["near_unique"], vocab_filename="near_unique")
    tft.vocabulary(inputs["near_unique"], vocab_filename="near_unique_top", top_k=50)
    tft.vocabulary(inputs["blob"], vocab_filename="blob")
    tft.vocabulary(inputs["nothing"], vocab_filename="nothing")
    tft.vocabulary(inputs["key"], vocab_filename="key")
    tft.vocabulary(word, vocab_filename="records", file_format="tfrecord_gzip", store_frequency=True)
    return {"size": repeat(tft.experimental.get_vocabulary_size_by_name("often"), inputs)}


def integer_vocabularies(inputs: Inputs) -> dict:
    tft.vocabulary(inputs["n"], vocab_filename="n", store_frequency=True)
    tft.vocabulary(inputs["huge"], vocab_filename="huge", store_frequency=True)
    tft.vocabulary(inputs["label3"], vocab_filename="label3", top_k=2)
    return {
        "n": tft.compute_and_apply_vocabulary(inputs["n"], top_k=20, num_oov_buckets=2),
        "huge": tft.compute_and_apply_vocabulary(inputs["huge"]),
        "counts": tft.compute_and_apply_vocabulary(inputs["counts"], frequency_threshold=30),
        "ragged": tft.compute_and_apply_vocabulary(inputs["ragged_ints"], num_oov_buckets=1),
        "flag": tft.compute_and_apply_vocabulary(inputs["flag"]),
        "n_text": tft.compute_and_apply_vocabulary(tf.strings.as_string(dense(inputs["n"], -99))),
    }


def applied_vocabularies(inputs: Inputs) -> dict:
    apply = tft.compute_and_apply_vocabulary
    return {
        "plain": apply(inputs["word"], vocab_filename="plain"),
        "top": apply(inputs["word"], top_k=5, num_oov_buckets=3),
        "often": apply(inputs["word"], frequency_threshold=30, default_value=-7),
        "bag": apply(inputs["bag"], num_oov_buckets=1),
        "ragged": apply(inputs["ragged_words"], top_k=10),
        "filled": apply(dense(inputs["word"], "missing"), num_oov_buckets=1),
        "dense": apply(inputs["text"], top_k=3),
        "near_unique": apply(inputs["near_unique"], top_k=20, num_oov_buckets=5),
        "blob": apply(inputs["blob"]),
        "nothing": apply(inputs["nothing"], num_oov_buckets=1),
        "split": apply(tf.strings.split(inputs["text"], " ").to_sparse(), top_k=12, num_oov_buckets=1),
    }


def elementwise_tokens(inputs: Inputs) -> dict:
    """Tokens that are elementwise functions of one column."""
    word = inputs["word"]
    apply = tft.compute_and_apply_vocabulary
    filled = dense(word, "missing")
    return {
        "lower": apply(tf.strings.lower(filled), vocab_filename="lower"),
        "strip": apply(tf.strings.strip(filled), vocab_filename="strip"),
        "substr": apply(tf.strings.substr(tf.strings.join([filled, "xyz"]), 0, 3), vocab_filename="substr"),
        "replaced": apply(tf.strings.regex_replace(filled, "[aeiou]", "_"), vocab_filename="replaced", top_k=9),
        "where": apply(tf.where(tf.equal(filled, ""), tf.constant("\x00"), filled), vocab_filename="where"),
        "length": apply(tf.cast(tf.strings.length(filled), tf.int64), vocab_filename="length"),
        "cross": apply(tf.strings.join([filled, inputs["key"]], "\x1f"), vocab_filename="cross", top_k=30),
        "sparse": apply(tf.SparseTensor(word.indices, tf.strings.upper(word.values), word.dense_shape)),
    }


def weighted(inputs: Inputs) -> dict:
    weight = inputs["weight"]
    tft.vocabulary(inputs["text"], vocab_filename="weighted", weights=weight, store_frequency=True)
    tft.vocabulary(inputs["key"], vocab_filename="weighted_top", weights=weight, top_k=3, store_frequency=True)
    tft.vocabulary(inputs["label3"], vocab_filename="weighted_int", weights=weight, store_frequency=True)
    return {"id": tft.compute_and_apply_vocabulary(inputs["key"], weights=weight, frequency_threshold=100)}


def informative(inputs: Inputs) -> dict:
    """Mutual information with weights that are exact in binary, so that the order does not depend on rounding."""
    label = tf.cast(tf.equal(inputs["key"], "k1"), tf.int64) * inputs["label"]
    word, bag = dense(inputs["word"], "none"), inputs["bag"]
    tft.vocabulary(word, vocab_filename="mi", labels=label, min_diff_from_avg=0, store_frequency=True)
    tft.vocabulary(word, vocab_filename="default", labels=label, store_frequency=True)
    tft.vocabulary(word, vocab_filename="top", labels=inputs["label3"], top_k=10, min_diff_from_avg=0)
    tft.vocabulary(
        word, vocab_filename="ami", labels=label, use_adjusted_mutual_info=True, min_diff_from_avg=0, top_k=15
    )
    tft.vocabulary(bag, vocab_filename="bag", labels=inputs["label3"], min_diff_from_avg=0, frequency_threshold=0.5)
    tft.vocabulary(inputs["label3"], vocab_filename="ints", labels=label, min_diff_from_avg=0, store_frequency=True)
    return {"id": tft.compute_and_apply_vocabulary(word, labels=label, top_k=10, num_oov_buckets=1)}


def informative_weighted(inputs: Inputs) -> dict:
    tft.vocabulary(
        inputs["text"],
        vocab_filename="weighted_mi",
        labels=inputs["label"],
        weights=inputs["weight"],
        min_diff_from_avg=0,
        top_k=20,
    )
    return {}


def _first_letter(token: bytes) -> bytes:
    return token[:1]


def _parity(token: bytes) -> int:
    return int(token) % 2


def coverage(inputs: Inputs) -> dict:
    word = inputs["word"]
    tft.vocabulary(
        word, vocab_filename="covered", top_k=3, key_fn=_first_letter, coverage_top_k=2, store_frequency=True
    )
    tft.vocabulary(word, vocab_filename="covered_often", top_k=3, key_fn=_first_letter, coverage_frequency_threshold=60)
    tft.vocabulary(inputs["n"], vocab_filename="covered_ints", top_k=4, key_fn=_parity, coverage_top_k=3)
    tft.vocabulary(
        inputs["text"],
        vocab_filename="covered_weights",
        weights=inputs["weight"],
        top_k=3,
        key_fn=_first_letter,
        coverage_top_k=1,
    )
    return {"id": tft.compute_and_apply_vocabulary(word, top_k=5, key_fn=_first_letter, coverage_top_k=1)}


def shuffled(inputs: Inputs) -> dict:
    tft.vocabulary(inputs["word"], vocab_filename="shuffled", fingerprint_shuffle=True, store_frequency=True)
    tft.vocabulary(inputs["n"], vocab_filename="shuffled_ints", fingerprint_shuffle=True, top_k=9)
    return {"id": tft.compute_and_apply_vocabulary(inputs["bag"], fingerprint_shuffle=True, top_k=30)}


def reserved(inputs: Inputs) -> dict:
    tft.experimental.approximate_vocabulary(
        inputs["key"], 500, vocab_filename="approximate", reserved_tokens=["<pad>"], store_frequency=True
    )
    return {
        "listed": tft.compute_and_apply_vocabulary(inputs["word"], reserved_tokens=["<pad>", "a"], top_k=4),
        "tensor": tft.compute_and_apply_vocabulary(
            inputs["bag"], reserved_tokens=tf.constant(["<s>", "<e>"]), vocab_filename="reserved"
        ),
    }


def approximate(inputs: Inputs) -> dict:
    vocabulary = tft.experimental.approximate_vocabulary
    vocabulary(inputs["word"], 1000, vocab_filename="enough", store_frequency=True)
    vocabulary(inputs["n"], 1000, vocab_filename="enough_ints", store_frequency=True)
    vocabulary(inputs["key"], 1000, vocab_filename="enough_weights", weights=inputs["weight"], store_frequency=True)
    vocabulary(inputs["word"], 500, vocab_filename="records", file_format="tfrecord_gzip")
    return {"id": tft.experimental.compute_and_apply_approximate_vocabulary(inputs["bag"], top_k=1000)}


def texts(inputs: Inputs) -> dict:
    tokens = tf.strings.split(inputs["text"], " ").to_sparse()
    pairs = tft.ngrams(tokens, (1, 2), "_")
    ids = tft.compute_and_apply_vocabulary(tokens, top_k=25, num_oov_buckets=1)
    indices, weights = tft.tfidf(ids, 26)
    _, rough = tft.tfidf(ids, 26, smooth=False)
    return {
        "ngrams": tft.compute_and_apply_vocabulary(pairs, top_k=40, vocab_filename="ngrams"),
        "bag_of_words": tft.bag_of_words(tokens, (1, 2), "_"),
        "words": tft.word_count(tokens),
        "tfidf_ids": indices,
        "tfidf": weights,
        "tfidf_rough": rough,
        "document_frequency": tft.experimental.document_frequency(ids, 26),
        "idf": tft.experimental.idf(ids, 26),
        "deduplicated": tft.deduplicate_tensor_per_row(ids),
    }


def hashes(inputs: Inputs) -> dict:
    return {
        "hash": tft.hash_strings(inputs["text"], 1000),
        "strong": tft.hash_strings(inputs["text"], 1000, key=[123, 456]),
        "sparse": tft.hash_strings(inputs["word"], 10),
        "ragged": tft.hash_strings(inputs["ragged_words"], 10),
        "vocabulary": tft.compute_and_apply_vocabulary(tft.hash_strings(inputs["bag"], 50)),
    }


def _digest(values: np.ndarray) -> np.ndarray:
    made = [hashlib.md5(value).hexdigest()[:2].encode() for value in values.reshape(-1)]
    return np.array(made, object).reshape(values.shape)


def python_functions(inputs: Inputs) -> dict:
    digest = tft.apply_pyfunc(_digest, tf.string, True, "digest", inputs["text"])
    digest.set_shape([None])
    length = tft.apply_pyfunc(lambda x: np.vectorize(len, [np.int64])(x), tf.int64, True, "length", inputs["key"])
    length.set_shape([None])
    return {
        "digest": tft.compute_and_apply_vocabulary(digest, vocab_filename="digests"),
        "length": length,
        "mean": repeat(tft.mean(length), inputs),
    }


def phases(inputs: Inputs) -> dict:
    """Four phases: each analyzes a result of the one before."""
    x = inputs["x_dense"]
    centred = x - tft.mean(x)
    scaled = centred / tft.max(tf.abs(centred))
    bucket = tft.bucketize(scaled, 6)
    word = tft.compute_and_apply_vocabulary(dense(inputs["word"], "none"), top_k=20, num_oov_buckets=1)
    crossed = tf.strings.join([tf.strings.as_string(tf.cast(scaled * 3, tf.int64)), tf.strings.as_string(word)], ":")
    cross = tft.compute_and_apply_vocabulary(crossed, top_k=30, vocab_filename="cross")
    return {
        "scaled": scaled,
        "bucket": bucket,
        "word_z": tft.scale_to_z_score(word),
        "cross": cross,
        "cross_mean": repeat(tft.mean(cross), inputs),
        "buckets": repeat(tft.get_num_buckets_for_transformed_feature(bucket), inputs),
    }


def joint_vocabulary(inputs: Inputs) -> dict:
    word, bag = inputs["word"], inputs["bag"]
    both = tf.concat([word.values, bag.values, tf.constant(["always"])], 0)
    file = tft.vocabulary(both, vocab_filename="joint", top_k=40)
    ids = tft.apply_vocabulary(bag, file, num_oov_buckets=1)
    return {"word": tft.apply_vocabulary(word, file), "bag": ids, "z": tft.scale_to_z_score(tf.cast(ids, tf.float32))}


def composite_tensors(inputs: Inputs) -> dict:
    sparse, ragged = inputs["sparse"], inputs["ragged_ints"]
    tft.experimental.annotate_sparse_output_shape(sparse, [20])
    return {
        "sparse": sparse,
        "sparse_mean": repeat(tft.mean(sparse), inputs),
        "sparse_size": repeat(tft.size(sparse), inputs),
        "sparse_bucket": tft.bucketize(sparse, 4),
        "ragged": ragged,
        "ragged_z": tft.scale_to_z_score(ragged),
        "ragged_rank2": tf.ragged.map_flat_values(tf.square, inputs["ragged_floats"]),
        "left": tft.sparse_tensor_left_align(inputs["bag"]),
        "padded": tft.sparse_tensor_to_dense_with_shape(inputs["x"], [None, 1], default_value=-1.0),
        "keys": repeat_joined(tft.count_per_key(inputs["ragged_words"].flat_values)[0], inputs),
    }


CASES = [
    Case(function.__name__, function)
    for function in (
        vocabularies,
        integer_vocabularies,
        applied_vocabularies,
        elementwise_tokens,
        weighted,
        informative,
        informative_weighted,
        coverage,
        shuffled,
        reserved,
        approximate,
        texts,
        hashes,
        python_functions,
        phases,
        joint_vocabulary,
        composite_tensors,
    )
]
