"""Subgraphs as functions: of the graph's own ops if possible, otherwise of a copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import context

from tidemill.transform.tft import subgraph
from tidemill.transform.tft.private import FuncGraph
from tidemill.transform.tft.subgraph import Subgraph

pytestmark = pytest.mark.tensorflow


def traced(function: Callable[..., dict[str, tf.Tensor]]) -> FuncGraph:
    """Returns the graph of a function of one vector. Tests find its tensors by name."""
    return tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([None], tf.float32, "x")).graph


def run(graph: FuncGraph, feeds: list[str], fetches: list[str], *values: object) -> list[np.ndarray]:
    tensors = [[graph.get_tensor_by_name(name) for name in names] for names in (feeds, fetches)]
    return [value.numpy() for value in Subgraph(graph, *tensors)([tf.constant(value) for value in values])]


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Returns a list that grows with each copy of a graph."""
    made, prune = [], subgraph.prune
    monkeypatch.setattr(subgraph, "prune", lambda *arguments: (made.append(None), prune(*arguments))[1])
    return made


def test_uses_the_graphs_own_ops(copies: list[None]):
    weight = tf.constant([2.0, 3.0])

    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.identity(tf.add(x * weight, 1.0, name="sum") - 5.0, name="out")

    graph = traced(function)
    assert run(graph, ["x:0"], ["out:0"], [1.0, 1.0])[0].tolist() == [-2.0, -1.0]
    # Starts at an inner tensor; one fetch is fed, and one is fetched twice.
    results = run(graph, ["sum:0"], ["out:0", "sum:0", "out:0"], [7.0, 8.0])
    assert [value.tolist() for value in results] == [[2.0, 3.0], [7.0, 8.0], [2.0, 3.0]]
    assert copies == []


def test_calls_functions_in_the_graph(copies: list[None]):
    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.identity(tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: -x), name="out")

    graph = traced(function)
    assert run(graph, ["x:0"], ["out:0"], [1.0])[0].tolist() == [2.0]
    assert run(graph, ["x:0"], ["out:0"], [-4.0])[0].tolist() == [4.0]


def test_copies_ops_that_wait_for_an_op_whose_result_is_fed(copies: list[None]):
    def function(x: tf.Tensor) -> tf.Tensor:
        middle = tf.add(x, 1.0, name="middle")
        with tf.control_dependencies([middle]):
            return tf.multiply(middle, 2.0, name="out")

    assert run(traced(function), ["x:0", "middle:0"], ["out:0"], [0.0], [4.0])[0].tolist() == [8.0]
    assert len(copies) == 1


def test_copies_an_op_of_which_only_one_output_is_fed(copies: list[None]):
    def function(x: tf.Tensor) -> tf.Tensor:
        values, indices = tf.nn.top_k(x, 2, name="top")
        return tf.add(values, tf.cast(indices, tf.float32), name="out")

    graph = traced(function)
    (values,) = [name for name in (t.name for t in graph.get_operation_by_name("top").outputs) if name.endswith(":0")]
    result = run(graph, ["x:0", values], ["out:0"], [5.0, 9.0, 7.0], [100.0, 200.0])
    assert result[0].tolist() == [101.0, 202.0]
    assert len(copies) == 1


def test_function_is_removed_from_tensorflow_with_its_subgraph():
    graph = traced(lambda x: tf.identity(x, name="out"))
    part = Subgraph(graph, graph.inputs, [graph.get_tensor_by_name("out:0")])
    name = part._name
    assert context.context().has_function(name)
    del part
    assert not context.context().has_function(name)


WEIGHTS, BIAS = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), np.array([0.1, -0.2, 0.3], np.float32)


def _dense(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.bias_add(tf.matmul(tf.stack([x, x * x], axis=1), WEIGHTS), BIAS)


ROUNDED = {
    "quotient": lambda x: x / 3.0,
    "swish": lambda x: x * tf.sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1.0 + tf.math.erf(x / np.float32(np.sqrt(2)))),
    "dense": lambda x: tf.tanh(_dense(x)),
    "logarithm": lambda x: tf.math.log(tf.abs(x) + 1.0),
}
"""Functions that Grappler rewrites, so that their last bits differ: with the inverse, in one op, by log1p."""


