"""The `validate` step: computes statistics and checks schema, drift and leakage."""

from __future__ import annotations

from typing import Literal

from tidemill.experiment.features import Feature
from tidemill.experiment.source import Drift, Leakage, Unseen
from tidemill.section import Column, Fraction, Labels
from tidemill.steps.core.context import TrainingPlanContext
from tidemill.steps.core.spec import StepCode, StepSpec

CODE = StepCode("validate", libraries=("duckdb", "numpy", "pyarrow", "tensorflow-metadata"))


class ValidateSpec(StepSpec):
    """The settings of one `validate` step."""

    step: Literal["validate"] = "validate"
    labels: Labels
    key: list[Column]
    features: dict[Column, Feature] | None
    feature_columns: list[Column] | None
    """Raw columns that features read. None: all columns except key, labels and the split's column."""
    split_column: Column | None
    schema_text: str | None
    """The given schema as a text protocol buffer. None: the step infers one."""
    environment: str = "TRAINING"
    """The environment of the given schema in which the data is checked."""
    drift: Drift
    leakage: Leakage
    unseen: Unseen = Unseen()
    max_dropped_tokens: Fraction = 0.05
    previous: str | None
    """URI of the published model whose statistics `drift.between: [previous]` and a `drift_comparator` of the given
    schema compare with."""


def plan(context: TrainingPlanContext) -> ValidateSpec:
    """Plans the step."""
    experiment = context.experiment
    drift = experiment.validation.drift
    compares = "previous" in drift.between or "drift_comparator" in (context.schema_text or "")
    return ValidateSpec(
        code=CODE.fingerprint(),
        libraries=CODE.versions(),
        labels=context.labels,
        key=experiment.key,
        features=experiment.features,
        feature_columns=experiment.feature_columns() or None,
        split_column=experiment.split.column,
        schema_text=context.schema_text,
        environment=experiment.validation.environment,
        drift=drift,
        leakage=experiment.validation.leakage,
        unseen=experiment.validation.unseen,
        max_dropped_tokens=experiment.validation.max_dropped_tokens,
        previous=context.baseline if compares else None,
    )
