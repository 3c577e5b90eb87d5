"""Training of neural models: prepares the network and its stepper, runs the loop, and calibrates the scores."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tidemill.artifacts.examples import Dataset
from tidemill.models.core import backend
from tidemill.models.core.inputs import TableSizes, read_labels
from tidemill.models.core.neural import NeuralModel, logits_of, tables_of
from tidemill.models.core.sizes import count_ids, report, table_sizes, within_budget
from tidemill.models.core.user_code import user_errors
from tidemill.training import loop
from tidemill.training.fit_context import FitContext
from tidemill.training.stepper import Stepper
from tidemill.training.warm_start import EarlierModel, transfer

CALIBRATION_POSITIVES = 5_000
"""Rows of label 1 in valid that are enough to estimate the base rate within 1.5%. With fewer, train is used too."""
_MAX_SHIFT = 50.0


def fit_network(model: NeuralModel, context: FitContext) -> int:
    """Fits a network. Resumes from the newest checkpoint if there is one.

    Args:
        model: The model, whose `network` and `fit_facts` are set.
        context: Data and settings.

    Returns:
        The number of epochs that the weights have seen: the best epoch with early stopping, else the last.

    Raises:
        TidemillError: `training-diverged`, `invalid-value` for embeddings that do not fit the features and for a
            user-defined family that fails, and what a warm start raises.
        Preempted: SIGTERM arrived and a checkpoint is written.
    """
    training = context.training
    sizes = _table_sizes(model, context)
    stepper_class = select_stepper()
    stepper_class.prepare(training.seed, training.threads)
    # Leaving out or down-weighting rows of label 0 multiplies the odds of label 1.
    shift = math.log(training.negative_rate) - math.log(training.positive_weight)
    model.network = model.build(sizes, shift, training.precision)
    if training.warm_start is not None:
        _warm_start(model, training.warm_start, context)
    with user_errors(model.config.origin, f"models.{model.name}.module"):
        stepper = stepper_class(
            logits_of(model.network), tables_of(model.network), model.layout, training, loop.count_steps(context)
        )
        model.fit_facts |= {"backend": backend.current(), "devices": stepper.devices}
        predict = functools.partial(model.predict, context.data, check=context.notice.check)
        kept = loop.fit(stepper, model.layout, context, predict)
    if training.precision != "float32":
        _rebuild(model, sizes, shift)
    if shift and len(model.layout.labels) == 1:
        context.progress.phase("calibrate")
        shift += remaining_shift(context.data, list(model.layout.labels), predict)
        _rebuild(model, sizes, shift)
    return kept


def select_stepper() -> type[Stepper]:
    """Returns the stepper of this process's framework.

    Raises:
        TidemillError: `unsupported` if Keras runs on another framework.
    """
    if backend.framework() == "jax":
        from tidemill.training.jax_stepper import JaxStepper

        return JaxStepper
    from tidemill.training.tensorflow_stepper import TensorFlowStepper

    return TensorFlowStepper


def remaining_shift(data: Dataset, labels: list[str], predict: Callable[[str], np.ndarray]) -> float:
    """Returns what must be added to the logits to make the mean score equal the share of label 1.

    Correcting the odds by the sampling rate (He et al., ADKDD 2014, doi:10.1145/2648584.2648589) is exact for a model
    that predicts the true probabilities, and off by some percent for other models.

    Args:
        data: Transformed examples.
        labels: The one label.
        predict: Returns a split's scores, [rows, 1].

    Returns:
        The shift, or 0 if all rows have one label. It is estimated on the valid split and, if that has fewer than
        `CALIBRATION_POSITIVES` rows of label 1, on train too.
    """
    known = read_labels(data, "valid", labels)[:, 0]
    splits = ["valid"] if known.sum() >= CALIBRATION_POSITIVES else ["valid", "train"]
    known = np.concatenate([read_labels(data, split, labels)[:, 0] for split in splits])
    share = known.mean() if len(known) else 0.0
    if not 0 < share < 1:
        return 0.0
    from scipy.optimize import brentq
    from scipy.special import expit, logit

    scores = np.concatenate([predict(split)[:, 0] for split in splits if data.rows(split)])
    smallest = np.finfo(np.float32).tiny
    logits = logit(np.clip(scores, smallest, 1 - np.finfo(np.float32).epsneg))
    root: Any = brentq(lambda shift: expit(logits + shift).mean() - share, -_MAX_SHIFT, _MAX_SHIFT)
    return float(root)


def _table_sizes(model: NeuralModel, context: FitContext) -> TableSizes:
    sizes = table_sizes(model.config, model.layout)
    budget, counts = model.config.max_embedding_bytes, None
    if budget is not None:
        counts = count_ids(context.data, model.layout)
        sizes = within_budget(sizes, counts, budget, f"models.{model.name}.max_embedding_bytes")
    model.fit_facts = {"embeddings": report(sizes, model.layout, counts)}
    return sizes


def _warm_start(model: NeuralModel, uri: str, context: FitContext) -> None:
    if context.graph is None:
        raise ValueError("a warm start needs the transform graph")
    context.progress.phase("transfer weights from an earlier model")
    transferred = transfer(EarlierModel(uri), model.network, model.layout, context.graph)
    context.progress.phase(
        f"transferred vectors of {len(transferred['features'])} features and {transferred['weights']} other weights"
    )
    model.fit_facts["warm_start"] = {"from": uri} | transferred


def _rebuild(model: NeuralModel, sizes: TableSizes, shift: float) -> None:
    """Builds the network with another shift, in float32, and keeps its weights."""
    weights = model.network.get_weights()
    model.network = model.build(sizes, shift, "float32")
    model.network.set_weights(weights)
