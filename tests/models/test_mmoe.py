"""Multi-gate Mixture-of-Experts, compared with the paper's formulas."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tidemill.models.core.inputs import Layout
from tidemill.models.core.layers import Mixture
from tidemill.models.core.registry import new_model
from tidemill.models.core.sizes import table_sizes
from tidemill.models.mmoe import Mmoe

RNG = np.random.default_rng(0)
ROWS = {
    "ids": np.array([[0], [3], [6], [3]], np.int32),
    "numbers": RNG.normal(size=(4, 2)).astype(np.float32),
}


def network(labels: int, **hyperparameters: object) -> keras.Model:
    keras.utils.set_random_seed(1)
    layout = Layout(("a",), (7,), ("x", "y"), tuple(f"label {i}" for i in range(labels)))
    config = Mmoe.model_validate({"family": "mmoe", "expert": [6, 5], "tower": [4], **hyperparameters})
    return new_model(config, layout).build(table_sizes(config, layout))


def outputs(network: keras.Model, *layers: str) -> list[np.ndarray]:
    return [np.asarray(keras.Model(network.input, network.get_layer(layer).output)(ROWS)) for layer in layers]


def dense(network: keras.Model, layer: str, x: np.ndarray) -> np.ndarray:
    weights = [np.asarray(weight) for weight in network.get_layer(layer).weights]
    return x @ weights[0] + (weights[1] if len(weights) > 1 else 0)


@pytest.mark.parametrize("labels", [1, 2, 5])
@pytest.mark.parametrize("experts", [1, 3])
def test_returns_a_logit_and_a_score_for_each_label(labels, experts):
    model = network(labels, experts=experts)
    logits, scores = outputs(model, "logit", "score")
    assert logits.shape == scores.shape == (4, labels)
    assert scores == pytest.approx(1 / (1 + np.exp(-logits)), rel=1e-5)


def test_gates_sum_to_one_and_differ():
    model = network(2, experts=3)
    one, other = outputs(model, "gate_0", "gate_1")
    assert one.shape == (4, 3)
    assert one.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-6) and (one > 0).all()
    assert not np.allclose(one, other)


def test_equals_the_formulas():
    """f^k(x) is the sum of g^k(x)_i f_i(x), with g^k(x) the softmax of W_k x, and y_k is h^k(f^k(x))."""
    model = network(2, experts=3)
    embedded = np.asarray(model.get_layer("embeddings")(ROWS["ids"])[0]).reshape(4, -1)
    x = np.concatenate([embedded, ROWS["numbers"]], axis=1)
    relu = lambda z: np.maximum(z, 0)  # noqa: E731
    experts = [relu(dense(model, f"expert_{i}_1", relu(dense(model, f"expert_{i}_0", x)))) for i in range(3)]
    (logits,) = outputs(model, "logit")
    for label in range(2):
        weights = np.exp(dense(model, f"gate_{label}", x))
        weights /= weights.sum(axis=1, keepdims=True)
        mixed = sum(weights[:, [i]] * experts[i] for i in range(3))
        tower = relu(dense(model, f"tower_{label}_0", mixed))
        assert logits[:, [label]] == pytest.approx(dense(model, f"tower_{label}_logit", tower), rel=1e-4, abs=1e-5)


def test_one_expert_is_a_shared_bottom():
    """The towers of all labels read the one expert, because its gate would always be 1."""
    model = network(3, experts=1)
    expert, logits = outputs(model, "expert_0_1", "logit")
    assert not [layer.name for layer in model.layers if layer.name.startswith(("gate", "mixture"))]
    for label in range(3):
        tower = np.maximum(dense(model, f"tower_{label}_0", expert), 0)
        assert logits[:, [label]] == pytest.approx(dense(model, f"tower_{label}_logit", tower), rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(np.asarray(Mixture()(np.ones((4, 1), np.float32), expert[:, None])), expert, rtol=1e-6)


def test_without_towers_a_logit_is_linear_in_the_experts():
    model = network(2, tower=[])
    mixed, logits = outputs(model, "mixture_1", "logit")
    assert logits[:, [1]] == pytest.approx(dense(model, "tower_1_logit", mixed), rel=1e-4, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_a_mixture_lies_between_its_experts(experts, width, seed):
    draw = np.random.default_rng(seed)
    weights = draw.dirichlet(np.ones(experts), 6).astype(np.float32)
    values = draw.normal(size=(6, experts, width)).astype(np.float32)
    mixed = np.asarray(Mixture()(weights, values))
    assert mixed == pytest.approx((weights[:, :, None] * values).sum(axis=1), abs=1e-5)
    assert (mixed <= values.max(axis=1) + 1e-5).all() and (mixed >= values.min(axis=1) - 1e-5).all()


@pytest.mark.parametrize(
    "hyperparameters", [{"experts": 0}, {"expert": []}, {"expert": [0]}, {"dropout": 1.0}], ids=str
)
def test_rejects_bad_settings(hyperparameters):
    with pytest.raises(ValidationError):
        Mmoe.model_validate({"family": "mmoe", **hyperparameters})


def test_a_saved_network_loads(tmp_path):
    model = network(2)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(np.asarray(model(ROWS)), np.asarray(loaded(ROWS)))
