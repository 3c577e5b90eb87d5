"""The planning contexts: what the planners of the steps read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Imported for types only, so that a step's code does not reach the whole experiment.
    from tidemill.artifacts.model_columns import ModelColumns
    from tidemill.experiment import Experiment
    from tidemill.experiment.source import Source

DEFAULT_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class TrainingPlanContext:
    """The planning context of the training pipelines."""

    experiment: Experiment
    source_fingerprint: str
    """Fingerprint of the source record."""
    schema_text: str | None
    """The given schema as a text protocol buffer."""
    baseline: str | None
    """URI of the published model to compare with."""
    warm_start: str | None
    """URI of the published model that `training.warm_start: previous` stands for."""

    @property
    def labels(self) -> list[str]:
        """The columns to predict."""
        return self.experiment.label_columns()

    @property
    def folds(self) -> int:
        """Number of folds of a cross-validation."""
        return self.experiment.training.folds or DEFAULT_FOLDS


@dataclass(frozen=True, kw_only=True)
class PredictionPlanContext:
    """The planning context of batch prediction."""

    experiment: Experiment
    source: Source
    """The source of the rows to score."""
    source_fingerprint: str
    """Fingerprint of the source record."""
    model: str
    """URI of the published version to score with."""
    columns: ModelColumns
    """The columns that the version was trained on."""


def without_uris(source: Source) -> Source:
    """Returns a source without the files' URIs and `max_bytes`, which do not decide which rows are read.

    A spec has the source record's fingerprint, which stands for the files' content.
    """
    tables = {name: table.model_copy(update={"uri": ""}) for name, table in source.tables.items()}
    return source.model_copy(update={"tables": tables, "max_bytes": None})
