"""Combinations of members: NumPy and TensorFlow, fitting and cross-fitting."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.auc_and_log_loss import log_loss, measure
from tidemill.ensembling.ensemble import OutOfFold, cross_fitted_scores, fit
from tidemill.models.core.ensemble_model import Combination

pytestmark = pytest.mark.tensorflow
METHODS = ("mean", "rank_mean", "stack")


def member_scores(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores of a good member, of an overconfident one and of a random one, and the labels."""
    draw = np.random.default_rng(seed)
    logit = draw.normal(size=rows)
    labels = (draw.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    logits = np.stack([logit + draw.normal(0, 0.5, rows), 5 * logit + draw.normal(0, 4, rows), draw.normal(size=rows)])
    return 1 / (1 + np.exp(-logits.T)), labels


@pytest.mark.parametrize("method", METHODS)
def test_tensorflow_gives_the_scores_of_numpy(method):
    scores, labels = member_scores(2000)
    combination = fit(method, scores[:1000], labels[:1000])
    scores[-4:] = [[0, 0, 0], [1, 1, 1], [0, 1, 0.5], scores[0]]
    assert combination.tensor(tf.constant(scores)).numpy() == pytest.approx(combination(scores), abs=1e-12)


@settings(max_examples=40)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.2, 0.7, 1.0]), min_size=2, max_size=12), st.integers(0, 999))
def test_tensorflow_ranks_equal_scores_like_numpy(values, seed):
    quantiles = tuple(sorted(values))
    combination = Combination("rank_mean", 0.1, (0.9,), (quantiles,))
    scores = np.concatenate([values, np.random.default_rng(seed).random(20)])[:, None]
    assert combination.tensor(tf.constant(scores)).numpy() == pytest.approx(combination(scores), abs=1e-12)


def test_a_stack_is_better_than_its_members_and_weights_the_good_one_most():
    scores, labels = member_scores(20_000)
    stack = fit("stack", scores[:10_000], labels[:10_000])
    combined = log_loss(labels[10_000:], stack(scores[10_000:]))
    assert combined < min(log_loss(labels[10_000:], column) for column in scores[10_000:].T)
    assert stack.weights[0] > 0.3 and abs(stack.weights[2]) < 0.1


def test_rank_mean_is_calibrated():
    scores, labels = member_scores(20_000)
    combined = fit("rank_mean", scores, labels)(scores)
    # A logistic regression with a bias has the mean of the labels.
    assert combined.mean() == pytest.approx(labels.mean(), abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_scores_of_a_fold_come_from_the_other_folds(method):
    scores, labels = member_scores(3000)
    folds = np.arange(3000) % 3
    combined = cross_fitted_scores(method, OutOfFold(labels, folds, scores))
    expected = fit(method, scores[folds != 1], labels[folds != 1])(scores[folds == 1])
    assert np.array_equal(combined[folds == 1], expected)
    assert measure(labels, combined)["auc"] > 0.6
