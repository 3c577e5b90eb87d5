"""Parts of a graph as functions: made of the ops where they are, and of a copy where they cannot be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from tidemill.transform.tft import private


def traced(function: Callable[..., dict[str, tf.Tensor]]) -> private.FuncGraph:
    """The graph of a function of one vector, whose tensors are known by their ops' names."""
    return tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([None], tf.float32, "x")).graph


def run(graph: private.FuncGraph, feeds: list[str], fetches: list[str], *values: object) -> list[np.ndarray]:
    tensors = [[graph.get_tensor_by_name(name) for name in names] for names in (feeds, fetches)]
    return [value.numpy() for value in private.Section(graph, *tensors)([tf.constant(value) for value in values])]


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows with each copy that is made."""
    made, prune = [], private.prune
    monkeypatch.setattr(private, "prune", lambda *arguments: (made.append(None), prune(*arguments))[1])
    return made


def test_ops_are_taken_where_they_are(copies: list[None]):
    weight = tf.constant([2.0, 3.0])

    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.identity(tf.add(x * weight, 1.0, name="sum") - 5.0, name="out")

    graph = traced(function)
    assert run(graph, ["x:0"], ["out:0"], [1.0, 1.0])[0].tolist() == [-2.0, -1.0]
    # Cut inside, with a fetch that is fed, and one twice.
    found = run(graph, ["sum:0"], ["out:0", "sum:0", "out:0"], [7.0, 8.0])
    assert [value.tolist() for value in found] == [[2.0, 3.0], [7.0, 8.0], [2.0, 3.0]]
    assert copies == []


def test_functions_inside_are_called(copies: list[None]):
    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.identity(tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: -x), name="out")

    graph = traced(function)
    assert run(graph, ["x:0"], ["out:0"], [1.0])[0].tolist() == [2.0]
    assert run(graph, ["x:0"], ["out:0"], [-4.0])[0].tolist() == [4.0]


def test_what_waits_for_an_op_whose_result_is_fed_is_copied(copies: list[None]):
    def function(x: tf.Tensor) -> tf.Tensor:
        middle = tf.add(x, 1.0, name="middle")
        with tf.control_dependencies([middle]):
            return tf.multiply(middle, 2.0, name="out")

    assert run(traced(function), ["x:0", "middle:0"], ["out:0"], [0.0], [4.0])[0].tolist() == [8.0]
    assert len(copies) == 1


def test_an_op_of_which_one_output_is_fed_is_copied(copies: list[None]):
    def function(x: tf.Tensor) -> tf.Tensor:
        values, indices = tf.nn.top_k(x, 2, name="top")
        return tf.add(values, tf.cast(indices, tf.float32), name="out")

    graph = traced(function)
    (values,) = [name for name in (t.name for t in graph.get_operation_by_name("top").outputs) if name.endswith(":0")]
    found = run(graph, ["x:0", values], ["out:0"], [5.0, 9.0, 7.0], [100.0, 200.0])
    assert found[0].tolist() == [101.0, 202.0]
    assert len(copies) == 1


def test_tensorflow_forgets_a_section_with_it():
    graph = traced(lambda x: tf.identity(x, name="out"))
    section = private.Section(graph, graph.inputs, [graph.get_tensor_by_name("out:0")])
    name = section._name
    assert context.context().has_function(name)
    del section
    assert not context.context().has_function(name)


def test_a_division_by_a_constant_is_rounded_as_a_saved_model_rounds_it(tmp_path):
    """Grappler makes it a product with the inverse; -5 / 3 is one of the numbers for which this is not the same."""

    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.divide(x, 3.0, name="out")

    x = np.arange(-50, 50, dtype=np.float32)
    module = tf.Module()
    module.f = tf.function(function, autograph=False, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(tmp_path))
    served = tf.saved_model.load(str(tmp_path)).f(tf.constant(x)).numpy()
    assert (served != x / np.float32(3)).any()
    np.testing.assert_array_equal(run(traced(function), ["x:0"], ["out:0"], x)[0], served)
