"""The `preprocess` step: runs TensorFlow Transform over the examples."""

from __future__ import annotations

from typing import Literal

from tidemill.experiment.compute import TransformEngine
from tidemill.experiment.features import Feature
from tidemill.section import Column, Labels
from tidemill.steps.core.context import TrainingPlanContext
from tidemill.steps.core.spec import StepCode, StepSpec

CODE = StepCode(
    "preprocess",
    libraries=(
        "duckdb",
        "numpy",
        "polars",
        "pyarrow",
        "tensorflow",
        "tensorflow-metadata",
        "tensorflow-transform",
        "tfx-bsl",
    ),
)


class PreprocessSpec(StepSpec, TransformEngine):
    """The settings of one `preprocess` step."""

    step: Literal["preprocess"] = "preprocess"
    labels: Labels
    key: list[Column]
    features: dict[Column, Feature] | None
    transform_module: str | None
    """Text of the transform module."""
    split_column: Column | None
    schema_given: bool = False
    """Whether the transform module receives columns with a shape in the schema as dense tensors. True if the user gives
    the schema."""


def plan(context: TrainingPlanContext) -> PreprocessSpec:
    """Plans the step."""
    experiment = context.experiment
    engine = {name: getattr(experiment.compute.preprocess, name) for name in TransformEngine.model_fields}
    return PreprocessSpec(
        code=CODE.fingerprint(),
        libraries=CODE.versions(*(() if engine["engine"] == "local" else ("apache-beam",))),
        labels=context.labels,
        key=experiment.key,
        features=experiment.features,
        transform_module=experiment.transform_module,
        split_column=experiment.split.column,
        schema_given=context.schema_text is not None and experiment.transform_module is not None,
        **engine,
    )
