"""The model for serving: a SavedModel from raw rows to probabilities, with the transform graph inside."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from tidemill.models.core.base import Model
from tidemill.transform.dense_function import ExampleFunction, dense_spec
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import RawColumn

FOLDER = "Format-Serving"
DENSE = "serving_default"
EXAMPLES = "serialized_examples"
SCORE = "score"
RAW_COLUMNS = "raw_columns.json"
SCORES = "scores.json"


def export(model: Model, graph: TransformGraph, path: str | os.PathLike) -> None:
    """Writes the SavedModel.

    Signatures, both giving for each label a score, [batch] float32. It is called `score` where there is one label, and
    `score_<label>` where there are several (`score_names`):

    - `serving_default`: every raw column [batch] as int64, float32 or string, with the sentinels of `transform.raw`
      where a value is missing; a list column [batch, any], filled up with them. Inputs are called like the columns, but
      for names that TensorFlow does not take (`signature_names`).
    - `serialized_examples`: `{"examples": [batch] string}`, `tf.Example` protos.

    `assets.extra/raw_columns.json` lists the inputs: `name`, `dtype`, `input` where the input has another name, and
    `is_list` where it is a list. `assets.extra/scores.json` lists the outputs in the labels' order: `label`, `output`.

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
    scores = [{"label": label, "output": output} for label, output in module.outputs.items()]
    for name, content in ((RAW_COLUMNS, listed), (SCORES, scores)):
        (extra / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def score_names(labels: Sequence[str]) -> dict[str, str]:
    """By label the name of its score: `score` for the only one, and else `score_` and the label, by the rules of
    `signature_names`, or `score_label_<place>`."""
    if len(labels) == 1:
        return {labels[0]: SCORE}
    return {label: f"{SCORE}_{name}" for label, name in signature_names(labels, "label").items()}


def signature_names(columns: Sequence[str], other: str = "column") -> dict[str, str]:
    """By column the name of its input: the column's own where it is made of letters of ASCII, digits and `_`, begins
    with a letter and differs from the others in more than upper and lower case; else `<other>_<place>`."""
    lower = [name.lower() for name in columns]
    plain = [re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) and lower.count(name.lower()) == 1 for name in columns]
    taken = {name for name, ok in zip(lower, plain, strict=True) if ok}
    names = {}
    for place, (name, ok) in enumerate(zip(columns, plain, strict=True)):
        substitute = f"{other}_{place}"
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
        self.outputs = score_names(model.layout.labels)

    def dense(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self._named(self._score(self._transform({name: raw[key] for name, key in self._inputs.items()})))

    def examples(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._named(self._score(self._parse(texts)))

    def _named(self, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: scores[:, place] for place, name in enumerate(self.outputs.values())}
