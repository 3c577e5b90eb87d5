"""tfx_bsl's TensorAdapter, for some tensors at a time. Imports TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapter, TensorAdapterConfig

from tidemill import fingerprint


class Adapter:
    """Turns columns of lists into the tensors that representations ask for.

    Args:
        schema: The Arrow schema of the record batches, perhaps with more columns.
        representations: By tensor how it is made from the columns.

    Attributes:
        specs: By tensor its `tf.TypeSpec`.
        schema: As given.
        fingerprint: Of both arguments.

    Raises:
        ValueError: tfx_bsl cannot make a tensor from its columns.
    """

    def __init__(self, schema: pa.Schema, representations: Mapping[str, schema_pb2.TensorRepresentation]):
        self.schema = schema
        self._representations = dict(representations)
        self.specs = TensorAdapter(TensorAdapterConfig(schema, self._representations)).TypeSpecs()
        described = {name: r.SerializeToString(deterministic=True).hex() for name, r in representations.items()}
        self.fingerprint = fingerprint.of_json([str(schema.remove_metadata()), described])

    def columns(self, names: Sequence[str]) -> list[str]:
        """The columns that some tensors are made from."""
        wanted = dict.fromkeys(column for name in names for column in columns_of(self._representations[name]))
        return [name for name in self.schema.names if name in wanted]

    def feed(self, batch: pa.RecordBatch, names: Sequence[str]) -> dict:
        """Some tensors of a record batch."""
        if not names:
            return {}
        schema, adapter = self._projected(tuple(names))
        return adapter.ToBatchTensors(_whole(batch.select(schema.names).cast(schema)), produce_eager_tensors=True)

    @functools.lru_cache(maxsize=32)  # noqa: B019 - an adapter lives as long as the analysis
    def _projected(self, names: tuple[str, ...]) -> tuple[pa.Schema, TensorAdapter]:
        schema = pa.schema([self.schema.field(name) for name in self.columns(names)])
        return schema, TensorAdapter(TensorAdapterConfig(schema, {name: self._representations[name] for name in names}))


def columns_of(representation: schema_pb2.TensorRepresentation) -> list[str]:
    """The columns that a representation reads."""
    kind = representation.WhichOneof("kind")
    if kind == "sparse_tensor":
        sparse = representation.sparse_tensor
        return [*sparse.index_column_names, sparse.value_column_name]
    if kind == "ragged_tensor":
        ragged = representation.ragged_tensor
        lengths = [p.row_length for p in ragged.partition if p.WhichOneof("kind") == "row_length"]
        # A length beside the values in a struct is a field of the same column.
        path = ragged.feature_path.step
        return [path[0], *(lengths if len(path) == 1 else [])]
    return [getattr(representation, kind).column_name]


def _whole(batch: pa.RecordBatch) -> pa.RecordBatch:
    """tfx_bsl reads the buffers of an array from their beginning, so a slice has to be copied."""
    if any(column.offset or _has_hidden(column) for column in batch.columns):
        return batch.take(pa.array(np.arange(batch.num_rows)))
    return batch


def _has_hidden(column: pa.Array) -> bool:
    """Whether a column of lists may have values behind it that no row shows, as the beginning of a longer one has."""
    return hasattr(column, "flatten") and hasattr(column, "values") and len(column.values) != len(column.flatten())
