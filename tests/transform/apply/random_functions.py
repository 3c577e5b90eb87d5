"""A Hypothesis strategy for functions of the columns, of steps that work row by row and steps that do not."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from hypothesis import strategies as st

from tests.transform.apply.graphs import Function, Tables

_FILLS = {"s": ["", "a", "?"], "n": [0, -1, 2**62], "f": [0.0, -2.5]}
_CONSTANTS = ["", "a", "B", "12", "not there", "\x00"]


def _dense(x: tf.SparseTensor, values: tf.Tensor, fill: object, style: int) -> tf.Tensor:
    """Converts a column to one value per row, in one of three styles that users write."""
    fill = tf.constant(fill, values.dtype)
    if style == 0:
        return tf.sparse.to_dense(tf.SparseTensor(x.indices, values, x.dense_shape), fill)[:, 0]
    rows = tf.stack([x.dense_shape[0], tf.constant(1, tf.int64)])
    full = tf.sparse.to_dense(tf.SparseTensor(x.indices, values, rows), fill)
    return tf.squeeze(full, axis=1) if style == 1 else tf.reshape(full, [-1])


def _string_steps() -> list[Callable]:
    """Returns functions from a string tensor to one of the same length."""
    return [
        lambda x, p, t: tf.where(tf.equal(x, p[0]), tf.constant(p[1]), x),
        lambda x, p, t: tf.where(tf.not_equal(x, p[0]), x, tf.constant(p[1])),
        lambda x, p, t: tf.strings.lower(x),
        lambda x, p, t: tf.strings.strip(x),
        lambda x, p, t: tf.strings.join([x, tf.constant(p[0])], separator="-"),
        lambda x, p, t: tf.strings.regex_replace(x, "[ab]", p[1]),
        lambda x, p, t: tf.identity(x),
    ]


def _id_steps() -> list[Callable]:
    """Returns functions from a string tensor to an int64 tensor of the same length."""
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


def _integer_steps() -> list[Callable]:
    """Returns functions from an int64 tensor to one of the same length."""
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


def _float_steps() -> list[Callable]:
    """Returns functions from a float32 tensor to one of the same length.

    All are rounded correctly, so that each bit can be compared.
    """
    return [
        lambda x, p, t: x * 3.1 - 1.0,
        lambda x, p, t: tf.math.divide_no_nan(x - 1.5, tf.constant(0.0)),
        lambda x, p, t: tf.floor(x) / 3.0,
        lambda x, p, t: tf.clip_by_value(x, -1.0, 2.0),
        lambda x, p, t: tf.where(x > 0, tf.sqrt(tf.abs(x)), tf.zeros_like(x)),
        lambda x, p, t: tf.cast(tf.searchsorted([0.0, 1.0, 2.5], x), tf.float32),
    ]


def _batch_steps() -> list[Callable]:
    """Returns functions from an int64 per row to another, which depends on the other rows of the batch."""
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
    """Draws a function of the columns of `graphs.COLUMNS` with up to a dozen outputs."""

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
            chain(_string_steps(), 2),
            chain(_string_steps(), 2),
            (one_of(_id_steps()), words()),
            chain(_integer_steps(), 2),
            chain(_integer_steps(), 2),
            chain(_float_steps(), 2),
            chain(_float_steps(), 2),
            one_of(_batch_steps()) if draw(st.integers(0, 3)) == 0 else None,
        )

    plans = [plan() for _ in range(draw(st.integers(1, 12)))]

    def function(inputs: dict[str, tf.SparseTensor], tables: Tables) -> dict[str, tf.Tensor]:
        return {f"x{number}": _output(plan, inputs, tables) for number, plan in enumerate(plans)}

    return function


def _output(plan: tuple, inputs: dict[str, tf.SparseTensor], tables: Tables) -> tf.Tensor:
    (kind, text, number, fill, style, strings_before, strings_after, (to_ids, words), integers_before, integers_after,
     floats_before, floats_after, batch_step) = plan  # fmt: skip

    def apply(x: tf.Tensor, steps: list) -> tf.Tensor:
        for step, parameters in steps:
            x = step(x, parameters, tables)
        return x

    def string(name: str) -> tf.Tensor:
        x = inputs[name]
        return apply(_dense(x, apply(x.values, strings_before), fill["s"], style), strings_after)

    def integer(name: str) -> tf.Tensor:
        x = inputs[name]
        return apply(_dense(x, apply(x.values, integers_before), fill["n"], style), integers_after)

    if kind == "string":
        result = to_ids(string(text), words, tables)
    elif kind == "ids":
        # The lookup comes before the rows without a value are filled.
        x = inputs[text]
        ids = to_ids(apply(x.values, strings_before), words, tables)
        result = apply(_dense(x, ids, fill["n"], style), integers_after)
    elif kind == "int":
        result = integer(number)
    elif kind == "cross":
        keys = tf.strings.join([string(text), tf.strings.as_string(integer(number))], separator="_")
        result = tf.strings.to_hash_bucket_fast(keys, 53) + integer("m") % 3
    else:
        x = inputs["f"]
        floats = apply(_dense(x, apply(x.values, floats_before), fill["f"], style), floats_after)
        return floats if batch_step is None else floats - tf.reduce_sum(floats)
    # Ids have to be in the domain that `graphs.write_graph` declares.
    return tf.math.floormod(result if batch_step is None else batch_step(result), 2**31 - 3)