@pytest.mark.parametrize("name", ROUNDED)
def test_floats_are_rounded_as_a_saved_model_rounds_them(name: str, tmp_path: Path):
    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.identity(ROUNDED[name](x), name="out")

    x = np.random.default_rng(0).normal(0, 3, 4096).astype(np.float32)
    module = tf.Module()
    module.f = tf.function(function, autograph=False, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(tmp_path))
    served = tf.saved_model.load(str(tmp_path)).f(tf.constant(x)).numpy()
    assert (served != ROUNDED[name](tf.constant(x)).numpy()).any()
    np.testing.assert_array_equal(run(traced(function), ["x:0"], ["out:0"], x)[0], served)


def test_grappler_is_disabled_for_subgraphs_without_floats():
    def function(x: tf.Tensor) -> tf.Tensor:
        is_large = tf.identity(tf.greater(x, 2.0), name="is_large")
        tf.cast(is_large, tf.int64, name="number")
        tf.cond(tf.reduce_any(is_large), lambda: tf.size(is_large), lambda: 3, name="branch")
        return tf.cast(is_large, tf.float32, name="float")

    graph = traced(function)
    branch = next(op.name for op in graph.get_operations() if op.type in ("If", "StatelessIf"))
    is_large = graph.get_tensor_by_name("is_large:0")
    for name, is_disabled in {"number": True, "float": False, branch: False}.items():
        part = Subgraph(graph, [is_large], [graph.get_tensor_by_name(f"{name}:0")])
        config = config_pb2.ConfigProto.FromString(part._attributes[-1])
        assert config.graph_options.rewrite_options.disable_meta_optimizer == is_disabled


def test_copies_ops_that_wait_for_an_input_that_is_not_fed(copies: list[None]):
    @tf.function(autograph=False)
    def function(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([y]):
            return tf.multiply(x, 2.0, name="out")

    spec = tf.TensorSpec([None], tf.float32)
    graph = function.get_concrete_function(spec, spec).graph
    assert run(graph, [graph.inputs[0].name], ["out:0"], [4.0])[0].tolist() == [8.0]
    assert len(copies) == 1


def test_copy_shares_constants_and_omits_identity_ops():
    def function(x: tf.Tensor) -> tf.Tensor:
        passed = tf.identity(tf.identity(x, name="first"), name="second")
        waited_for = tf.identity(x, name="waited_for")
        with tf.control_dependencies([waited_for]):
            after = tf.constant(3.0, name="after")
        threes = [tf.constant(3.0) for _ in range(4)]
        sum_ = tf.add_n([passed * value for value in [*threes, tf.constant(-0.0), tf.constant(0.0), after]])
        return tf.identity(sum_, name="out")

    graph = traced(function)
    pruned = subgraph.prune(graph, graph.inputs, {"out": graph.get_tensor_by_name("out:0"), "x": graph.inputs[0]})
    names = {
        kind: [op.name for op in pruned.graph.get_operations() if op.type == kind] for kind in ("Identity", "Const")
    }
    assert sorted(names["Identity"]) == ["out", "waited_for"]
    assert sorted(names["Const"]) == ["Const", "Const_4", "Const_5", "after"]
    outputs = pruned(tf.constant([2.0]))
    assert outputs["out"].numpy().tolist() == [30.0] and outputs["x"].numpy().tolist() == [2.0]


def test_copy_may_start_at_any_tensor():
    """It starts at one of two outputs of an op, and at an op that others wait for. Ops have the names of its inputs."""

    def function(x: tf.Tensor) -> tf.Tensor:
        offset = tf.add(x, tf.constant([1.0, 2.0]), name="feed_0")
        low, high = tf.split(offset, 2, name="halves")
        with tf.control_dependencies([low]):
            product = tf.multiply(high, 3.0, name="captured_0")
        return tf.add(product, offset, name="handle_0")

    graph = traced(function)
    out, high, offset = (graph.get_tensor_by_name(name) for name in ("handle_0:0", "halves:1", "feed_0:0"))
    whole = subgraph.prune(graph, graph.inputs[:1], [out])
    assert whole(tf.constant([4.0, 6.0]))[0].numpy().tolist() == [29.0, 32.0]
    cut = subgraph.prune(graph, [high, offset], [out, high])
    assert [value.numpy().tolist() for value in cut(tf.constant([5.0]), tf.constant([10.0, 20.0]))] == [
        [25.0, 35.0],
        [5.0],
    ]
