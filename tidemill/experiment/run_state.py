"""How large the state of a run becomes in Argo, which keeps it in one object."""

from __future__ import annotations

from tidemill.experiment.experiment import Experiment

ARGO_BYTES = 1_048_576
"""Largest object of a run. Argo ends a run in an error when its compressed state makes the object larger."""

_OWN_BYTES = 205_000
_BYTES_OF_FOLD = 9_800
_BYTES_OF_ENSEMBLE = 27_000
_BYTES_OF_MEMBER = 18_600
"""Of the run without loops; of a fold's training; of an ensemble and its evaluation; of a training and its evaluation.
Measured with the compiler and the driver of KFP 2.17 and the node status of Argo 4.0.5, with a Retry node for each
template, as KFP's settings of Argo and those of `manifests/` make them."""


def train_bytes(experiment: Experiment) -> int:
    """Returns about how large the object of a `train` run becomes, if no pod is started again."""
    return _OWN_BYTES + _BYTES_OF_MEMBER * len(experiment.models)


def cross_validate_bytes(experiment: Experiment, folds: int) -> int:
    """Returns about how large the object of a `cross_validate` run becomes, if no pod is started again.

    Args:
        experiment: The experiment.
        folds: Number of folds.
    """
    members = len(experiment.models)
    ensembles = members + 1 if members > 1 else 1
    return _OWN_BYTES + _BYTES_OF_FOLD * members * folds + _BYTES_OF_ENSEMBLE * ensembles


def too_large(experiment: Experiment) -> str | None:
    """Returns why the experiment has too many trainings for a run on a cluster, or None.

    Args:
        experiment: The experiment. Without `training.folds` it is taken for one of the `train` pipeline.
    """
    members, folds = len(experiment.models), experiment.training.folds
    runs = [("train", f"{members} models", train_bytes(experiment))]
    if folds is not None:
        trainings = f"{members * folds} trainings of folds"
        runs.append(("cross_validate", trainings, cross_validate_bytes(experiment, folds)))
    large = [
        f"{pipeline} with {what} would take about {size:,} bytes, and Argo keeps {ARGO_BYTES:,} of a run's state"
        for pipeline, what, size in runs
        if size > ARGO_BYTES
    ]
    return f"on a cluster, {'; '.join(large)}; use fewer models or folds there" if large else None
