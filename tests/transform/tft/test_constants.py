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


def ops_of(*make: Callable[[], tf.Tensor]) -> list[str]:
    """The names of the constants that are made, in a new graph."""
    with private.FuncGraph("f").as_default():
        return [constant().op.name for constant in make]


@pytest.mark.parametrize("value", [3, -0.5, True, "a", b"\xff", [1, 2], (1.0, 2.0), []])
def test_a_plain_value_is_made_once(value: object):
    assert len(set(ops_of(*[lambda: tf.constant(value)] * 3))) == 1


def test_what_differs_stays_apart():
    values = [0, 0.0, -0.0, False, "0", b"1", "1 ", [0], [0, 0], [0.0], (1,), 1, np.int64(1), np.float32(1)]
    made = [lambda value=value: tf.constant(value) for value in values]
    made += [lambda: tf.constant(0, tf.int64), lambda: tf.constant(0, shape=[2]), lambda: tf.constant(0, name="zero")]
    names = ops_of(*made)
    assert len(set(names)) == len(made)


def test_values_that_are_no_plain_ones_are_made_each_time():
    for value in (np.zeros(2), [np.int64(1)], [[1, 2], [3, 4]], tf.constant([1, 2]).numpy()):
        assert len(set(ops_of(*[lambda value=value: tf.constant(value)] * 2))) == 2


def test_what_waits_or_has_a_place_is_made_for_itself():
    def waiting() -> tf.Tensor:
        with tf.control_dependencies([tf.no_op()]):
            return tf.constant(1)

    def placed() -> tf.Tensor:
        with tf.device("/CPU:0"):
            return tf.constant(1)

    assert len(set(ops_of(lambda: tf.constant(1), waiting, waiting, placed, placed, lambda: tf.constant(1)))) == 5


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
