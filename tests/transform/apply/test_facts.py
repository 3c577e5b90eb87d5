"""Facts about tensors: which depend only on the row's own values, and which do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tensorflow as tf

from tests.transform.apply.graphs import COLUMNS, TF_DTYPES
from tidemill.transform.apply.facts import ROWS, Elements, Facts, Level

pytestmark = pytest.mark.tensorflow


def dense(x: tf.SparseTensor, fill: object, values: tf.Tensor | None = None) -> tf.Tensor:
    """Converts a column to one value per row, as TFX's examples do."""
    values = x.values if values is None else values
    fixed = tf.SparseTensor(x.indices, values, [x.dense_shape[0], 1])
    return tf.squeeze(tf.sparse.to_dense(fixed, default_value=fill), axis=1)


def joined_columns(i: dict) -> tf.Tensor:
    return tf.strings.join([dense(i["s"], ""), dense(i["t"], "")], separator="_")


ROWWISE = {
    "raw": (lambda i: dense(i["s"], "?"), Level.RAW, "s"),
    "raw, equal": (lambda i: tf.where(tf.equal(dense(i["s"], ""), "a"), "b", dense(i["s"], "")), Level.RAW, "s"),
    "digits": (lambda i: dense(i["n"], "", tf.strings.as_string(i["n"].values)), Level.RAW, "n"),
    "one of two": (lambda i: tf.where(tf.equal(dense(i["s"], ""), "a"), 1, 2), Level.FINITE, "s"),
    "not equal": (lambda i: tf.cast(tf.not_equal(dense(i["n"], 0), 3), tf.float32) * 2 + 1, Level.FINITE, "n"),
    "one bucket": (lambda i: tf.strings.to_hash_bucket_fast(tf.strings.lower(dense(i["s"], "")), 1), Level.FINITE, "s"),
    "many buckets": (lambda i: tf.strings.to_hash_bucket_fast(dense(i["s"], ""), 9), Level.ANY, "s"),
    "lower": (lambda i: tf.strings.lower(dense(i["s"], "")), Level.ANY, "s"),
    "itself": (lambda i: tf.equal(dense(i["s"], ""), dense(i["s"], "a")), Level.ANY, "s"),
    "less": (lambda i: tf.less(dense(i["n"], 0), 3), Level.ANY, "n"),
    "numbers": (lambda i: tf.math.log1p(tf.cast(dense(i["n"], 0), tf.float32)) / 3 - [[1.0]][0], Level.ANY, "n"),
    "buckets": (lambda i: tf.searchsorted([1.0, 5.0], dense(i["f"], 0.0)), Level.ANY, "f"),
    "with zeros": (lambda i: dense(i["f"], 0.0) + tf.zeros_like(dense(i["f"], 0.0)), Level.ANY, "f"),
    "filled": (lambda i: dense(i["f"], 0.0) + tf.fill([tf.shape(dense(i["s"], ""))[0]], 1.0), Level.ANY, "f"),
    "to_dense": (lambda i: tf.sparse.to_dense(i["n"], 7)[:, 0], Level.RAW, "n"),
    "two columns": (joined_columns, Level.ANY, "st"),
    "gathered": (lambda i: tf.gather([1.0, 2.0], tf.where(tf.equal(dense(i["s"], ""), "a"), 0, 1)), Level.FINITE, "s"),
    "cast shape": (
        lambda i: tf.cast(tf.fill([tf.cast(i["n"].dense_shape[0], tf.int32)], 2.0), tf.int64) + dense(i["n"], 0),
        Level.ANY,
        "n",
    ),
    "row vector": (lambda i: tf.squeeze(tf.expand_dims(dense(i["n"], 0), 0), 0), Level.RAW, "n"),
    "constant": (lambda i: tf.ones_like(dense(i["n"], 0)), Level.FINITE, "n"),
}

