"""The written artifact equals Beam's, always has the same bytes, and computes what the trace computes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import graph_tools, tf2_utils

from tests.transform.tft import functions
from tests.transform.tft.beam_artifacts import flat_arrays, read_artifact
from tests.transform.tft.binding import SPECS, batch, bind_phases
from tidemill.transform.canonical import canonicalize
from tidemill.transform.describe import needed_inputs
from tidemill.transform.graph import TRANSFORM_FN
from tidemill.transform.tft.save import save
from tidemill.transform.tft.trace import Sink, Trace

pytestmark = pytest.mark.tensorflow
_RELATIVE = 1e-6
RANDOM_NAMES = ("tables_and_objects",)
"""Functions with a table of their own, to which TensorFlow gives a random name."""
TEMPORARY_NAMES = ("own_lookup", "path_as_output", "other_files")
"""Functions whose graph holds the path of a vocabulary as a constant, which a compressed vocabulary does not use."""


def write(function: Callable[[dict], Any], values: Mapping[str, np.ndarray | Path], folder: Path) -> tuple[Trace, Path]:
    """Writes the artifact of a function with given analyzer results, in canonical form.

    Returns:
        The trace, and the folder of the artifact.
    """
    work, saved = folder / "work", folder / "saved"
    work.mkdir(parents=True)
    trace = Trace(function, SPECS, work)

    def value(sink: Sink) -> np.ndarray | Path:
        if not sink.is_asset:
            return values[sink.name]
        definition = sink.node.parent_operation.operation_def
        path = trace.vocabulary_path(definition.vocab_filename, definition.file_format)
        assert path.name == values[sink.name].name
        return Path(shutil.copyfile(values[sink.name], path))

    bind_phases(trace, value)
    save(trace, saved)
    canonicalize(saved / TRANSFORM_FN)
    return trace, saved


def assert_same(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], relative: float = 0.0) -> None:
    """Asserts that features are equal, floats with a relative tolerance.

    The recorded floats may come from another processor, whose last bits differ.
    """
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(ours[name], value, rtol=relative, atol=relative, err_msg=name)
        else:
            np.testing.assert_array_equal(ours[name], value, err_msg=name)


def facts(folder: Path) -> list[Any]:
    """Returns what TFTransformOutput reads of an artifact besides features and schema."""
    output = tft.TFTransformOutput(str(folder))
    assets = folder / "transform_fn" / "assets"
    files = {p.name: p.read_bytes() for p in assets.glob("*")}
    asset_map = folder / "transformed_metadata" / "asset_map"
    result: list[Any] = [files, asset_map.read_text() if asset_map.exists() else None]
    names = {name.removesuffix(".tfrecord.gz") for name in files} | {"the words", "my words/1"}
    for vocabulary in sorted(names):
        path = output.vocabulary_file_by_name(vocabulary)
        result.append(path and os.path.basename(path))
        result.append(path and output.vocabulary_size_by_name(vocabulary))
        result.append(path and output.vocabulary_by_name(vocabulary))
    domains = output.transformed_domains()
    result += [output.num_buckets_for_transformed_feature(name) for name in sorted(domains) if domains[name].min == 0]
    return result


def loaded_needs(saved: Path) -> dict[str, set[str]]:
    """Does what `needed_inputs` does on the loaded model, as TFT's own loader does."""
    function = tf.saved_model.load(str(saved / TRANSFORM_FN)).transform_fn
    inputs = tf2_utils.get_structured_inputs_from_func_graph(function.graph)
    names = {
        id(part): name for name, value in inputs.items() for part in tf.nest.flatten(value, expand_composites=True)
    }
    flat = tf.nest.pack_sequence_as(function.structured_outputs, function.graph.outputs, expand_composites=True)
    result = {}
    for output, tensor in flat.items():
        ops = [part.op for part in tf.nest.flatten(tensor, expand_composites=True)]
        sources = graph_tools.retrieve_sources(ops, ignore_control_dependencies=True)
        result[output] = {names[id(source)] for source in sources if id(source) in names}
    return result


@pytest.mark.parametrize("function", functions.ALL, ids=lambda f: f.__name__)
def test_artifact_equals_beams(function: Callable[[dict], Any], tmp_path: Path):
    name, beam = function.__name__, read_artifact(function.__name__, tmp_path / "beam")
    trace, saved = write(function, beam.values, tmp_path / "a")
    parts = tf.nest.flatten(trace.outputs, expand_composites=True)
    transform = trace.function(parts)
    flat = transform({name: batch()[name] for name in transform.inputs})
    traced = tf.nest.pack_sequence_as(trace.outputs, flat, expand_composites=True)
    shutil.rmtree(tmp_path / "a" / "work")

    output = tft.TFTransformOutput(str(saved))
    assert output.transformed_metadata.schema == tft.TFTransformOutput(str(beam.folder)).transformed_metadata.schema
    assert facts(saved) == facts(beam.folder)
    outputs = flat_arrays(output.transform_raw_features(batch()))
    assert_same(outputs, beam.outputs, _RELATIVE)
    assert_same(outputs, flat_arrays(traced))
    assert needed_inputs(saved / TRANSFORM_FN) == loaded_needs(saved)

    _, again = write(function, beam.values, tmp_path / "b")
    for path in sorted(p.relative_to(saved) for p in saved.rglob("*") if p.is_file()):
        if path.name != "saved_model.pb" or name not in RANDOM_NAMES + TEMPORARY_NAMES:
            assert (again / path).read_bytes() == (saved / path).read_bytes(), path
    if name not in TEMPORARY_NAMES:
        assert str(tmp_path).encode() not in (saved / TRANSFORM_FN / "saved_model.pb").read_bytes()


def test_layer_computes_the_features_that_need_only_the_given_inputs(tmp_path: Path):
    beam = read_artifact("one_phase", tmp_path / "beam")
    _, saved = write(functions.one_phase, beam.values, tmp_path)
    layer = tft.TFTransformOutput(str(saved)).transform_features_layer()
    outputs = flat_arrays(layer({"x": batch()["x"]}))
    assert_same(outputs, beam.few_outputs, _RELATIVE)
    assert "z/0" in outputs and "unit/0" not in outputs


def test_needed_inputs(tmp_path: Path):
    def function(inputs):
        both = tf.concat([inputs["words"].values, inputs["ragged"].flat_values], 0)
        with tf.control_dependencies([inputs["i"]]):
            x = inputs["x"] * 2
        ragged = inputs["ragged"].with_flat_values(
            tf.gather(both, tf.zeros_like(inputs["ragged"].flat_values, tf.int32))
        )
        return {"x": x, "constant": tf.zeros([3, 1]), "ragged": ragged, "m": inputs["m"] * inputs["x"][:, tf.newaxis]}

    _, saved = write(function, {}, tmp_path)
    assert needed_inputs(saved / TRANSFORM_FN) == {
        "x": {"x"},
        "constant": set(),
        "ragged": {"words", "ragged"},
        "m": {"m", "x"},
    }


def test_rejects_an_output_of_unknown_width(tmp_path: Path):
    """A feature has a fixed number of values per row, or any number in a sparse or ragged tensor."""
    name = next(name for name, spec in SPECS.items() if isinstance(spec, tf.SparseTensorSpec))
    trace = Trace(lambda inputs: {"y": tf.sparse.to_dense(inputs[name])}, SPECS, tmp_path)
    with pytest.raises(ValueError, match=r"Feature y .* all dimensions must have known size"):
        save(trace, tmp_path)
