"""The `ensemble` step: combines the models of folds and members into one model."""

from __future__ import annotations

from tidemill.experiment.training import Ensemble
from tidemill.section import Column, Section


class EnsembleSpec(Section):
    """The settings of one `ensemble` step."""

    code: str
    name: str
    """The ensemble's name in reports."""
    members: list[str]
    """Names of the members to combine."""
    folds: int
    """Number of models of each member."""
    label: Column
    """The label. An ensemble predicts only one."""
    ensemble: Ensemble
