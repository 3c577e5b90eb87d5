"""A model that is a Keras network: the family only says how it is built."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tidemill import fingerprint
from tidemill.models.core import sizes
from tidemill.models.core.base import Model, Run
from tidemill.models.core.family import Family, Network
from tidemill.models.core.inputs import Layout, Rows
from tidemill.models.core.network import build, logits_of, tables_of
from tidemill.models.core.origin import own_errors
from tidemill.training import backend, loop
from tidemill.training.calibration import remaining_shift

if TYPE_CHECKING:
    import tensorflow as tf

WEIGHTS = "model.keras"


class NeuralModel(Model):
    """A Keras network from ids and numbers to the probabilities [batch, labels]. The layer called `logit` gives what
    training uses, because a logit does not saturate. Where training saw another share of the labels than there is, what
    goes into the last sigmoid is the logit corrected for that: by the rate of sampling and the weight, and with one
    label by what then is left between the mean score and the share of label 1."""

    unit = "epoch"
    libraries = ("tidemill", "keras", "numpy")
    config: Network
    network: keras.Model

    def __init__(self, config: Family, layout: Layout):
        super().__init__(config, layout)
        self._facts: dict = {}

    def fit(self, run: Run) -> int:
        training = run.training
        found = self._sizes(run)
        framework = backend.framework()
        framework.prepare(training.seed, training.threads)
        # Rows that were left out or weighed less were all of label 0: that multiplies the odds of label 1.
        shift = math.log(training.negative_rate) - math.log(training.positive_weight)
        self.network = self.build(found, shift, training.precision)
        if training.warm_start is not None:
            self._take_over(training.warm_start, run)
        with own_errors(self.config.origin, f"models.{self.name}.module", only_its_lines=True):
            stepper = framework.Steps(
                logits_of(self.network), tables_of(self.network), self.layout, training, loop.steps(run)
            )
            self._facts |= {"backend": backend.current(), "devices": stepper.devices}
            kept = loop.fit(stepper, self.layout, run, lambda split: self.predict(run.data, split, run.notice.check))
        if training.precision != "float32":
            self._rebuild(found, shift)
        if shift and len(self.layout.labels) == 1:
            run.progress.phase("calibrate")
            score = functools.partial(self.predict, run.data, check=run.notice.check)
            shift += remaining_shift(run.data, list(self.layout.labels), score)
            self._rebuild(found, shift)
        return kept

    def _rebuild(self, found: sizes.Sizes, shift: float) -> None:
        """The same weights in a network of another shift, in float32."""
        weights = self.network.get_weights()
        self.network = self.build(found, shift, "float32")
        self.network.set_weights(weights)
        self.__dict__.pop("_scores", None)

    @classmethod
    def versions(cls) -> dict[str, str]:
        return super().versions() | {name: importlib.metadata.version(name) for name in backend.distributions()}

    def facts(self) -> dict:
        return self._facts

    def predict_rows(self, rows: Rows) -> np.ndarray:
        return self._scores(rows.ids, rows.numbers).astype(np.float64)

    def save(self, folder: Path) -> None:
        self.network.save(folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path, config: Family, layout: Layout) -> NeuralModel:
        model = cls(config, layout)
        model.network = keras.saving.load_model(folder / WEIGHTS, compile=False, safe_mode=True)
        return model

    def fingerprint(self) -> str:
        weights = [[w.path, list(w.shape), _digest(np.asarray(w.value))] for w in self.network.weights]
        shift = self.network.get_layer("score_logit").get_config()["offset"]
        told = [self.config.origin, self.config.model_dump(mode="json"), self.layout.columns, shift]
        return fingerprint.of_json([*told, weights])

    def serving(self) -> tuple[Callable[[dict[str, tf.Tensor]], tf.Tensor], Any]:
        import tensorflow as tf

        def score(features: dict[str, tf.Tensor]) -> tf.Tensor:
            inputs = {}
            if self.layout.ids:
                inputs["ids"] = tf.stack([features[name] for name in self.layout.ids], axis=1)
            if self.layout.numbers:
                inputs["numbers"] = tf.stack([features[name] for name in self.layout.numbers], axis=1)
            return self.network(inputs, training=False)

        return score, [variable.value for variable in self.network.variables]

    def _take_over(self, uri: str, run: Run) -> None:
        from tidemill.training.warm_start import Earlier, take_over

        if run.graph is None:
            raise ValueError("a warm start needs the transform graph")
        run.progress.phase("take over what an earlier model has learned")
        taken = take_over(Earlier(uri), self.network, self.layout, run.graph)
        run.progress.phase(
            f"took over vectors of {len(taken['features'])} features and {taken['weights']} other weights"
        )
        self._facts["warm_start"] = {"from": uri} | taken

    def _sizes(self, run: Run) -> sizes.Sizes:
        found = sizes.sizes(self.config, self.layout)
        budget, counts = self.config.max_embedding_bytes, None
        if budget is not None:
            counts = sizes.count_ids(run.data, self.layout)
            found = sizes.within_budget(found, counts, budget, f"models.{self.name}.max_embedding_bytes")
        self._facts = {"embeddings": sizes.report(found, self.layout, counts)}
        return found

    def build(self, found: sizes.Sizes, shift: float = 0.0, precision: str = "float32") -> keras.Model:
        """A fresh network.

        Args:
            found: Sizes of the embeddings.
            shift: What is added to the logit before it becomes a score. Defaults to 0.
            precision: Keras's policy for all but embeddings and score.
        """
        return build(self.config, self.layout, found, shift, precision)

    @functools.cached_property
    def _scores(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        return backend.framework().scorer(self.network)


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
