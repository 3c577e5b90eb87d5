"""The trace of a preprocessing_fn: the analyzers it finds, what it can compute when, and what it rejects."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform.tft import functions
from tests.transform.tft.binding import SPECS, WORDS, batch, bind_phases, invented_values, sources
from tidemill.errors import Code, TidemillError
from tidemill.transform.tft import private
from tidemill.transform.tft.computation_fingerprint import fingerprint
from tidemill.transform.tft.save import save
from tidemill.transform.tft.trace import Trace

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize(
    ("package", "version", "supported"),
    [
        ("tensorflow_transform", "1.21.7", True),
        ("tensorflow_transform", "1.22.0", False),
        ("tensorflow_transform", "2.1.0", False),
        ("tensorflow", "2.21.3-rc1", True),
        ("tensorflow", "2.2.0", False),
    ],
)
def test_checks_the_versions_of_tensorflow_and_tft(
    package: str, version: str, supported: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.modules[package], "__version__", version)
    spec = importlib.util.spec_from_file_location("private_again", private.__file__)
    module = importlib.util.module_from_spec(spec)
    if supported:
        spec.loader.exec_module(module)
        return
    with pytest.raises(TidemillError, match=f"got version {version}.*use the beam engine or install") as caught:
        spec.loader.exec_module(module)
    assert caught.value.code is Code.UNSUPPORTED


def test_rejects_a_ptransform_analyzer(tmp_path: Path):
    import apache_beam as beam
    from tensorflow_transform.experimental import ptransform_analyzer

    def function(inputs):
        doubled = tft.mean(inputs["x"]) * 2
        (largest,) = ptransform_analyzer([inputs["x"] - doubled], beam.Map(max), [tf.float32], [[]])
        return {"x": inputs["x"] - largest}

    with pytest.raises(TidemillError, match="use the beam engine") as caught:
        Trace(function, SPECS, tmp_path)
    assert caught.value.code is Code.UNSUPPORTED


_WEIGHT = tf.Variable(1.0)


def _trainable(inputs):
    # As TF1's layers do.
    tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES, _WEIGHT)
    return {"x": inputs["x"] * _WEIGHT}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda inputs: inputs["x"], "must return a"),
        (lambda inputs: {}, "returned an empty dict"),
        (_trainable, "trainable variables"),
        (lambda inputs: {"x": tf.cast(inputs["x"], tf.float64)}, "invalid dtype"),
        (lambda inputs: {"x": tft.mean(inputs["x"])}, "must have rank at least 1"),
    ],
)
def test_rejects_functions_that_tft_rejects(function: Callable[[dict], Any], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        Trace(function, SPECS, tmp_path)


def test_rejected_function_leaves_no_traces_in_the_next(tmp_path: Path):
    with pytest.raises(ValueError, match="trainable"):
        Trace(_trainable, SPECS, tmp_path)
    assert Trace(functions.no_analyzers, SPECS, tmp_path).sinks == []


def test_rejects_no_inputs(tmp_path: Path):
    with pytest.raises(ValueError, match="input metadata is empty"):
        Trace(functions.no_analyzers, {}, tmp_path)


@pytest.mark.parametrize(
    ("function", "phases"),
    [
        (functions.no_analyzers, 0),
        (functions.one_phase, 1),
        (functions.two_phases, 4),
        (functions.vocabulary_then_mean, 3),
        (functions.tfidf, 2),
        (functions.own_lookup, 2),
        (functions.path_as_output, 1),
    ],
)
def test_analyzers_are_bound_in_phases(function: Callable[[dict], Any], phases: int, tmp_path: Path):
    trace = Trace(function, SPECS, tmp_path)
    assert len(bind_phases(trace, invented_values(trace))) == phases
    assert trace.sinks == []
    assert all(trace.ready(part) for o in trace.outputs.values() for part in tf.nest.flatten(o, expand_composites=True))


def test_tensor_is_ready_when_the_analyzers_that_it_depends_on_are_bound(tmp_path: Path):
    trace = Trace(functions.vocabulary_then_mean, SPECS, tmp_path)
    ids = trace.outputs["ids"]
    assert not trace.ready(ids)
    assert trace.ready(trace.inputs["s"])
    value = invented_values(trace)
    first = [sink for sink in trace.sinks if sink.name.startswith("compute_and_apply_vocabulary/")]
    trace.bind({sink.name: value(sink) for sink in first})
    assert trace.ready(ids)
    assert not trace.ready(trace.outputs["again"])
    function = trace.function([ids])
    assert function.inputs == ["s"]
    (result,) = function({"s": tf.constant(["größe", "a", "?", ""])})
    assert result[:2].numpy().tolist() == [2, 0]
    assert set(result[2:].numpy()) <= {len(WORDS), len(WORDS) + 1}


def test_sinks_may_be_bound_one_by_one_in_any_order(tmp_path: Path):
    """The names of the sinks stay, and a vocabulary needs only its file."""
    trace = Trace(functions.applied_twice, SPECS, tmp_path)
    value = invented_values(trace)
    for sink in reversed(list(trace.sinks)):
        trace.bind({sink.name: value(sink)})
    (ids,) = trace.function([trace.outputs["s"]])({"s": tf.constant(["dd", "a"])})
    assert ids.numpy().tolist() == [1, 0]
    with pytest.raises(ValueError, match="no open sinks"):
        trace.bind({"vocabulary/temporary_analyzer_output_2/Const:0": tmp_path})


def test_function_may_start_at_an_inner_tensor(tmp_path: Path):
    trace = Trace(lambda inputs: {"y": tf.sqrt(inputs["x"] + inputs["m"][:, 0]) * 2}, SPECS, tmp_path)
    root = next(op for op in trace.graph.get_operations() if op.type == "Sqrt").outputs[0]
    function = trace.function([trace.outputs["y"]], [root])
    assert function.inputs == []
    assert function.feeds == [root]
    (result,) = function({}, [tf.constant([1.5, 2.5])])
    assert result.numpy().tolist() == [3.0, 5.0]
    (fed,) = trace.function([root], [root])({}, [tf.constant([7.0])])
    assert fed.numpy().tolist() == [7.0]


def test_function_may_run_in_several_threads(tmp_path: Path):
    trace = Trace(functions.one_phase, SPECS, tmp_path)
    tensors = [tensor for sink in trace.sinks for tensor in sources(sink.node)]
    function = trace.function(tensors)
    rows = {name: batch(200)[name] for name in function.inputs}
    expected = [value.numpy() for value in function(rows)]
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: function(rows), range(40)):
            for value, expected_value in zip(result, expected, strict=True):
                np.testing.assert_array_equal(value.numpy(), expected_value)


def test_traces_in_threads_restore_what_they_patch(tmp_path: Path):
    patched = [
        (private.InitializableTable, "_initialize"),
        (private.LOOKUPS, "construct_and_lookup_table"),
        (private.ANALYZERS, "_get_vocabulary_analyzer_inputs"),
    ]
    before = [getattr(*attribute) for attribute in patched]
    with ThreadPoolExecutor(4) as pool:
        traces = list(pool.map(lambda _: Trace(functions.one_phase, SPECS, tmp_path), range(5)))
    assert [getattr(*attribute) for attribute in patched] == before
    assert len({tuple(sink.name for sink in trace.sinks) for trace in traces}) == 1


@pytest.mark.parametrize(
    ("function", "name", "is_filtered"), [("path_as_output", "read", True), ("other_files", "int", False)]
)
def test_graph_passes_all_tokens_and_the_trace_says_whether_to_filter_them(
    function: str, name: str, is_filtered: bool, tmp_path: Path
):
    trace = Trace(getattr(functions, function), SPECS, tmp_path)
    sink = next(sink for sink in trace.sinks if f"{name}_unpruned" in sink.name)
    (tokens,) = sources(sink.node)
    assert trace.token_filter[tokens.name] is is_filtered
    words = ["a", "", "b\n", "\r", " ", "größe", "c\rd"] if is_filtered else [3, 0, 3]
    column = tf.constant(words, tokens.dtype)
    (passed,) = trace.function([tokens])(dict.fromkeys(("key", "i"), column))
    assert passed.numpy().tolist() == column.numpy().tolist()


def test_vocabulary_paths_are_unique(tmp_path: Path):
    trace = Trace(functions.one_phase, SPECS, tmp_path)
    paths = [trace.vocabulary_path(*a) for a in (("v", "text"), ("v", "text"), ("v", "tfrecord_gzip"))]
    assert [path.name for path in paths] == ["v", "v", "v.tfrecord.gz"]
    assert len(set(paths)) == 3
    assert all(path.parent.is_dir() and path.is_relative_to(tmp_path) for path in paths)


def test_trace_returns_the_reserved_tokens_of_a_vocabulary(tmp_path: Path):
    trace = Trace(functions.annotated, SPECS, tmp_path)
    assert trace.reserved_tokens("my-words_1").tolist() == [b"one", b"two"]


def test_rejects_a_function_that_names_its_analyzers_differently_when_it_is_traced_again(tmp_path: Path):
    scopes = iter(["first", "first", "second"])

    def function(inputs):
        with tf.name_scope(next(scopes)):
            return functions.path_as_output(inputs)

    trace = Trace(function, SPECS, tmp_path)
    with pytest.raises(RuntimeError, match="deterministic"):
        bind_phases(trace, invented_values(trace))


def test_save_rejects_unbound_sinks(tmp_path: Path):
    with pytest.raises(ValueError, match="not bound"):
        save(Trace(functions.one_phase, SPECS, tmp_path), tmp_path)


def input_fingerprints(
    function: Callable[[dict], Any], folder: Path, value: Callable[[Trace], Any] = invented_values
) -> list[str]:
    """Returns the fingerprints of the analyzers' inputs, phase by phase."""
    trace = Trace(function, SPECS, folder)
    fingerprints = []
    while trace.sinks:
        ready = [sink for sink in trace.sinks if all(trace.ready(t) for t in sources(sink.node))]
        fingerprints += [fingerprint(sources(sink.node), trace) for sink in ready]
        trace.bind({sink.name: value(trace)(sink) for sink in ready})
    return fingerprints


