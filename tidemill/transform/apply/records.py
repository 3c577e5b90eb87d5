"""Any transform graph on any rows, as the record batches that TensorFlow Transform makes. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import impl_helper

from tidemill.transform.apply.saved import SavedTransform
from tidemill.transform.rows.rows import Rows


def transform_batches(folder: Path, rows: Rows) -> Iterator[pa.RecordBatch]:
    """Transforms rows batch by batch, in their order, all in TensorFlow.

    Args:
        folder: With `transform_fn/` and `transformed_metadata/`. Outputs may be dense in any number of dimensions,
            sparse or ragged.
        rows: Of the kind that the graph was made for.

    Yields:
        A record batch for each of the rows' batches, as `tft_beam.TransformDataset` gives it for the same batch.
    """
    output = tft.TFTransformOutput(str(folder))
    saved = SavedTransform(output.transform_savedmodel_dir)
    convert = impl_helper.make_tensor_to_arrow_converter(output.transformed_metadata.schema).convert
    names = list(saved.outputs)
    function = saved.function(tf.nest.flatten([saved.outputs[name] for name in names], expand_composites=True))
    for file in rows.files:
        for unit in file.units:
            for batch in unit.batches(function.inputs):
                flat = function(rows.feed(batch, function.inputs))
                structure = [saved.outputs[name] for name in names]
                tensors = tf.nest.pack_sequence_as(structure, flat, expand_composites=True)
                yield convert(dict(zip(names, tensors, strict=True)))
