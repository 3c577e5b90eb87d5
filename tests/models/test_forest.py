"""Trees as TensorFlow ops, compared with LightGBM's own predictions."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.models.core.forest import Forest

TOLERANCE = 1e-6


def grow(seed: int, **settings_: object) -> tuple[lightgbm.Booster, np.ndarray, np.ndarray]:
    """Trains a booster, and returns it with its training rows.

    The features are a categorical one, one with NaN, one with many zeros, and one whose float32 values equal its
    thresholds.
    """
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(60, 600))
    ids = rng.integers(0, int(rng.integers(2, 90)), rows)
    numbers = rng.normal(size=(rows, 3)).astype(np.float32)
    numbers[rng.random(rows) < 0.3, 0] = np.nan
    numbers[rng.random(rows) < 0.5, 1] = 0.0
    numbers[:, 2] = np.round(numbers[:, 2], 1)
    logit = np.where(ids % 3 == 0, 1.0, -1.0) + np.nan_to_num(numbers[:, 0]) + 2 * (numbers[:, 1] > 0) + numbers[:, 2]
    labels = (logit + rng.normal(size=rows) > 0).astype(float)
    parameters = {
        "objective": "binary", "verbosity": -1, "seed": seed, "num_threads": 1, "num_leaves": 15, "min_data_in_leaf": 3,
        "min_data_per_group": 2, "cat_smooth": 1.0, "max_cat_to_onehot": 2, **settings_,
    }  # fmt: skip
    data = lightgbm.Dataset(np.column_stack([ids, numbers]), labels, categorical_feature=[0], params=parameters)
    return lightgbm.train(parameters, data, int(rng.integers(1, 25))), ids, numbers


def difference(booster: lightgbm.Booster, ids: np.ndarray, numbers: np.ndarray) -> float:
    """Returns the largest difference of the two predictions."""
    expected = booster.predict(np.column_stack([ids, numbers]))
    forest = Forest.parse(booster.model_to_string())
    columns = [tf.constant(ids, tf.int32), *(tf.constant(column) for column in numbers.T)]
    return float(np.abs(tf.function(forest.score)(columns).numpy() - expected).max())


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    zero_as_missing=st.booleans(),
    use_missing=st.booleans(),
    num_leaves=st.sampled_from([2, 7, 40, 200]),
    max_bin=st.sampled_from([5, 255]),
)
def test_equals_lightgbm(seed, **settings_):
    booster, ids, numbers = grow(seed, **settings_)
    rng = np.random.default_rng(seed)
    odd = rng.choice(np.float32([0.0, -0.0, 1e-36, -1e-36, 1e-30, np.inf, -np.inf, np.nan, 3e38]), (200, 3))
    near = numbers[rng.integers(0, len(numbers), (200, 3)), np.arange(3)]
    unseen = rng.integers(-2, 300, 200)
    all_ids = np.concatenate([ids, unseen, unseen])
    all_numbers = np.concatenate([numbers, odd, np.nextafter(near, np.float32(np.inf))])
    assert difference(booster, all_ids, all_numbers) < TOLERANCE


def test_compares_float32_values_with_float64_thresholds():
    """Values next to each threshold, on both sides, go where LightGBM sends them."""
    booster, ids, numbers = grow(1, max_bin=255)
    text = booster.model_to_string()
    cuts = [float(x) for line in text.splitlines() if line.startswith("threshold=") for x in line[10:].split()]
    cuts = np.float32([c for c in cuts if abs(c) < 1e30])
    around = np.concatenate([cuts, np.nextafter(cuts, np.float32(-np.inf)), np.nextafter(cuts, np.float32(np.inf))])
    numbers = np.column_stack([around, around, around])
    assert difference(booster, np.resize(ids, len(around)), numbers) < TOLERANCE


def test_a_tree_has_more_leaves_than_a_word_has_bits():
    booster, ids, numbers = grow(5, num_leaves=300, min_data_in_leaf=1, min_sum_hessian_in_leaf=0)
    assert Forest.parse(booster.model_to_string()).words > 1
    assert difference(booster, ids, numbers) < TOLERANCE


def test_a_model_without_splits_returns_the_base_rate():
    data = lightgbm.Dataset(np.zeros((50, 2)), np.arange(50) % 5 == 0)
    booster = lightgbm.train({"objective": "binary", "verbosity": -1}, data, 3)
    assert difference(booster, np.zeros(7, int), np.zeros((7, 1), np.float32)) < TOLERANCE


def test_flipped_bits_change_the_scores():
    """The comparison can fail."""
    booster, ids, numbers = grow(3)
    text = booster.model_to_string()
    line = next(x for x in text.splitlines() if x.startswith("cat_threshold="))
    flipped = "cat_threshold=" + " ".join(str(int(w) ^ 0xFFFF) for w in line[14:].split())
    forest = Forest.parse(text.replace(line, flipped))
    columns = [tf.constant(ids, tf.int32), *(tf.constant(column) for column in numbers.T)]
    got = forest.score(columns).numpy()
    assert np.abs(got - booster.predict(np.column_stack([ids, numbers]))).max() > TOLERANCE


def test_rejects_other_objectives():
    data = lightgbm.Dataset(np.random.default_rng(0).normal(size=(100, 2)), np.arange(100.0))
    booster = lightgbm.train({"objective": "regression", "verbosity": -1}, data, 2)
    with pytest.raises(ValueError, match="regression"):
        Forest.parse(booster.model_to_string())
