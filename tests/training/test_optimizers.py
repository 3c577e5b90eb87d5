"""Updates of a table's rows, compared with Keras's optimizers and with the formulas."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tidemill.experiment.training import Optimizer, Training
from tidemill.models.core.inputs import Layout, Rows
from tidemill.models.core.layers import Embeddings
from tidemill.training.stepper import Schedule
from tidemill.training.tensorflow_stepper import TensorFlowStepper, Updates

ROWS, DIM = 7, 3


def gradients(steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draws rows, some of them twice, and a gradient for each."""
    draw = np.random.default_rng(0)
    return [
        (draw.integers(0, ROWS - 1, 6).astype(np.int32), draw.normal(size=(6, DIM)).astype(np.float32))
        for _ in range(steps)
    ]


def start() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ROWS, DIM)).astype(np.float32)


def updated(steps: int, **settings: object) -> tuple[np.ndarray, np.ndarray]:
    """Returns a table and a dense variable after some steps with the same gradients."""
    table, dense = keras.Variable(start(), name="table"), keras.Variable(start(), name="dense")
    updates = Updates(Optimizer(learning_rate=0.1, **settings), steps, [table, dense], [table])
    for rows, values in gradients(steps):
        slices = tf.IndexedSlices(tf.constant(values), tf.constant(rows), tf.constant([ROWS, DIM]))
        updates.apply([slices, tf.convert_to_tensor(slices)])
    return table.numpy(), dense.numpy()


@pytest.mark.parametrize("name", ["adagrad", "sgd"])
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.5}, {"schedule": "cosine", "warmup_steps": 2}], ids=str)
def test_equals_a_dense_update(name, settings):
    """Adagrad and SGD do not change a row without a gradient."""
    table, dense = updated(20, name=name, **settings)
    assert table == pytest.approx(dense, abs=1e-5)
    assert np.array_equal(table[-1], start()[-1])


def test_adam_changes_only_rows_with_a_gradient():
    table, _ = updated(15, name="adam")
    expected = start().astype(np.float64)
    mean, square = np.zeros_like(expected), np.zeros_like(expected)
    for step, (rows, values) in enumerate(gradients(15), 1):
        summed = np.zeros_like(expected)
        np.add.at(summed, rows, values)
        seen = np.unique(rows)
        mean[seen] = 0.9 * mean[seen] + 0.1 * summed[seen]
        square[seen] = 0.999 * square[seen] + 0.001 * summed[seen] ** 2
        rate = 0.1 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        expected[seen] -= rate * mean[seen] / (np.sqrt(square[seen]) + 1e-7)
    assert table == pytest.approx(expected, abs=1e-4)
    assert np.array_equal(table[-1], start()[-1])


def test_weight_decay_does_not_change_tables():
    plain, decayed = updated(5, name="sgd"), updated(5, name="sgd", weight_decay=0.1)
    assert np.array_equal(plain[0], decayed[0])
    assert not np.array_equal(plain[1], decayed[1])


def test_schedules_warm_up_and_decay():
    steps = np.arange(100)

    def rates(kind: str) -> np.ndarray:
        return np.array([float(Schedule(2.0, kind, 10, 100)(step)) for step in steps])

    linear, cosine, constant = rates("linear"), rates("cosine"), rates("constant")
    assert constant[:10] == pytest.approx(0.2 * (steps[:10] + 1), rel=1e-5) and constant[10:] == pytest.approx(2.0)
    assert linear[10:] == pytest.approx(2 * (1 - (steps[10:] - 10) / 90), abs=1e-5)
    assert cosine[10:] == pytest.approx(1 + np.cos(np.pi * (steps[10:] - 10) / 90), abs=1e-5)


@pytest.mark.parametrize("name", ["adam", "adagrad", "sgd"])
def test_later_steps_do_not_change_a_snapshot(name):
    """A checkpoint is written while training continues. The snapshot may share memory with the variables."""
    stepper = small_stepper(name)
    start, whole = stepper.state(), small_stepper(name)
    stepper.step(small_batch(0))
    snapshot = stepper.state()
    copies = {key: [value.copy() for value in values] for key, values in snapshot.items()}
    for seed in range(1, 4):
        stepper.step(small_batch(seed))
    for key, values in copies.items():
        for i, value in enumerate(values):
            np.testing.assert_array_equal(snapshot[key][i], value, strict=True)
    assert not np.array_equal(start["weights"][0], snapshot["weights"][0])
    # Training from the snapshot, which stays as it is, ends with the same bits.
    whole.restore(snapshot)
    for seed in range(1, 4):
        whole.step(small_batch(seed))
    for key, values in stepper.state().items():
        for mine, other in zip(values, whole.state()[key], strict=True):
            np.testing.assert_array_equal(mine, other, strict=True)
    for mine, other in zip(snapshot["weights"], copies["weights"], strict=True):
        np.testing.assert_array_equal(mine, other, strict=True)


def small_stepper(name: str) -> TensorFlowStepper:
    """Returns a stepper of a table and a dense layer."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((1,), dtype="int32", name="ids")
    embeddings = Embeddings([DIM], [ROWS])
    network = keras.Model({"ids": ids}, keras.layers.Dense(1)(keras.layers.Flatten()(embeddings(ids)[0])))
    training = Training(optimizer=Optimizer(name=name, learning_rate=0.1))
    return TensorFlowStepper(network, embeddings.tables_by_size, Layout(("id",), (ROWS,), (), ("label",)), training, 10)


def small_batch(seed: int) -> Rows:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, (5, 1)).astype(np.float32)
    return Rows(draw.integers(0, ROWS, (5, 1), np.int32), np.empty((5, 0), np.float32), labels)
