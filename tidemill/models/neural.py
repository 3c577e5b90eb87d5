"""The base of the Keras families: a family only says how its network is built."""

from __future__ import annotations

import abc
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tidemill import fingerprint
from tidemill.experiment.training import Model as Config
from tidemill.models.base import Model, Run
from tidemill.training import loop
from tidemill.training.input import Layout, Rows

WEIGHTS = "model.keras"
LOGIT = "logit"


class NeuralModel(Model):
    """A Keras network of two inputs, `ids` [batch, id features] int32 and `numbers` [batch, number features] float32
    (each only where there are such features), and one output, the probability [batch, 1]. The layer called `logit`
    gives what goes into the last sigmoid; training uses it, because a logit does not saturate."""

    unit = "epoch"
    libraries = ("tidemill", "tensorflow", "keras", "numpy")
    network: keras.Model

    @abc.abstractmethod
    def build(self, inputs: dict[str, keras.KerasTensor]) -> keras.KerasTensor:
        """The network up to the logit [batch, 1], which a layer named `logit` must give."""

    def fit(self, run: Run) -> int:
        loop.prepare(run.training.seed, run.training.threads)
        inputs = {}
        if self.layout.ids:
            inputs["ids"] = keras.Input((len(self.layout.ids),), dtype="int32", name="ids")
        if self.layout.numbers:
            inputs["numbers"] = keras.Input((len(self.layout.numbers),), dtype="float32", name="numbers")
        score = keras.layers.Activation("sigmoid", name="score")(self.build(inputs))
        self.network = keras.Model(inputs, score, name=self.family)
        logits = keras.Model(inputs, self.network.get_layer(LOGIT).output)
        return loop.fit(logits, self.layout, run, lambda split: self.predict(run.data, split))

    def predict_rows(self, rows: Rows) -> np.ndarray:
        return self._scores(rows.ids, rows.numbers).numpy().astype(np.float64)

    def save(self, folder: Path) -> None:
        self.network.save(folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path, config: Config, layout: Layout) -> NeuralModel:
        model = cls(config, layout)
        model.network = keras.saving.load_model(folder / WEIGHTS, compile=False, safe_mode=True)
        return model

    def fingerprint(self) -> str:
        weights = [[w.path, list(w.shape), _digest(w.value.numpy())] for w in self.network.weights]
        return fingerprint.of_json([self.config.model_dump(mode="json"), self.layout.columns, weights])

    def serving(self) -> tuple[Callable[[dict[str, tf.Tensor]], tf.Tensor], Any]:
        def score(features: dict[str, tf.Tensor]) -> tf.Tensor:
            inputs = {}
            if self.layout.ids:
                inputs["ids"] = tf.stack([features[name] for name in self.layout.ids], axis=1)
            if self.layout.numbers:
                inputs["numbers"] = tf.stack([features[name] for name in self.layout.numbers], axis=1)
            return tf.squeeze(self.network(inputs, training=False), axis=1)

        return score, [variable.value for variable in self.network.variables]

    @functools.cached_property
    def _scores(self) -> Callable[[np.ndarray, np.ndarray], tf.Tensor]:
        signature = [
            tf.TensorSpec([None, len(self.layout.ids)], tf.int32),
            tf.TensorSpec([None, len(self.layout.numbers)], tf.float32),
        ]

        @tf.function(input_signature=signature)
        def scores(ids: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
            return tf.squeeze(self.network(loop.network_inputs(self.network, ids, numbers), training=False), axis=1)

        return scores


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
