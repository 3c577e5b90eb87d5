"""The model for serving: a SavedModel from raw rows to probabilities, with the transform graph inside."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from tidemill.models.parts.base import Model
from tidemill.transform.function import ExampleFunction, dense_spec
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import RawColumn

FOLDER = "Format-Serving"
DENSE = "serving_default"
EXAMPLES = "serialized_examples"
SCORE = "score"


def export(model: Model, graph: TransformGraph, path: str | os.PathLike) -> None:
    """Writes the SavedModel.

    Signatures, both giving `{"score": [batch] float32}`:

    - `serving_default`: every raw column [batch] as int64, float32 or string, with the sentinels of `transform.raw`
      where a value is missing; a list column [batch, any], filled up with them. Inputs are called like the columns, but
      for names that TensorFlow does not take (`signature_names`).
    - `serialized_examples`: `{"examples": [batch] string}`, `tf.Example` protos.

    `assets.extra/raw_columns.json` lists the inputs: `name`, `dtype`, `input` where the input has another name, and
    `is_list` where it is a list.

    Args:
        model: A fitted model.
        graph: The transform graph that made its features.
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
    listed = [_listed(column, inputs[column.name]) for column in graph.raw_columns]
    extra = Path(path) / "assets.extra"
    extra.mkdir()
    (extra / "raw_columns.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def signature_names(columns: Sequence[str]) -> dict[str, str]:
    """By column the name of its input: the column's own where it is made of letters of ASCII, digits and `_`, begins
    with a letter and differs from the others in more than upper and lower case; else `column_<place>`."""
    lower = [name.lower() for name in columns]
    plain = [re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) and lower.count(name.lower()) == 1 for name in columns]
    taken = {name for name, ok in zip(lower, plain, strict=True) if ok}
    names = {}
    for place, (name, ok) in enumerate(zip(columns, plain, strict=True)):
        substitute = f"column_{place}"
        while substitute in taken:
            substitute += "_"
        names[name] = name if ok else substitute
    return names


def _listed(column: RawColumn, name: str) -> dict[str, str | bool]:
    named = {} if name == column.name else {"input": name}
    return {"name": column.name, "dtype": column.dtype} | named | ({"is_list": True} if column.is_list else {})


class _Serving(tf.Module):
    """What is saved: the transform with its vocabularies, and the model's variables."""

    def __init__(self, model: Model, graph: TransformGraph, inputs: dict[str, str]):
        super().__init__()
        self._inputs = inputs
        self._transform = graph.dense_function()
        self._parse = ExampleFunction(self._transform, graph.raw_columns)
        self._score, self._variables = model.serving()

    def dense(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {SCORE: self._score(self._transform({name: raw[key] for name, key in self._inputs.items()}))}

    def examples(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        return {SCORE: self._score(self._parse(texts))}
