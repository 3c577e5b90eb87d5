"""The `preprocess` step: runs TensorFlow Transform over the examples."""

from __future__ import annotations

from tidemill.experiment.compute import TransformEngine
from tidemill.experiment.features import Feature
from tidemill.section import Column, Labels


class PreprocessSpec(TransformEngine):
    """The settings of one `preprocess` step."""

    code: str
    labels: Labels
    key: list[Column]
    features: dict[Column, Feature] | None
    transform_module: str | None
    """Text of the transform module."""
    split_column: Column | None
