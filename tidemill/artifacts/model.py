"""The model artifact: its file names, `model.json`, and the signature files of the exported model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from tidemill import storage

DOCUMENT = "model.json"
"""Describes the model: see `ModelDocument`."""
KERAS_WEIGHTS = "model.keras"
LIGHTGBM_WEIGHTS = "model.txt"
HISTORY = "history.json"
"""The metrics of each epoch or round: see `tidemill.training.history`."""
LOGS = "logs"
"""The folder with TensorBoard's event file."""
SERVING = "Format-Serving"
"""The SavedModel from raw rows to scores."""
OUT_OF_FOLD = "out_of_fold.parquet"
"""Out-of-fold scores, written by the training run of a fold: see `tidemill.training.folds`."""
PUBLISHED = "tidemill"
"""The folder of a published version that holds `model.json` and the other files of Tidemill."""
INPUTS = "assets.extra/raw_columns.json"
"""File below the SavedModel that lists its inputs."""
OUTPUTS = "assets.extra/scores.json"
"""File below the SavedModel that lists its outputs."""


class ModelDocument(BaseModel):
    """The content of `model.json`. Fields without a value are absent from the file."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    family: str
    name: str
    """The member's name."""
    model_fingerprint: str
    """Fingerprint of the weights."""
    training_fingerprint: str | None = None
    """Fingerprint of everything that decides the weights."""
    transform_fingerprint: str | None = None
    """Fingerprint of the transform graph."""
    kept: int | None = None
    """Number of epochs, rounds or models that the model keeps."""
    valid: dict[str, float] | None = None
    """Metrics of the valid split."""
    out_of_fold: dict[str, float] | None = None
    """An ensemble's metrics of rows that its models have not seen."""
    config: dict[str, Any]
    """The member's section of the experiment file."""
    training: dict[str, Any] | None = None
    """The `training` section of the experiment file."""
    labels: list[str]
    features: list[dict[str, Any]]
    """Name and kind of each feature, and `num_ids` of id features."""
    unit: str | None = None
    """`epoch`, `round` or `model`: what `kept` counts."""
    versions: dict[str, str] | None = None
    """Versions of the libraries that decide the result."""
    embeddings: dict[str, Any] | None = None
    """Sizes of a network's embedding tables."""
    warm_start: dict[str, Any] | None = None
    """What a warm start copied from an earlier model."""
    backend: str | None = None
    """The framework that trained a network."""
    devices: int | None = None
    """Number of devices that shared a batch."""
    members: dict[str, int] | None = None
    """Number of models of each member of an ensemble."""
    combination: dict[str, Any] | None = None
    """How an ensemble combines its members."""

    @model_validator(mode="before")
    @classmethod
    def _one_label(cls, content: Any) -> Any:
        """Accepts documents of earlier versions, which have one `label`."""
        if isinstance(content, dict) and "labels" not in content and "label" in content:
            content = content | {"labels": [content["label"]]}
        return content

    @classmethod
    def read(cls, folder: Path) -> ModelDocument:
        """Reads the document of a model folder.

        Raises:
            FileNotFoundError: The folder has no document.
            ValueError: The document is not valid.
        """
        return cls.parse((folder / DOCUMENT).read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> ModelDocument:
        """Parses the text of a document.

        Raises:
            ValueError: The document is not valid.
        """
        return cls.model_validate_json(text)

    def warnings(self) -> list[str]:
        """Returns a sentence if training stopped at its limit while early stopping still saw an improvement."""
        training = self.training or {}
        key, limit = "training.epochs", training.get("epochs")
        if self.unit == "round":
            key, limit = f"rounds of {self.name}", self.config.get("rounds")
        if training.get("early_stopping") is None or self.kept is None or self.kept != limit:
            return []
        return [f"its last {self.unit}, number {limit:,}, is its best one: it may still improve; raise {key}"]

    def write(self, folder: Path) -> None:
        """Writes the document to a model folder."""
        storage.write_json(folder / DOCUMENT, self.model_dump(exclude_unset=True))


@dataclass(frozen=True)
class ServingInput:
    """An input of the exported model.

    Attributes:
        name: The raw column's name.
        dtype: `int64`, `float32` or `string`.
        is_list: Whether the column is a list.
        input: The input's name, which differs from `name` if TensorFlow does not accept that.
    """

    name: str
    dtype: str
    is_list: bool
    input: str


@dataclass(frozen=True)
class ServingOutput:
    """An output of the exported model: the label that it scores, and the output's name."""

    label: str
    output: str


def write_signature(saved_model: Path, inputs: Sequence[ServingInput], outputs: Sequence[ServingOutput]) -> None:
    """Writes the inputs and outputs of an exported model next to its SavedModel.

    `raw_columns.json` lists `name` and `dtype` of each input, `input` if the input has another name, and `is_list` if
    it is a list. `scores.json` lists `label` and `output` in the labels' order.
    """
    listed = []
    for each in inputs:
        renamed = {} if each.input == each.name else {"input": each.input}
        listed.append({"name": each.name, "dtype": each.dtype} | renamed | ({"is_list": True} if each.is_list else {}))
    (saved_model / INPUTS).parent.mkdir()
    for name, content in ((INPUTS, listed), (OUTPUTS, [asdict(each) for each in outputs])):
        (saved_model / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_inputs(saved_model: Path) -> list[ServingInput]:
    """Reads the inputs of an exported model."""
    listed = json.loads((saved_model / INPUTS).read_text(encoding="utf-8"))
    return [ServingInput(c["name"], c["dtype"], c.get("is_list", False), c.get("input", c["name"])) for c in listed]


def read_outputs(saved_model: Path) -> list[ServingOutput]:
    """Reads the outputs of an exported model. Empty for models of earlier versions, which do not list them."""
    path = saved_model / OUTPUTS
    listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [ServingOutput(each["label"], each["output"]) for each in listed]
