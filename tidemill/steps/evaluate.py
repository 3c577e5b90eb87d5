"""The `evaluate` step: measures one model and applies the gates."""

from __future__ import annotations

from tidemill.experiment.evaluation import Evaluation
from tidemill.section import Column, Labels, Section


class EvaluateSpec(Section):
    """The settings of one `evaluate` step."""

    code: str
    experiment: str
    """The experiment's name."""
    labels: Labels
    key: list[Column]
    evaluation: Evaluation
    baseline: str | None
    """URI of the published model to compare with."""
