"""The `train` step: trains one model and exports it for serving."""

from __future__ import annotations

from tidemill.experiment.models import Model
from tidemill.experiment.source import Split
from tidemill.experiment.training import Training
from tidemill.section import Column, Labels, Section


class Fold(Section):
    """The part of the train split that one training leaves out and scores."""

    index: int
    """Number of this fold, from 0."""
    of: int
    """Number of folds."""
    column: Column | None
    """Raw column whose equal values stay in one fold. None: each row is assigned by itself."""
    seed: int


class TrainSpec(Section):
    """The settings of one `train` step."""

    code: str
    experiment: str
    """The experiment's name, which names the folder of its logs."""
    model: Model
    training: Training
    labels: Labels
    split: Split
    fold: Fold | None = None
