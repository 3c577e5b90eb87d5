"""Transform graphs of TensorFlow functions, written without an analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.transform.graph import FEATURES, TRANSFORM_FN, TransformGraph
from tidemill.transform.raw import RawColumn
from tidemill.transform.transformed import ShardTransformer

TF_DTYPES = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}
COLUMNS = (
    RawColumn("s", "string"),
    RawColumn("t", "string"),
    RawColumn("n", "int64"),
    RawColumn("m", "int64"),
    RawColumn("f", "float32"),
)
WORDS = [b"", b"a", b"b", b"B", b"zz", b"longer than twelve bytes", "größe".encode(), b"12", b"-7"]
_MANY_IDS = 2**31 - 1
Function = Callable[[Mapping[str, tf.SparseTensor], "Tables"], Mapping[str, tf.Tensor]]


class Tables:
    """Lookup tables over `WORDS`, as TFT makes them for `compute_and_apply_vocabulary`."""

    def __init__(self, folder: Path):
        path = folder / "words"
        path.write_bytes(b"\n".join(WORDS[1:]))
        self.asset = tf.saved_model.Asset(str(path))

        def words() -> tf.lookup.TextFileInitializer:
            whole, line = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
            return tf.lookup.TextFileInitializer(self.asset.asset_path, tf.string, whole, tf.int64, line)

        self._tables = {buckets: tf.lookup.StaticVocabularyTable(words(), buckets) for buckets in (1, 3)}
        self._tables[0] = tf.lookup.StaticHashTable(words(), -1)
        numbers = tf.lookup.KeyValueTensorInitializer(
            tf.constant([5, -3, 2**62], tf.int64), tf.range(3, dtype=tf.int64)
        )
        self._numbers = tf.lookup.StaticHashTable(numbers, 7)
        self.tables = [*self._tables.values(), self._numbers]

    def lookup(self, keys: tf.Tensor, oov_buckets: int) -> tf.Tensor:
        """Returns the ids of strings. With no out-of-vocabulary bucket an unknown string gets -1."""
        return self._tables[oov_buckets].lookup(keys)

    def lookup_number(self, keys: tf.Tensor) -> tf.Tensor:
        """Returns the ids of integers. An unknown integer gets 7."""
        return self._numbers.lookup(keys)


def write_graph(folder: Path, function: Function, columns: Sequence[RawColumn] = COLUMNS) -> TransformGraph:
    """Writes a function as a transform graph: its int64 outputs are ids, its float32 outputs are numbers.

    The label `y` is a raw column. The ids start at -1, to which the offset 1 is added, and fill int32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = tf.Module()
    tables = module.tables = Tables(folder)
    module.lookup_tables, module.asset = tables.tables, tables.asset
    specs = {c.name: tf.SparseTensorSpec([None, None], TF_DTYPES[c.dtype]) for c in columns}
    traced = tf.function(lambda inputs: dict(function(inputs, tables)), input_signature=[specs], autograph=False)
    module.transform_fn = traced.get_concrete_function()
    outputs = module.transform_fn.structured_outputs
    features = [
        {"name": name, "kind": "id", "num_ids": _MANY_IDS} if x.dtype == tf.int64 else {"name": name, "kind": "number"}
        for name, x in outputs.items()
    ]
    with artifact.write_folder(folder / "graph") as path:
        tf.saved_model.save(module, str(path / TRANSFORM_FN))
        facts = {
            "format": 1,
            "labels": ["y"],
            "computed_labels": {},
            "raw_columns": [vars(column) for column in columns],
            "features": features,
            "offsets": {feature["name"]: 1 for feature in features if feature["kind"] == "id"},
        }
        storage.write_json(path / FEATURES, facts)
    return TransformGraph(folder / "graph")


def make_table(columns: Mapping[str, list]) -> pa.Table:
    """Returns a table of columns with the label `y`."""
    types = {"string": pa.binary(), "int64": pa.int64(), "float32": pa.float32()}
    arrays = {c.name: pa.array(columns[c.name], types[c.dtype]) for c in COLUMNS if c.name in columns}
    count = len(next(iter(arrays.values())))
    return pa.table(arrays | {"y": pa.array(np.arange(count) % 2, pa.int8())})


def transform_with_tensorflow(graph: TransformGraph, source: Path, target: Path) -> pa.Table:
    """Transforms a file by running the whole graph on its rows, and returns the result."""
    ShardTransformer(graph).run(source, target, lambda rows: None)
    return pq.read_table(target)
