"""Measures a training step with a small and with a large embedding table.

    python benchmarks/embedding_step.py

The tables have 20,000 and 2,000,000 rows of 16 floats. A small network reads them. Batches have 4,096 rows with
uniformly drawn ids. Tidemill's step, which updates only the rows in the batch, and Keras's optimizer of the same name,
which updates the whole table, take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from tidemill.experiment.training import Optimizer, Training
from tidemill.models.core.inputs import Layout, Rows
from tidemill.models.core.layers import Embeddings
from tidemill.training.tensorflow_stepper import TensorFlowStepper

DIM = 16


def network(rows: int) -> tuple[keras.Model, list]:
    """Returns a network of one id feature, its embedding and a dense layer; and the network's tables."""
    ids = keras.Input((1,), dtype="int32", name="ids")
    embeddings = Embeddings([DIM], [rows])
    hidden = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(embeddings(ids)[0]))
    return keras.Model({"ids": ids}, keras.layers.Dense(1)(hidden)), embeddings.tables_by_size


def tidemill_step(rows: int, name: str) -> Callable[..., None]:
    """Returns Tidemill's step."""
    model, tables = network(rows)
    training = Training(optimizer=Optimizer(name=name))
    stepper = TensorFlowStepper(model, tables, Layout(("id",), (rows,), (), ("label",)), training, 1000)
    return lambda ids, numbers, labels: stepper.step(Rows(ids, numbers, labels))


def keras_step(rows: int, name: str) -> Callable[..., None]:
    """Returns a step with Keras's own optimizer."""
    model, _ = network(rows)
    optimizer = {"adam": keras.optimizers.Adam, "adagrad": keras.optimizers.Adagrad}[name]()
    optimizer.build(model.trainable_variables)
    weights = [variable.value for variable in model.trainable_variables]

    @tf.function
    def step(ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = model({"ids": ids}, training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tape.gradient(loss, weights), model.trainable_variables)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs=2, default=[20_000, 2_000_000])
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=20, help="steps in each turn")
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    draw = np.random.default_rng(0)
    steps = {}
    for name in ("adagrad", "adam"):
        for rows in args.rows:
            steps[name, "tidemill", rows] = tidemill_step(rows, name)
            steps[name, "keras", rows] = keras_step(rows, name)
    seconds: dict[tuple, list[float]] = {key: [] for key in steps}
    for turn in range(args.turns + 1):
        for key, step in steps.items():
            batches = [draw.integers(0, key[2], (args.batch, 1), np.int32) for _ in range(args.steps)]
            numbers, labels = np.empty((args.batch, 0), np.float32), np.zeros((args.batch, 1), np.float32)
            started = time.perf_counter()
            for ids in batches:
                step(ids, numbers, labels)
            if turn:  # the first turn compiles
                seconds[key].append((time.perf_counter() - started) / args.steps)
    print(f"milliseconds per step of {args.batch:,} rows, medians of {args.turns} turns of {args.steps} steps")
    for name in ("adagrad", "adam"):
        for optimizer in ("tidemill", "keras"):
            small, large = (statistics.median(seconds[name, optimizer, rows]) * 1e3 for rows in args.rows)
            sizes = " ".join(f"{rows:>9,} rows: {ms:7.2f}" for rows, ms in zip(args.rows, (small, large), strict=True))
            print(f"  {name:<8} {optimizer:<9} {sizes}   times {large / small:6.2f}")


if __name__ == "__main__":
    main()
