"""Scores of a model whose training saw another share of a label than there is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tidemill.artifacts.examples import Dataset
from tidemill.models.core.inputs import read_labels

ENOUGH = 5_000
"""Rows of label 1 of valid from which on train is not scored too: they give the base rate to within 1.5%."""
_LIMIT = 50.0


def remaining_shift(data: Dataset, labels: list[str], predict: Callable[[str], np.ndarray]) -> float:
    """What is still to be added to the logits so that the mean score is the share of label 1.

    Correcting the odds by the rate of sampling (He et al., ADKDD 2014, doi:10.1145/2648584.2648589) is exact for a
    model that gives the true probabilities, and off by some percent for one that does not.

    Args:
        data: Transformed examples.
        labels: The one label.
        predict: Gives a split's scores, [rows, 1].

    Returns:
        A number to add, 0 where all rows have one label. It is found on the valid split and, where that has less than
        5,000 rows of label 1, on train too.
    """
    known = read_labels(data, "valid", labels)[:, 0]
    splits = ["valid"] if known.sum() >= ENOUGH else ["valid", "train"]
    known = np.concatenate([read_labels(data, split, labels)[:, 0] for split in splits])
    share = known.mean() if len(known) else 0.0
    if not 0 < share < 1:
        return 0.0
    from scipy.optimize import brentq
    from scipy.special import expit, logit

    scores = np.concatenate([predict(split)[:, 0] for split in splits if data.rows(split)])
    smallest = np.finfo(np.float32).tiny
    logits = logit(np.clip(scores, smallest, 1 - np.finfo(np.float32).epsneg))
    return float(brentq(lambda shift: expit(logits + shift).mean() - share, -_LIMIT, _LIMIT))
