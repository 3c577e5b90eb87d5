"""What is written: it computes what the trace computes, always with the same bytes, and says what it needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import graph_tools, tf2_utils

from tests.transform.tft import functions
from tests.transform.tft.bound import SPECS, assert_same, batch, bind_phases, made_up
from tidemill.transform.canonical import canonicalise
from tidemill.transform.describe import needed_inputs
from tidemill.transform.graph import TRANSFORM_FN
from tidemill.transform.tft.save import save
from tidemill.transform.tft.trace import Trace

RANDOM_NAMES = ("tables_and_objects",)
"""TensorFlow gives a table of the user's own a random name."""
TEMPORARY_NAMES = ("own_lookup", "path_as_output", "other_files")
"""The path of a vocabulary is a constant of the graph, which a compressed one does not use."""

MADE_UP = [f for f in functions.ALL if f.__name__ not in ("counted", "tfidf")]
"""The others' results must fit each other, which made-up ones do not."""


def write(function: Callable[[dict], Any], folder: Path) -> tuple[Trace, Path]:
    """The artifact of a function with made-up results, with canonical bytes."""
    work, saved = folder / "work", folder / "saved"
    work.mkdir(parents=True)
    trace = Trace(function, SPECS, work)
    bind_phases(trace, made_up(trace))
    save(trace, saved)
    canonicalise(saved / TRANSFORM_FN)
    return trace, saved


def loaded_needs(saved: Path) -> dict[str, set[str]]:
    """The same from the loaded model, as TFT's own loader walks it."""
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


@pytest.mark.parametrize("function", MADE_UP, ids=lambda f: f.__name__)
def test_written(function: Callable[[dict], Any], tmp_path: Path):
    trace, saved = write(function, tmp_path / "a")
    parts = tf.nest.flatten(trace.outputs, expand_composites=True)
    transform = trace.function(parts)
    flat = transform({name: batch()[name] for name in transform.inputs})
    expected = tf.nest.pack_sequence_as(trace.outputs, flat, expand_composites=True)
    shutil.rmtree(tmp_path / "a" / "work")
    assert_same(tft.TFTransformOutput(str(saved)).transform_raw_features(batch()), expected)
    assert needed_inputs(saved / TRANSFORM_FN) == loaded_needs(saved)

    _, again = write(function, tmp_path / "b")
    for path in sorted(p.relative_to(saved) for p in saved.rglob("*") if p.is_file()):
        if path.name != "saved_model.pb" or function.__name__ not in RANDOM_NAMES + TEMPORARY_NAMES:
            assert (again / path).read_bytes() == (saved / path).read_bytes(), path
    if function.__name__ not in TEMPORARY_NAMES:
        assert str(tmp_path).encode() not in (saved / TRANSFORM_FN / "saved_model.pb").read_bytes()


def test_needed_inputs(tmp_path: Path):
    def function(inputs):
        both = tf.concat([inputs["words"].values, inputs["ragged"].flat_values], 0)
        with tf.control_dependencies([inputs["i"]]):
            x = inputs["x"] * 2
        ragged = inputs["ragged"].with_flat_values(
            tf.gather(both, tf.zeros_like(inputs["ragged"].flat_values, tf.int32))
        )
        return {"x": x, "constant": tf.zeros([3, 1]), "ragged": ragged, "m": inputs["m"] * inputs["x"][:, tf.newaxis]}

    _, saved = write(function, tmp_path)
    assert needed_inputs(saved / TRANSFORM_FN) == {
        "x": {"x"},
        "constant": set(),
        "ragged": {"words", "ragged"},
        "m": {"m", "x"},
    }