STABLE = [functions.one_phase, functions.per_key, functions.applied_twice, functions.control_flow, functions.tfidf]
"""Functions without tables or file paths of their own, whose fingerprints would be random."""


def test_fingerprints_tell_paths_apart(tmp_path: Path):
    def of(function: Callable[[dict], Any], value: Callable[[Trace], Any] = invented_values) -> str:
        return input_fingerprints(lambda inputs: {"y": inputs["x"] - tft.mean(function(inputs))}, tmp_path, value)[-1]

    def renamed(inputs):
        tf.constant(3.0)
        with tf.name_scope("elsewhere"):
            return inputs["x"] + 1

    base = of(lambda inputs: inputs["x"] + 1)
    assert base == of(renamed)
    table = lambda value: tf.lookup.StaticHashTable(  # noqa: E731
        tf.lookup.KeyValueTensorInitializer(["a"], [value], value_dtype=tf.float32), 0
    )

    def looked_up(value: float) -> Callable[[dict], tf.Tensor]:
        def function(inputs):
            with tf.init_scope():
                made = table(value)
            return made.lookup(inputs["key"])

        return function

    def multiplied(value: float) -> Callable[[dict], tf.Tensor]:
        variable = tf.Variable(value, trainable=False)
        return lambda inputs: inputs["x"] * variable

    others = [
        lambda inputs: inputs["x"] + 2,
        lambda inputs: inputs["x"] - 1,
        lambda inputs: 1 + inputs["x"],
        lambda inputs: tf.cast(inputs["i"], tf.float32) + 1,
        lambda inputs: tf.cond(inputs["x"][0] > 0, lambda: inputs["x"], lambda: inputs["x"] + 1),
        lambda inputs: tf.cond(inputs["x"][0] > 0, lambda: inputs["x"], lambda: inputs["x"] + 2),
        lambda inputs: inputs["x"] + tft.max(inputs["x"]),
        multiplied(1.0),
        multiplied(2.0),
        looked_up(1.0),
        looked_up(2.0),
    ]
    fingerprints = [base, *map(of, others)]
    assert len(set(fingerprints)) == len(fingerprints)
    assert (of(multiplied(1.0)), of(looked_up(1.0))) == (fingerprints[-4], fingerprints[-2])
    bound = lambda inputs: inputs["x"] + tft.max(inputs["x"])  # noqa: E731
    assert of(bound, lambda trace: lambda sink: np.zeros(2, np.float32)[0]) != of(bound)
    python = lambda inputs: tf.numpy_function(lambda x: x, [inputs["x"]], tf.float32)  # noqa: E731
    assert of(python) != of(python)


