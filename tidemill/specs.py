"""What each step is told: the part of the experiment that it needs, and nothing else.

The `plan` step cuts the experiment into these specs, and each travels as one JSON parameter. A step's cache key holds
its spec and its input artifacts, so a changed hyperparameter reruns training and what follows, alone. `code` is the
library's version and source fingerprint: changed code never meets an old result.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tidemill.experiment.compute import TransformEngine
from tidemill.experiment.evaluation import Evaluation
from tidemill.experiment.features import Feature
from tidemill.experiment.models import Model
from tidemill.experiment.source import Drift, Leakage, Source, Split
from tidemill.experiment.training import Ensemble, Training
from tidemill.section import Column, Section

Labels = Annotated[list[Column], Field(min_length=1)]
"""The columns to predict, in the order of the experiment file."""


class SourceFile(Section):
    """One raw input file as it was when the run was planned."""

    table: str
    """The table that it belongs to."""
    uri: str
    """The file itself: no glob; `pkg://` URIs and zip members stay as they are."""
    bytes: int
    """Size as stored."""
    version: str
    """What changes when the bytes do: a content fingerprint for local files, the generation for `gs://`."""


class SourceRecord(Section):
    """The raw input of a run, from which everything can be recomputed. Kept at `ROOT/sources/<fingerprint>.json`."""

    fingerprint: str
    files: list[SourceFile]


class IngestSpec(Section):
    code: str
    stage: Literal["train", "predict"]
    """`predict`: labels are not needed, and all rows go to one split called `predict`."""
    source: Source
    """The source with empty URIs: files are taken from the record, so that the same bytes elsewhere are the same
    input."""
    source_fingerprint: str
    labels: list[Column]
    """Empty for `predict`."""
    key: list[Column]
    columns: list[Column] | None
    """Columns that must be there; None when a transform module decides."""
    split: Split
    schema_text: str | None
    """The given schema as a text protocol buffer."""


class ValidateSpec(Section):
    code: str
    labels: Labels
    key: list[Column]
    features: dict[Column, Feature] | None
    feature_columns: list[Column] | None
    """Raw columns that features are made of; None means all but key, labels and the split's column."""
    split_column: Column | None
    schema_text: str | None
    drift: Drift
    leakage: Leakage
    previous: str | None
    """URI of the published model whose statistics `drift.between: [previous]` compares with."""


class PreprocessSpec(TransformEngine):
    code: str
    labels: Labels
    key: list[Column]
    features: dict[Column, Feature] | None
    transform_module: str | None
    """The module's text."""
    split_column: Column | None


class Fold(Section):
    """A part of train that a training leaves out, to say something about it."""

    index: int
    """From 0."""
    of: int
    """Number of folds."""
    column: Column | None
    """Rows of one value of this raw column are in one fold. None: each row by itself."""
    seed: int


class TrainSpec(Section):
    code: str
    experiment: str
    """The experiment's name, for the folder of its logs."""
    model: Model
    training: Training
    labels: Labels
    split: Split
    fold: Fold | None = None


class EnsembleSpec(Section):
    code: str
    name: str
    """The ensemble's name in reports."""
    members: list[str]
    """Names of the members whose models it takes."""
    folds: int
    """Number of models of each member."""
    label: Column
    """Ensembles are of one label."""
    ensemble: Ensemble


class EvaluateSpec(Section):
    code: str
    experiment: str
    """The experiment's name."""
    labels: Labels
    key: list[Column]
    evaluation: Evaluation
    baseline: str | None
    """URI of the published model to compare with."""


class PublishSpec(Section):
    code: str
    experiment: str
    run_fingerprint: str
    """Of everything that decides the result: sources, all specs, code."""
    objective: str
    lineage: dict[str, Any]
    """The experiment as text, the source record, the code version."""


class PredictSpec(Section):
    code: str
    experiment: str
    model: str
    """URI of the published version, `…/<name>/<version>`."""
    key: list[Column]
    columns: list[Column]
    shards: int
    batch_size: int
    output: str
    """URI of the folder to write."""
