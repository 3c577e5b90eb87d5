"""Beam's artifacts of `functions`, with the analyzer results that are in them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform.recordings import Recording, files_below, write_arrays
from tests.transform.tft import functions
from tests.transform.tft.binding import batch

ROWS = 60
_FEW_INPUTS = "few_inputs.json"


@dataclass(frozen=True)
class BeamArtifact:
    """Beam's artifact of one function.

    Attributes:
        folder: Folder with its vocabularies and metadata, without the SavedModel.
        values: The analyzers' results by the name of the analyzer's tensor; a vocabulary as a path.
        outputs: The features of `batch()`, see `flat_arrays`.
        few_outputs: The features that `transform_features_layer` computes from the input `x` only.
    """

    folder: Path
    values: dict[str, np.ndarray | Path]
    outputs: dict[str, np.ndarray]
    few_outputs: dict[str, np.ndarray]


def read_artifact(name: str, folder: Path) -> BeamArtifact:
    """Returns the recorded artifact of a function, and writes its files to a folder."""
    recording = Recording("artifacts")
    recording.extract(name, folder)
    values: dict[str, np.ndarray | Path] = dict(recording.arrays(f"{name}/values.json"))
    for path in (folder / "files").rglob("*"):
        if path.is_file():
            values[path.parent.name.replace("!", "/")] = path
    few = recording.arrays(f"{name}/{_FEW_INPUTS}")
    return BeamArtifact(folder, values, recording.arrays(f"{name}/outputs.json"), few)


def flat_arrays(features: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns features as arrays; a composite tensor becomes one array for each of its tensors."""
    arrays = {}
    for name, value in features.items():
        for number, part in enumerate(tf.nest.flatten(value, expand_composites=True)):
            arrays[f"{name}/{number}"] = part.numpy()
    return arrays


def record(folder: Path) -> dict[str, bytes]:
    """Analyzes all functions in one Beam pipeline; returns the artifacts and their outputs."""
    values = _run_beam(folder)
    files = {}
    for function in functions.ALL:
        name = function.__name__
        files |= files_below(folder / name, name, ("transform_fn/assets", "transformed_metadata", "files"))
        files[f"{name}/values.json"] = write_arrays(values.get(name, {}))
        output = tft.TFTransformOutput(str(folder / name))
        files[f"{name}/outputs.json"] = write_arrays(flat_arrays(output.transform_raw_features(batch())))
        few = flat_arrays(output.transform_features_layer()({"x": batch()["x"]}))
        files[f"{name}/{_FEW_INPUTS}"] = write_arrays(few)
    return files


def _run_beam(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Writes the artifacts and vocabularies to a folder, and returns the other results by function."""
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from tensorflow_transform import impl_helper

    values: dict[str, dict[str, np.ndarray]] = {}
    original = impl_helper.trace_and_write_v2_saved_model

    def keep_values(saved_model_dir: str, preprocessing_fn: Any, *arguments: Any, **named: Any) -> None:
        replacements = named.get("tensor_replacement_map", arguments[3])
        function = preprocessing_fn.__name__
        results = values.setdefault(function, {})
        for name, tensor in (replacements or {}).items():
            value = tensor.numpy()
            if isinstance(value, bytes) and Path(value.decode()).is_file():
                copy = folder / function / "files" / name.replace("/", "!") / Path(value.decode()).name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(value.decode(), copy)
            else:
                results[name] = value
        original(saved_model_dir, preprocessing_fn, *arguments, **named)

    record_batch, config = _record_batch(functions.rows(ROWS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(impl_helper, "trace_and_write_v2_saved_model", keep_values)
        context = tft_beam.Context(temp_dir=str(folder / "temp"), use_deep_copy_optimization=True)
        with beam.Pipeline(runner=FnApiRunner()) as pipeline, context:
            data = pipeline | beam.Create([record_batch])
            for function in functions.ALL:
                name = function.__name__
                analyzed = (data, config) | name >> tft_beam.AnalyzeDataset(function)
                _ = analyzed | f"Write{name}" >> tft_beam.WriteTransformFn(str(folder / name))
    return values


def _record_batch(rows: list[dict]) -> tuple[pa.RecordBatch, Any]:
    """Returns rows as TFXIO does, and how tfx_bsl converts them to tensors."""
    from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig
    from tfx_bsl.tfxio.tensor_representation_util import InferTensorRepresentationsFromMixedSchema

    columns = {}
    for name in rows[0]:
        lists = [row[name] if isinstance(row[name], list) else [row[name]] for row in rows]
        flat = [value for values in lists for value in values]
        type_ = {str: pa.large_binary(), int: pa.int64(), float: pa.float32()}[type(flat[0])]
        columns[name] = pa.array(lists, pa.large_list(pa.large_string() if type_ == pa.large_binary() else type_))
        columns[name] = columns[name].cast(pa.large_list(type_))
    record_batch = pa.RecordBatch.from_pydict(columns)
    schema = tft.DatasetMetadata.from_feature_spec(functions.FEATURE_SPEC).schema
    return record_batch, TensorAdapterConfig(record_batch.schema, InferTensorRepresentationsFromMixedSchema(schema))
