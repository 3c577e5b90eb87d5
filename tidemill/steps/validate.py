"""The `validate` step: computes statistics and checks schema, drift and leakage."""

from __future__ import annotations

from tidemill.experiment.features import Feature
from tidemill.experiment.source import Drift, Leakage
from tidemill.section import Column, Labels, Section


class ValidateSpec(Section):
    """The settings of one `validate` step."""

    code: str
    labels: Labels
    key: list[Column]
    features: dict[Column, Feature] | None
    feature_columns: list[Column] | None
    """Raw columns that features read. None: all columns except key, labels and the split's column."""
    split_column: Column | None
    schema_text: str | None
    """The given schema as a text protocol buffer. None: the step infers one."""
    drift: Drift
    leakage: Leakage
    previous: str | None
    """URI of the published model whose statistics `drift.between: [previous]` compares with."""