UNKNOWN = {
    "sorted by a column": lambda i: tf.searchsorted(dense(i["f"], 0.0), dense(i["f"], 1.0)),
    "rows of a matrix": lambda i: tf.gather([[1.0], [2.0]], tf.where(tf.equal(dense(i["s"], ""), "a"), 0, 1))[:, 0],
    "squeezed rows": lambda i: tf.squeeze(dense(i["n"], 0)[:, None], axis=0),
    "every second": lambda i: dense(i["n"], 0)[::2],
    "filled with a sum": lambda i: dense(i["f"], 0.0) + tf.fill([i["f"].dense_shape[0]], tf.reduce_sum(i["f"].values)),
    "pattern of a column": lambda i: tf.raw_ops.RegexReplace(input="a", pattern=dense(i["s"], "")[0], rewrite="b"),
    "mean": lambda i: dense(i["f"], 0.0) - tf.reduce_mean(dense(i["f"], 0.0)),
    "max": lambda i: dense(i["n"], 0) - tf.reduce_max(i["n"].values),
    "cumsum": lambda i: tf.cumsum(dense(i["n"], 0)),
    "reverse": lambda i: tf.reverse(dense(i["s"], ""), [0]),
    "reversed values": lambda i: dense(i["s"], "", tf.reverse(i["s"].values, [0])),
    "unique": lambda i: tf.unique(dense(i["s"], "")).idx,
    "sorted": lambda i: tf.sort(dense(i["f"], 0.0)),
    "first": lambda i: dense(i["n"], 0) + dense(i["n"], 0)[0],
    "first by gather": lambda i: tf.gather(dense(i["n"], 0), tf.zeros_like(dense(i["n"], 0))),
    "size": lambda i: dense(i["n"], 0) + tf.size(dense(i["n"], 0), tf.int64),
    "rows": lambda i: dense(i["n"], 0) + i["n"].dense_shape[0],
    "rank": lambda i: tf.argsort(dense(i["n"], 0)),
    "all pairs": lambda i: tf.reduce_sum(dense(i["n"], 0)[:, None] * dense(i["n"], 0), axis=1),
    "pairs of two shapes": lambda i: (tf.sparse.to_dense(i["n"]) * dense(i["n"], 0))[:, 0],
    "values of another column": lambda i: dense(i["s"], "", tf.gather(i["t"].values, tf.range(tf.size(i["s"].values)))),
    "values and rows": lambda i: dense(i["n"], 0) + i["n"].values,
    "values of two columns": lambda i: dense(i["s"], "", tf.strings.join([i["s"].values, i["t"].values])),
    "no axis": lambda i: tf.squeeze(tf.sparse.to_dense(i["n"])),
    "broadcast of a vector": lambda i: dense(i["n"], 0) + tf.constant([1, 2], tf.int64),
    "shuffled": lambda i: tf.random.shuffle(dense(i["n"], 0)),
    "noise": lambda i: dense(i["f"], 0.0) + tf.random.uniform(tf.shape(dense(i["f"], 0.0))),
    "stateless noise": lambda i: dense(i["f"], 0.0) + tf.random.stateless_uniform(tf.shape(dense(i["f"], 0.0)), [1, 2]),
    "python": lambda i: tf.py_function(lambda x: x, [dense(i["n"], 0)], tf.int64),
    "the width": lambda i: dense(i["n"], 0) + i["n"].dense_shape[1],
    "positions": lambda i: i["n"].indices[:, 0],
    "a format": lambda i: tf.strings.to_hash_bucket_fast(
        tf.fill([i["s"].dense_shape[0]], tf.strings.format("{}", i["s"].values)), 9
    ),
    "two loops": lambda i: tf.map_fn(lambda x: x + 1, dense(i["n"], 0)),
}


def fact(function: Callable[[dict], tf.Tensor], is_width_one: bool = True) -> object:
    """Returns the fact about the output of a function of the columns."""
    specs = {c.name: tf.SparseTensorSpec([None, None], TF_DTYPES[c.dtype]) for c in COLUMNS}
    graph = tf.function(function, input_signature=[specs], autograph=False).get_concrete_function().graph
    (inputs,), _ = graph.structured_input_signature
    flat = tf.nest.pack_sequence_as(inputs, graph.inputs, expand_composites=True)
    (output,) = graph.outputs
    return Facts(graph, flat, is_width_one).of(output)


@pytest.mark.parametrize(("function", "level", "columns"), ROWWISE.values(), ids=ROWWISE)
def test_row_by_row_functions_are_recognized(function: Callable, level: Level, columns: str):
    elements = fact(function)
    assert isinstance(elements, Elements)
    assert (elements.stream, elements.columns, elements.shape) == (ROWS, frozenset(columns), ("length",))
    assert elements.level is level or len(columns) > 1


@pytest.mark.parametrize("function", UNKNOWN.values(), ids=UNKNOWN)
def test_other_functions_are_not_recognized(function: Callable):
    assert not isinstance(fact(function), Elements)


def test_to_dense_is_not_recognized_for_batches_of_unknown_width():
    """TFX reads a batch without values as `[rows, 0]`, and `to_dense` keeps that shape."""
    to_dense, fixed = ROWWISE["to_dense"][0], ROWWISE["raw"][0]
    assert isinstance(fact(to_dense), Elements)
    assert fact(to_dense, is_width_one=False) is None
    assert isinstance(fact(fixed, is_width_one=False), Elements)


def test_function_with_an_assertion_is_not_recognized():
    def function(i: dict) -> tf.Tensor:
        with tf.control_dependencies([tf.debugging.assert_non_negative(i["n"].values)]):
            return tf.identity(dense(i["n"], 0))

    assert fact(function) is None


def test_facts_say_whether_a_function_may_fail():
    def total(function: Callable) -> bool:
        elements = fact(function)
        assert isinstance(elements, Elements)
        return elements.is_total

    assert not total(lambda i: tf.strings.to_number(dense(i["s"], "0")))
    assert not total(lambda i: 7 // dense(i["n"], 1))
    assert not total(lambda i: tf.gather([1, 2], dense(i["n"], 1)))
    assert total(lambda i: dense(i["n"], 1) // 7)
    assert total(lambda i: tf.cast(dense(i["n"], 1), tf.float32) / 0.0)