@pytest.mark.parametrize(("content", "size"), [("a\nb\n", 2), ("a\nb", 2), ("a", 1), ("größe\n x \n", 2)])
def test_size_of_a_table_is_known_before_the_table_is_filled(content: str, size: int, tmp_path: Path):
    """Filling the table of a large vocabulary takes seconds, and a phase without lookups does not need it."""

    def function(inputs):
        ids = tft.compute_and_apply_vocabulary(inputs["s"], vocab_filename="words", num_oov_buckets=3)
        return {"ids": ids, "buckets": tft.get_num_buckets_for_transformed_feature(ids) + tf.zeros_like(ids)}

    trace = Trace(function, SPECS, tmp_path)
    path = trace.vocabulary_path("words", "text")
    path.write_bytes(content.encode())
    trace.bind({sink.name: path if sink.is_asset else np.int64(0) for sink in trace.sinks})
    (table,) = trace.traced.empty.values()
    (buckets,) = trace.function([trace.outputs["buckets"]])({"s": tf.constant(["a", "?"])})
    assert buckets.numpy().tolist() == [size + 3] * 2
    assert table.size().numpy() == size
    assert not trace.traced.empty


def test_rejects_a_function_that_calls_its_analyzers_in_another_order_each_time(tmp_path: Path):
    turns = iter(range(10))

    def preprocessing_fn(inputs: dict) -> dict:
        names = ["a", "b"] if next(turns) % 2 else ["b", "a"]
        return {name: inputs[name] - tft.mean(inputs[name]) for name in names}

    specs = {name: tf.TensorSpec([None], tf.float32) for name in ("a", "b")}
    with pytest.raises(RuntimeError, match="non-deterministic"):
        Trace(preprocessing_fn, specs, tmp_path)
