"""Which constants of a graph are one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.transform.tft.bound import SPECS, batch
from tidemill.transform.tft import Trace, constants, private


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    original = private.OPS._create_graph_constant
    monkeypatch.setattr(private.OPS, "_create_graph_constant", constants.sharing(original))


def made(value: object, dtype: tf.DType | None = None, shape: list[int] | None = None, name: str = "x") -> tf.Tensor:
    """A constant as an op makes it of an argument."""
    return tf.constant(value, dtype, shape, name)


def ops_of(*make: Callable[[], tf.Tensor]) -> list[str]:
    """The names of the constants that are made, in a new graph."""
    with private.FuncGraph("f").as_default():
        return [constant().op.name for constant in make]


@pytest.mark.parametrize("value", [3, -0.5, True, "a", b"\xff", [1, 2], (1.0, 2.0), []])
def test_a_plain_value_is_made_once(value: object):
    assert len(set(ops_of(*[lambda: made(value)] * 3))) == 1


def test_what_differs_stays_apart():
    values = [0, 0.0, -0.0, False, "0", b"1", "1 ", [0], [0, 0], [0.0], (1,), 1, np.int64(1), np.float32(1)]
    make = [lambda value=value: made(value) for value in values]
    make += [lambda: made(0, tf.int64), lambda: made(0, shape=[2]), lambda: made(0, name="y")]
    assert len(set(ops_of(*make))) == len(make)


def test_values_that_are_no_plain_ones_are_made_each_time():
    for value in (np.zeros(2), [np.int64(1)], [[1, 2], [3, 4]], tf.constant([1, 2]).numpy()):
        assert len(set(ops_of(*[lambda value=value: made(value)] * 2))) == 2


def test_what_waits_or_has_a_place_is_made_for_itself():
    def waiting() -> tf.Tensor:
        with tf.control_dependencies([tf.no_op()]):
            return made(1)

    def placed() -> tf.Tensor:
        with tf.device("/CPU:0"):
            return made(1)

    assert len(set(ops_of(lambda: made(1), waiting, waiting, placed, placed, lambda: made(1)))) == 5


def test_who_asks_for_a_constant_gets_one():
    make = [lambda: tf.constant(2.0), lambda: tf.convert_to_tensor(2.0)] * 2
    assert len(set(ops_of(*make))) == 4

    @tf.function(autograph=False)
    def slope() -> tf.Tensor:
        a, b = tf.constant(2.0), tf.constant(2.0)
        return tf.gradients(a * b * 3.0, a)[0]

    assert slope().numpy() == 6.0


def test_branches_and_loops_have_their_own(tmp_path: Path):
    def function(inputs: dict) -> dict:
        x = inputs["x"]
        more = tf.cond(tf.reduce_sum(x) > 1.0, lambda: x + 1.0, lambda: x - 1.0)
        _, twice = tf.while_loop(lambda n, _: n < 3, lambda n, y: (n + 1, y * 2.0), (0, more * 2.0 + 1.0))
        return {"y": twice}

    trace = Trace(function, SPECS, tmp_path)
    (found,) = trace.function([trace.outputs["y"]])({"x": tf.constant([1.0, 2.0])})
    assert found.numpy().tolist() == [40.0, 56.0]


def test_columns_that_are_treated_alike_share_their_constants(tmp_path: Path):
    def function(inputs: dict) -> dict:
        return {f"{k}": tf.clip_by_value(inputs["x"][:, tf.newaxis] * 7.0, 0.0, float(k)) for k in range(1, 9)}

    trace = Trace(function, SPECS, tmp_path)
    values = [op.get_attr("value").SerializeToString() for op in trace.graph.get_operations() if op.type == "Const"]
    assert len(values) < 20
    x = batch(5)["x"]
    found = trace.function([trace.outputs["2"], trace.outputs["8"]])({"x": x})
    for value, most in zip(found, (2.0, 8.0), strict=True):
        np.testing.assert_array_equal(value.numpy()[:, 0], np.clip(x.numpy() * np.float32(7), 0, most))
