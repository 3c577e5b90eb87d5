"""The sections `evaluation` and `predict`: when a model is good enough to publish, and what it scores."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from tidemill.experiment.source import Source
from tidemill.metric_definitions import Metric
from tidemill.section import Column, PositiveInt, Section, Seed


class Bounds(Section):
    """Bounds of one metric. A model must meet every bound that is given."""

    min: float | None = None
    """Smallest value."""
    max: float | None = None
    """Largest value."""
    better_than_baseline: float | None = None
    """By how much the metric must be better than the baseline's, the published model's on the same rows; 0.0 means not
    worse. If no published model predicts the label, the gate passes."""

    def is_empty(self) -> bool:
        """Whether no bound is given."""
        return self.min is None and self.max is None and self.better_than_baseline is None


class SliceGate(Bounds):
    """A condition on one metric of each slice of the test split."""

    columns: Annotated[list[Column], Field(min_length=1)] | None = None
    """The entry of `evaluation.slices` whose slices are judged. Defaults to all entries."""
    min_rows: PositiveInt = 100
    """Slices with fewer rows are not judged, because chance decides their metrics."""

    @model_validator(mode="after")
    def _some_condition(self) -> SliceGate:
        if self.is_empty():
            raise ValueError("give min, max or better_than_baseline")
        return self


class Gate(Bounds):
    """A condition on one metric of the test split, and of its slices."""

    slices: list[SliceGate] = []
    """Conditions that each slice must meet. A slice in which the metric has no value, such as one with a single class,
    is not judged."""

    @model_validator(mode="after")
    def _some_condition(self) -> Gate:
        if self.is_empty() and not self.slices:
            raise ValueError("give min, max, better_than_baseline or slices")
        return self


class Bootstrap(Section):
    """Confidence intervals by the percentile bootstrap (Efron, 1979)."""

    resamples: Annotated[int, Field(ge=0, le=10_000)] = 200
    """Number of resamples. 0 computes no intervals."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Coverage of the interval."""
    seed: Seed = 0
    """Seed of the resampling."""


class Evaluation(Section):
    """Metrics of the test split and the gates."""

    objective: Metric = "auc"
    """The metric on the valid split that chooses among the blessed members. With several labels, their mean."""
    slices: list[Annotated[list[Column], Field(min_length=1)]] = []
    """Lists of columns. For each list, metrics are also computed for each combination of the columns' values."""
    max_slices: PositiveInt = 50
    """Largest number of slices for each list, by number of rows. The rest forms the slice `(other)`."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Score from which a row counts as positive, for accuracy and the confusion matrix."""
    bootstrap: Bootstrap = Bootstrap()
    gates: dict[Metric, Gate] = {}
    """Conditions by metric. A model that meets all of them, for every label, is blessed."""
    better_than_base_rate: bool = True
    """Whether a model is blessed only if its log loss on the test split is at most that of the base rate: of a model
    that predicts the share of label 1 in train for every row."""

    @model_validator(mode="after")
    def _known_slices(self) -> Evaluation:
        for index, columns in enumerate(self.slices):
            if len(set(columns)) < len(columns):
                raise ValueError(f"slices names a column twice in {columns}")
            if columns in self.slices[:index]:
                raise ValueError(f"slices has {columns} twice")
        for metric, gate in self.gates.items():
            for each in gate.slices:
                if not self.slices:
                    raise ValueError(f"gates.{metric}.slices needs evaluation.slices, which is empty")
                if each.columns is not None and each.columns not in self.slices:
                    have = ", ".join(map(str, self.slices))
                    raise ValueError(
                        f"gates.{metric}.slices: {each.columns} is not an entry of slices, which are {have}"
                    )
        return self


class Predict(Section):
    """The rows that the `batch_predict` pipeline scores, and the form of its output."""

    source: Source | None = None
    """The rows, in the same form as the experiment's `source`: the key and all raw columns that the features need. The
    label is not needed. Columns have the types that they had in the training of the published model, and tables without
    `null` have its null words; a table is recognized by its name. Defaults to the experiment's source."""
    shards: Annotated[int, Field(gt=0, le=10_000)] = 1
    """Number of Parquet files."""
    columns: list[Column] = []
    """Columns to copy to the predictions in addition to the key. Without a key all columns are copied, because only
    they say which row a score belongs to."""
    batch_size: PositiveInt = 8192
    """Rows per call of the model."""
