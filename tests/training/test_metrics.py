"""The metrics of training, compared with scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sk_log_loss
from sklearn.metrics import roc_auc_score

from tidemill.auc_and_log_loss import is_better, measure, measure_labels


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.1 + 1e-12, 0.5, 0.9, 1.0])), min_size=1))
def test_equals_scikit_learn(rows):
    labels, scores = np.array(rows, float).T
    values = measure(labels, scores)
    assert values["log_loss"] == pytest.approx(sk_log_loss(labels, scores, labels=[0, 1]), rel=1e-9)
    if len(set(labels)) == 2:
        assert values["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    else:
        assert "auc" not in values


def test_no_rows_have_no_metrics():
    assert measure(np.empty(0), np.empty(0)) == {}


def test_a_larger_auc_and_a_smaller_log_loss_are_better():
    assert is_better("auc", 0.8, 0.7) and not is_better("auc", 0.7, 0.7)
    assert is_better("log_loss", 0.3, 0.4) and not is_better("log_loss", 0.5, 0.4)


def test_several_labels_have_means_and_a_value_each():
    draw = np.random.default_rng(0)
    labels, scores = draw.integers(0, 2, (50, 2)), draw.random((50, 2))
    values = measure_labels(("a", "b"), labels, scores)
    each = [measure(labels[:, i], scores[:, i]) for i in range(2)]
    for metric in ("auc", "log_loss"):
        assert [values[f"{metric}_a"], values[f"{metric}_b"]] == [one[metric] for one in each]
        assert values[metric] == pytest.approx((each[0][metric] + each[1][metric]) / 2)
    assert measure_labels(("a",), labels[:, :1], scores[:, :1]) == each[0]
    labels[:, 1] = 0
    assert set(measure_labels(("a", "b"), labels, scores)) == {"log_loss", "auc_a", "log_loss_a", "log_loss_b"}
    assert measure_labels(("a", "b"), labels[:0], scores[:0]) == {}
