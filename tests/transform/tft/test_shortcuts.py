"""Shortcuts while a function is traced: shared constants, control outputs, stack traces; the rest is as before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.python.framework import func_graph, ops
from tensorflow.python.util import tf_stack

from tidemill.transform.tft.trace import Trace
from tidemill.transform.tft.traced_function import TracedFunction, trace_function

pytestmark = pytest.mark.tensorflow
SPECS = {"x": tf.TensorSpec([None, 4], tf.float32), "s": tf.TensorSpec([None], tf.string)}
X = tf.reshape(tf.range(8.0), [2, 4])


def traced(function: Callable[[dict], Any], tmp_path: Path) -> TracedFunction:
    return trace_function(function, SPECS, tmp_path, {})


def values(function: Callable[[dict], dict[str, tf.Tensor]], tmp_path: Path) -> dict[str, list]:
    """Returns a function's outputs for `X`."""
    trace = Trace(function, SPECS, tmp_path)
    compute = trace.function(list(trace.outputs.values()))
    inputs = {"x": X, "s": tf.constant(["a", "b"])}
    outputs = compute({name: inputs[name] for name in compute.inputs})
    return {name: value.numpy().tolist() for name, value in zip(trace.outputs, outputs, strict=True)}


def sliced(inputs: dict) -> dict:
    x = inputs["x"]
    columns = {f"{i}": x[:, i] for i in range(4)}
    return columns | {"all": tf.reshape(x, [-1]), "sum": tf.reduce_sum(x, axis=1), "flat": tf.reshape(x, [-1])}


def test_integers_that_tensorflow_adds_become_one_constant_each(tmp_path: Path):
    graph = traced(sliced, tmp_path).graph
    constants = [tf.make_ndarray(op.get_attr("value")).tolist() for op in graph.get_operations() if op.type == "Const"]
    # The slices' begins, ends and strides, the shape twice, and the axis.
    assert len(constants) == len({str(value) for value in constants}) < 4 * 3 + 2 + 1
    expected = {name: value.numpy().tolist() for name, value in sliced({"x": X}).items()}
    assert values(sliced, tmp_path) == expected


NAMED = {
    "a constant": lambda x, name: tf.constant(3, name=name),
    "a list": lambda x, name: tf.constant([1, 2], name=name),
    "converted": lambda x, name: tf.convert_to_tensor([1, 2], name=name),
    "stacked": lambda x, name: tf.stack([1, 2], name=name),
    "rank": lambda x, name: tf.rank(x, name=name),
    "zeros": lambda x, name: tf.zeros([2], tf.int32, name=name),
    "shape": lambda x, name: tf.shape(x[0], name=name),
}


@pytest.mark.parametrize("make", NAMED.values(), ids=list(NAMED))
def test_tensors_that_the_function_creates_are_not_shared(make: Callable[..., tf.Tensor], tmp_path: Path):
    def function(inputs: dict) -> dict:
        x = inputs["x"]
        used = x[:, 1], tf.reshape(x, [1, 2, -1]), tf.reduce_sum(x, axis=[1, 2][:1])
        one, other = make(x, "one"), make(x, "other")
        graph = tf.compat.v1.get_default_graph()
        assert (graph.get_tensor_by_name("one:0"), graph.get_tensor_by_name("other:0")) == (one, other)
        assert one.op is not other.op
        return {"x": used[0]}

    traced(function, tmp_path)


def test_constants_with_control_inputs_or_a_device_are_not_shared(tmp_path: Path):
    def function(inputs: dict) -> dict:
        x = inputs["x"]
        with tf.control_dependencies([tf.identity(inputs["s"], name="before")]):
            waits = tf.reshape(x, [-1, 2])
        with tf.device("/cpu:0"):
            placed = tf.reshape(x, [-1, 2])
        plain, again = tf.reshape(x, [-1, 2]), tf.reshape(x, [-1, 2])
        shapes = [tensor.op.inputs[1].op for tensor in (waits, placed, plain, again)]
        assert len({id(shape) for shape in shapes}) == 3 and shapes[2] is shapes[3]
        assert not shapes[2].control_inputs and not shapes[2].device and shapes[1].device
        return {"plain": plain}

    traced(function, tmp_path)


def test_ops_keep_the_lines_that_created_them(tmp_path: Path):
    def half(x: tf.Tensor, name: str) -> tf.Tensor:
        return tf.multiply(x, 0.5, name=name)

    def function(inputs: dict) -> dict:
        one = half(inputs["x"], "one")
        two, again = half(one, "two"), half(one, "again")
        return {"sum": tf.add(two, again, name="sum")}

    graph = traced(function, tmp_path).graph

    def lines(name: str) -> list[int]:
        """Returns line numbers, counted from the start of `half`."""
        frames = [frame for frame in graph.get_operation_by_name(name).traceback if frame.filename == __file__]
        return [frame.lineno - half.__code__.co_firstlineno for frame in frames if frame.name in ("half", "function")]

    assert {name: lines(name) for name in ("one", "two", "again", "sum")} == {
        "one": [4, 1],
        "two": [5, 1],
        "again": [5, 1],
        "sum": [6],
    }


