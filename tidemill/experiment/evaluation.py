"""`evaluation`, `publish` and `predict`: when a model is good enough, and what is done with it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidemill.experiment.source import Source
from tidemill.section import Column, PositiveInt, Section, Seed

Metric = Literal["auc", "pr_auc", "log_loss", "normalized_entropy", "calibration", "ece", "accuracy"]


class Gate(Section):
    """A condition on one metric of the test split. Every condition that is given must hold."""

    min: float | None = None
    """Least value."""
    max: float | None = None
    """Largest value."""
    better_than_baseline: float | None = None
    """By how much the metric must be better than the published model's on the same rows (0.0: not worse). Holds where
    no published model predicts the label yet."""

    @model_validator(mode="after")
    def _some_condition(self) -> Gate:
        if self.min is None and self.max is None and self.better_than_baseline is None:
            raise ValueError("give min, max or better_than_baseline")
        return self


class Bootstrap(Section):
    """Confidence intervals by the percentile bootstrap (Efron, 1979)."""

    resamples: Annotated[int, Field(ge=0, le=10_000)] = 200
    """Number of resamples; 0 for no intervals."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Coverage of the interval."""
    seed: Seed = 0


class Evaluation(Section):
    """Metrics of the test split and the gates."""

    objective: Metric = "auc"
    """The metric, on the valid split, by which the best member is chosen; of several labels the mean."""
    slices: list[Annotated[list[Column], Field(min_length=1)]] = []
    """Columns, alone or combined, by whose values the metrics are also given."""
    max_slices: PositiveInt = 50
    """Most values of one slicing, the largest first; the rest is summed up as `(other)`."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability from which on a row counts as positive, for accuracy and the confusion matrix."""
    bootstrap: Bootstrap = Bootstrap()
    gates: dict[Metric, Gate] = {}
    """Conditions that decide whether a model is blessed, and must hold for every label. Without gates every model
    is."""


class Predict(Section):
    """What the `batch_predict` pipeline scores."""

    source: Source | None = None
    """The rows, in the form of the experiment's `source`, with all raw columns that the features need and the key,
    without the label. Defaults to the experiment's source."""
    shards: Annotated[int, Field(gt=0, le=10_000)] = 1
    """Number of Parquet files."""
    columns: list[Column] = []
    """Further columns to carry beside the key."""
    batch_size: PositiveInt = 8192
    """Rows a call of the model."""
