"""Preprocessing functions drawn at random, out of what is computed row by row and what is not."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from hypothesis import strategies as st

from tests.transform.apply.graphs import Function, Tables

_FILLS = {"s": ["", "a", "?"], "n": [0, -1, 2**62], "f": [0.0, -2.5]}
_CONSTANTS = ["", "a", "B", "12", "not there", "\x00"]


def _dense(x: tf.SparseTensor, values: tf.Tensor, fill: object, way: int) -> tf.Tensor:
    """One value a row: the ways in which users write it."""
    fill = tf.constant(fill, values.dtype)
    if way == 0:
        return tf.sparse.to_dense(tf.SparseTensor(x.indices, values, x.dense_shape), fill)[:, 0]
    rows = tf.stack([x.dense_shape[0], tf.constant(1, tf.int64)])
    full = tf.sparse.to_dense(tf.SparseTensor(x.indices, values, rows), fill)
    return tf.squeeze(full, axis=1) if way == 1 else tf.reshape(full, [-1])


def _strings() -> list[Callable]:
    """From a string tensor to one of the same length."""
    return [
        lambda x, p, t: tf.where(tf.equal(x, p[0]), tf.constant(p[1]), x),
        lambda x, p, t: tf.where(tf.not_equal(x, p[0]), x, tf.constant(p[1])),
        lambda x, p, t: tf.strings.lower(x),
        lambda x, p, t: tf.strings.strip(x),
        lambda x, p, t: tf.strings.join([x, tf.constant(p[0])], separator="-"),
        lambda x, p, t: tf.strings.regex_replace(x, "[ab]", p[1]),
        lambda x, p, t: tf.identity(x),
    ]


def _ids() -> list[Callable]:
    """From a string tensor to int64 of the same length."""
    return [
        lambda x, p, t: t.lookup(x, 0),
        lambda x, p, t: t.lookup(x, 1),
        lambda x, p, t: t.lookup(x, 3),
        lambda x, p, t: t.lookup(x, 1) * 3 - t.lookup(x, 0),
        lambda x, p, t: tf.strings.to_hash_bucket_fast(x, 1),
        lambda x, p, t: tf.strings.to_hash_bucket_fast(x, 97),
        lambda x, p, t: tf.cast(tf.equal(x, p[0]), tf.int64),
        lambda x, p, t: tf.cast(tf.strings.length(x), tf.int64),
        lambda x, p, t: tf.where(tf.equal(x, p[0]), tf.constant(4, tf.int64), t.lookup(x, 0)),
        lambda x, p, t: tf.where(
            tf.equal(x, tf.strings.lower(x)), tf.constant(1, tf.int64), tf.strings.to_hash_bucket_strong(x, 9, [1, 2])
        ),
    ]


def _of_numbers() -> list[Callable]:
    """From an int64 tensor to one of the same length."""
    return [
        lambda x, p, t: x + 3,
        lambda x, p, t: x // 7,
        lambda x, p, t: x % 5,
        lambda x, p, t: tf.abs(x) - x * 2,
        lambda x, p, t: tf.where(x > 12, x, tf.constant(12, tf.int64)),
        lambda x, p, t: tf.where(tf.equal(x, 5), tf.constant(-3, tf.int64), x),
        lambda x, p, t: t.lookup_number(x),
        lambda x, p, t: t.lookup(tf.strings.as_string(x), 0),
        lambda x, p, t: tf.strings.to_hash_bucket_fast(tf.strings.as_string(x), 11),
        lambda x, p, t: tf.searchsorted(tf.constant([-5, 0, 9, 2**40], tf.int64), x, out_type=tf.int64),
        lambda x, p, t: tf.cast(tf.cast(x, tf.float64) * 0.37, tf.int64),
    ]


def _of_floats() -> list[Callable]:
    """From a float32 tensor to one of the same length. All are rounded correctly, so that each bit can be compared."""
    return [
        lambda x, p, t: x * 3.1 - 1.0,
        lambda x, p, t: tf.math.divide_no_nan(x - 1.5, tf.constant(0.0)),
        lambda x, p, t: tf.floor(x) / 3.0,
        lambda x, p, t: tf.clip_by_value(x, -1.0, 2.0),
        lambda x, p, t: tf.where(x > 0, tf.sqrt(tf.abs(x)), tf.zeros_like(x)),
        lambda x, p, t: tf.cast(tf.searchsorted([0.0, 1.0, 2.5], x), tf.float32),
    ]


def _of_batches() -> list[Callable]:
    """From int64 with one value a row to the same, where a value depends on other rows."""
    return [
        lambda x: x + tf.cast(tf.reduce_mean(tf.cast(x, tf.float64)), tf.int64),
        lambda x: tf.cumsum(x),
        lambda x: tf.reverse(x, [0]),
        lambda x: tf.cast(tf.unique(x).idx, tf.int64),
        lambda x: tf.sort(x),
        lambda x: x + tf.size(x, tf.int64),
        lambda x: x - tf.reduce_max(tf.concat([x, tf.zeros([1], tf.int64)], 0)),
        lambda x: tf.gather(x, tf.zeros_like(x)),
        lambda x: tf.argsort(x, stable=True),
        lambda x: tf.reduce_sum(tf.cast(tf.equal(x[:, None], x), tf.int64), axis=1),
        lambda x: tf.scan(lambda before, now: before + now, x),
    ]


@st.composite
def functions(draw: st.DrawFn) -> Function:
    """A function of the columns of `graphs.COLUMNS` with a dozen outputs."""

    def one_of(choices: list) -> Callable:
        return draw(st.sampled_from(choices))

    def words() -> tuple[str, str]:
        return draw(st.sampled_from(_CONSTANTS)), draw(st.sampled_from(_CONSTANTS))

    def chain(choices: list, most: int) -> list[tuple[Callable, tuple]]:
        return [(one_of(choices), words()) for _ in range(draw(st.integers(0, most)))]

    def plan() -> tuple:
        kind = draw(st.sampled_from(["string", "string", "string", "int", "int", "float", "cross", "ids"]))
        fill = {k: draw(st.sampled_from(v)) for k, v in _FILLS.items()}
        return (
            kind,
            draw(st.sampled_from(["s", "t"])),
            draw(st.sampled_from(["n", "m"])),
            fill,
            draw(st.integers(0, 2)),
            chain(_strings(), 2),
            chain(_strings(), 2),
            (one_of(_ids()), words()),
            chain(_of_numbers(), 2),
            chain(_of_numbers(), 2),
            chain(_of_floats(), 2),
            chain(_of_floats(), 2),
            one_of(_of_batches()) if draw(st.integers(0, 3)) == 0 else None,
        )

    plans = [plan() for _ in range(draw(st.integers(1, 12)))]

    def function(inputs: dict[str, tf.SparseTensor], tables: Tables) -> dict[str, tf.Tensor]:
        return {f"x{number}": _output(plan, inputs, tables) for number, plan in enumerate(plans)}

    return function


def _output(plan: tuple, inputs: dict[str, tf.SparseTensor], tables: Tables) -> tf.Tensor:
    kind, text, number, fill, way, before, after, (ids, words), low, high, early, late, batch = plan

    def apply(x: tf.Tensor, steps: list) -> tf.Tensor:
        for step, parameters in steps:
            x = step(x, parameters, tables)
        return x

    def string(name: str) -> tf.Tensor:
        x = inputs[name]
        return apply(_dense(x, apply(x.values, before), fill["s"], way), after)

    def integer(name: str) -> tf.Tensor:
        x = inputs[name]
        return apply(_dense(x, apply(x.values, low), fill["n"], way), high)

    if kind == "string":
        result = ids(string(text), words, tables)
    elif kind == "ids":
        # The lookup comes before the rows without a value are filled.
        x = inputs[text]
        result = apply(_dense(x, ids(apply(x.values, before), words, tables), fill["n"], way), high)
    elif kind == "int":
        result = integer(number)
    elif kind == "cross":
        keys = tf.strings.join([string(text), tf.strings.as_string(integer(number))], separator="_")
        result = tf.strings.to_hash_bucket_fast(keys, 53) + integer("m") % 3
    else:
        x = inputs["f"]
        floats = apply(_dense(x, apply(x.values, early), fill["f"], way), late)
        return floats if batch is None else floats - tf.reduce_sum(floats)
    # What an id may be is bounded, and below it none is lost.
    return tf.math.floormod(result if batch is None else batch(result), 2**31 - 3)