def test_branches_and_loops_compute_the_same(tmp_path: Path):
    def function(inputs: dict) -> dict:
        x = inputs["x"]
        most = tf.cond(tf.reduce_sum(x) > 0, lambda: x[:, 3], lambda: tf.reduce_sum(x[:, 3:], axis=1))
        _, total = tf.while_loop(lambda i, t: i < 4, lambda i, t: (i + 1, t + x[:, 3] * 2), (0, x[:, 0] * 0))
        return {"most": most, "total": total, "last": x[:, 3]}

    assert values(function, tmp_path) == {"most": [3.0, 7.0], "total": [24.0, 56.0], "last": [3.0, 7.0]}


def test_stateful_ops_run_in_order(tmp_path: Path):
    """They are control outputs, as without shortcuts. A function without stateful ops has no control outputs."""

    def asserts(inputs: dict) -> dict:
        tf.debugging.Assert(tf.reduce_all(inputs["x"] >= 0), ["negative"], name="first")
        tf.print(tf.shape(inputs["x"]), output_stream="file:///dev/null", name="second")
        return {"y": inputs["x"] * 2}

    graph = traced(asserts, tmp_path).graph
    stateful = [op for op in graph.get_operations() if op.op_def.is_stateful]
    (last,) = [op for op in stateful if op.type == "PrintV2"]
    # An assertion is a branch or, in a graph of TensorFlow 1, an op.
    (assertion,) = [op for op in stateful if op.type in ("Assert", "If")]
    assert assertion in last.control_inputs
    assert {assertion, last} <= set(graph.control_outputs)
    expected = tf.function(asserts, autograph=False).get_concrete_function(SPECS).graph
    assert sorted(op.type for op in graph.control_outputs) == sorted(op.type for op in expected.control_outputs)
    assert traced(sliced, tmp_path).graph.control_outputs == []


def test_function_may_change_its_dict_of_inputs(tmp_path: Path):
    def function(inputs: dict) -> dict:
        inputs["x"] = inputs["x"] + 1
        inputs["s"] = tf.strings.upper(inputs.pop("s"))
        return dict(inputs)

    inputs = traced(function, tmp_path).inputs
    assert {name: value.op.type for name, value in inputs.items()} == dict.fromkeys("xs", "Placeholder")
    assert values(function, tmp_path) == {"x": (X + 1).numpy().tolist(), "s": [b"A", b"B"]}


def test_function_may_change_the_shape_of_composite_inputs(tmp_path: Path):
    def function(inputs: dict) -> dict:
        ragged, sparse = inputs["ragged"], inputs["sparse"]
        sparse.set_shape([None, 3])
        lengths = ragged.row_lengths()
        return {"lengths": lengths, "again": ragged.row_lengths() + ragged.nrows(), "dense": tf.sparse.to_dense(sparse)}

    specs = {
        "ragged": tf.RaggedTensorSpec([None, None], tf.int64, row_splits_dtype=tf.int64),
        "sparse": tf.SparseTensorSpec([None, None], tf.int64),
    }
    trace = Trace(function, specs, tmp_path)
    compute = trace.function(list(trace.outputs.values()))
    rows = {"ragged": tf.ragged.constant([[1, 2], []], tf.int64), "sparse": tf.sparse.from_dense([[0, 7, 0]])}
    rows["sparse"] = tf.cast(rows["sparse"], tf.int64)
    outputs = [value.numpy().tolist() for value in compute({name: rows[name] for name in compute.inputs})]
    assert outputs == [[2, 0], [4, 2], [[0, 7, 0]]]
    assert trace.inputs["sparse"].shape.as_list() == [None, None]


def test_scopes_have_the_names_that_tft_gives_them(tmp_path: Path):
    """TFT copies each input with an op, and names a vocabulary without a name after its scope."""
    scopes = {}

    def function(inputs: dict) -> dict:
        for name, tensor in inputs.items():
            with tf.name_scope(f"{tensor.op.name}_copy") as scopes[name]:
                assert scopes[name] == f"{tensor.op.name}_copy_1/"
        return dict(inputs)

    traced(function, tmp_path)
    assert scopes.keys() == SPECS.keys()


def test_inputs_may_be_outputs(tmp_path: Path):
    assert values(dict, tmp_path) == {"x": X.numpy().tolist(), "s": [b"a", b"b"]}


def test_other_threads_take_no_shortcuts(tmp_path: Path):
    facts = []

    def other_thread() -> None:
        with tf.Graph().as_default():
            x = tf.zeros([4, 2])
            shapes = [tf.reshape(x, [-1]).op.inputs[1].op for _ in range(2)]
        facts.append((shapes[0] is shapes[1], any("other_thread" in str(frame) for frame in shapes[0].traceback)))

    def function(inputs: dict) -> dict:
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        return {"x": inputs["x"]}

    traced(function, tmp_path)
    assert facts == [(False, True)]


def test_patches_are_undone_after_an_error(tmp_path: Path):
    def originals() -> list:
        return [tf_stack.extract_stack, ops._create_graph_constant, func_graph.auto_control_deps.__dict__.copy()]

    def function(inputs: dict) -> dict:
        raise ArithmeticError("broken")

    before = originals()
    with pytest.raises(ArithmeticError, match="broken"):
        traced(function, tmp_path)
    assert originals() == before
