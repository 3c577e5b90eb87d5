"""Artifacts by TensorFlow Transform on Beam, with the analyzers' results that went into them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.transform.tft import functions

ROWS = 60


@dataclass
class Reference:
    """Beam's artifact of one function.

    Attributes:
        values: The analyzers' results by the name of the analyzer's tensor; files as paths.
    """

    folder: Path
    values: dict[str, np.ndarray | Path]


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    """All functions analysed in one Beam pipeline."""
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from tensorflow_transform import impl_helper

    folder = tmp_path_factory.mktemp("beam")
    values: dict[str, dict[str, np.ndarray | Path]] = {}
    original = impl_helper.trace_and_write_v2_saved_model

    def recorded(saved_model_dir: str, preprocessing_fn: Any, *arguments: Any, **named: Any) -> None:
        replacements = named.get("tensor_replacement_map", arguments[3])
        found = values.setdefault(preprocessing_fn.__name__, {})
        for name, tensor in (replacements or {}).items():
            value = tensor.numpy()
            if isinstance(value, bytes) and Path(value.decode()).is_file():
                copy = folder / "files" / preprocessing_fn.__name__ / name.replace(":", "_") / Path(value.decode()).name
                copy.parent.mkdir(parents=True, exist_ok=True)
                found[name] = Path(shutil.copyfile(value.decode(), copy))
            else:
                found[name] = value
        original(saved_model_dir, preprocessing_fn, *arguments, **named)

    batch, config = _record_batch(functions.rows(ROWS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(impl_helper, "trace_and_write_v2_saved_model", recorded)
        context = tft_beam.Context(temp_dir=str(folder / "temp"), use_deep_copy_optimization=True)
        with beam.Pipeline(runner=FnApiRunner()) as pipeline, context:
            data = pipeline | beam.Create([batch])
            for function in functions.ALL:
                name = function.__name__
                analysed = (data, config) | name >> tft_beam.AnalyzeDataset(function)
                _ = analysed | f"Write{name}" >> tft_beam.WriteTransformFn(str(folder / name))
    return {f.__name__: Reference(folder / f.__name__, values.get(f.__name__, {})) for f in functions.ALL}


def _record_batch(rows: list[dict]) -> tuple[pa.RecordBatch, Any]:
    """Rows as TFXIO has them, and how tensors are made of them."""
    import tensorflow_transform as tft
    from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig
    from tfx_bsl.tfxio.tensor_representation_util import InferTensorRepresentationsFromMixedSchema

    columns = {}
    for name in rows[0]:
        lists = [row[name] if isinstance(row[name], list) else [row[name]] for row in rows]
        flat = [value for values in lists for value in values]
        type_ = {str: pa.large_binary(), int: pa.int64(), float: pa.float32()}[type(flat[0])]
        columns[name] = pa.array(lists, pa.large_list(pa.large_string() if type_ == pa.large_binary() else type_))
        columns[name] = columns[name].cast(pa.large_list(type_))
    batch = pa.RecordBatch.from_pydict(columns)
    schema = tft.DatasetMetadata.from_feature_spec(functions.FEATURE_SPEC).schema
    return batch, TensorAdapterConfig(batch.schema, InferTensorRepresentationsFromMixedSchema(schema))
