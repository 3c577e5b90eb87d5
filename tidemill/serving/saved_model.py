"""The exported model: a SavedModel from raw rows to probabilities, which contains the transform graph."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

from tidemill.artifacts.model import ServingInput, ServingOutput, write_signature
from tidemill.models.core.base import Model
from tidemill.serving.signatures import DENSE, EXAMPLES, score_names, signature_names
from tidemill.transform.dense_function import ExampleFunction, dense_spec
from tidemill.transform.graph import TransformGraph


def write_saved_model(model: Model, graph: TransformGraph, path: str | os.PathLike[str]) -> None:
    """Writes the SavedModel.

    Both signatures return a score [batch] float32 for each label, named by `score_names`:

    - `serving_default` takes each raw column [batch] as int64, float32 or string, with the sentinels of
      `transform.raw` for missing values; a list column is [batch, any], padded with sentinels. `signature_names` names
      the inputs.
    - `serialized_examples` takes `{"examples": [batch] string}`, `tf.Example` protos.

    Args:
        model: A fitted model.
        graph: The transform graph of its features.
        path: The folder to write.
    """
    inputs = signature_names([column.name for column in graph.raw_columns])
    module = _Serving(model, graph, inputs)
    specs = {inputs[column.name]: dense_spec(column, inputs[column.name]) for column in graph.raw_columns}
    texts = tf.TensorSpec([None], tf.string, name="examples")
    signatures = {
        DENSE: tf.function(module.dense, input_signature=[specs], autograph=False).get_concrete_function(),
        EXAMPLES: tf.function(module.examples, input_signature=[texts], autograph=False).get_concrete_function(),
    }
    tf.saved_model.save(module, str(path), signatures=signatures)
    write_signature(
        Path(path),
        [ServingInput(column.name, column.dtype, column.is_list, inputs[column.name]) for column in graph.raw_columns],
        [ServingOutput(label, output) for label, output in module.outputs.items()],
    )


class _Serving(tf.Module):
    """The saved object: the transform with its vocabularies, and the model's variables."""

    def __init__(self, model: Model, graph: TransformGraph, inputs: dict[str, str]):
        super().__init__()
        self._inputs = inputs
        self._transform = graph.dense_function()
        self._parse = ExampleFunction(self._transform, graph.raw_columns)
        self._score, self._variables = model.serving()
        self.outputs = score_names(model.layout.labels)

    def dense(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self._named(self._score(self._transform({name: raw[key] for name, key in self._inputs.items()})))

    def examples(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._named(self._score(self._parse(texts)))

    def _named(self, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: scores[:, i] for i, name in enumerate(self.outputs.values())}
