"""The model of neural families: a Keras network. A family only defines how the logit is built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import keras
import numpy as np

from tidemill import fingerprint
from tidemill.artifacts.model import KERAS_WEIGHTS
from tidemill.distributions import installed_version
from tidemill.models.core import backend
from tidemill.models.core.base import Model
from tidemill.models.core.family import Network
from tidemill.models.core.inputs import Layout, Rows, TableSizes
from tidemill.models.core.layers import Embeddings
from tidemill.models.core.network_features import Features
from tidemill.models.core.user_code import user_errors

if TYPE_CHECKING:
    import tensorflow as tf

LOGIT = "logit"
_SHIFTED_LOGIT = "score_logit"


class NeuralModel(Model):
    """A Keras network from ids and numbers to the probabilities [batch, labels].

    The layer `logit` returns what training uses, because a logit does not saturate. If training used another share of
    label 1 than the data has (`negative_rate`, `positive_weight`), a shift corrects the logit before the last sigmoid.

    Attributes:
        fit_facts: What `facts` returns. `tidemill.training.networks` fills it.
    """

    unit = "epoch"
    libraries = ("tidemill", "keras", "numpy")

    def __init__(self, config: Network, layout: Layout):
        super().__init__(config, layout)
        self._config = config
        self.fit_facts: dict[str, Any] = {}
        self._network: keras.Model | None = None
        self._scorer: backend.ScoreFunction | None = None

    @property
    def config(self) -> Network:
        return self._config

    @property
    def network(self) -> keras.Model:
        """The Keras network."""
        if self._network is None:
            raise ValueError("the model has no network yet; fit or load it")
        return self._network

    @network.setter
    def network(self, network: keras.Model) -> None:
        self._network, self._scorer = network, None

    @classmethod
    def versions(cls) -> dict[str, str]:
        return super().versions() | {name: installed_version(name) for name in backend.distributions()}

    def facts(self) -> dict[str, Any]:
        return self.fit_facts

    def build(self, sizes: TableSizes, shift: float = 0.0, precision: str = "float32") -> keras.Model:
        """Builds a new network. Arguments as for `build_network`."""
        return build_network(self.config, self.layout, sizes, shift, precision)

    def predict_rows(self, rows: Rows) -> np.ndarray:
        if self._scorer is None:
            self._scorer = backend.scorer(self.network)
        return self._scorer(rows.ids, rows.numbers).astype(np.float64)

    def save(self, folder: Path) -> None:
        self.network.save(folder / KERAS_WEIGHTS)

    @classmethod
    def load(cls, folder: Path, config: Network, layout: Layout) -> NeuralModel:
        """Reads a model that `save` wrote."""
        model = cls(config, layout)
        model.network = cast(
            keras.Model, keras.saving.load_model(folder / KERAS_WEIGHTS, compile=False, safe_mode=True)
        )
        return model

    def fingerprint(self) -> str:
        weights = [[w.path, list(w.shape), _digest(np.asarray(w.value))] for w in self.network.weights]
        shift = self.network.get_layer(_SHIFTED_LOGIT).get_config()["offset"]
        spec = [self.config.origin, self.config.model_dump(mode="json"), self.layout.columns, shift]
        return fingerprint.of_json([*spec, weights])

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


def build_network(
    config: Network, layout: Layout, sizes: TableSizes, shift: float = 0.0, precision: str = "float32"
) -> keras.Model:
    """Builds a new network.

    Its inputs are `ids` [batch, id features] int32 and `numbers` [batch, number features] float32, each only if there
    are such features. Its output is the probabilities [batch, labels].

    Args:
        config: The family's hyperparameters.
        layout: The features and labels.
        sizes: Sizes of the embedding tables.
        shift: Added to the logit before the sigmoid. Defaults to 0.
        precision: Keras's dtype policy for all layers except embeddings and score. Defaults to `float32`.

    Raises:
        TidemillError: `invalid-value` if a user-defined family does not return a logit.
    """
    inputs = {}
    if layout.ids:
        inputs["ids"] = keras.Input((len(layout.ids),), dtype="int32", name="ids")
    if layout.numbers:
        inputs["numbers"] = keras.Input((len(layout.numbers),), dtype="float32", name="numbers")
    labels = len(layout.labels)
    features = Features(
        inputs.get("ids"), inputs.get("numbers"), sizes, config.embedding_dim, config.l2_embedding, labels
    )
    where = f"models.{config.name}.module"
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        with user_errors(config.origin, where):
            logit = config.logit(features)
            if not isinstance(logit, keras.KerasTensor) or logit.shape != (None, labels):
                raise TypeError(f"logit(features) returned {logit!r}, and must return a tensor [batch, {labels}]")
    finally:
        keras.config.set_dtype_policy(policy)
    with user_errors(config.origin, where):
        logit = keras.layers.Identity(dtype="float32", name=LOGIT)(logit)
        shifted = keras.layers.Rescaling(1.0, offset=shift, dtype="float32", name=_SHIFTED_LOGIT)(logit)
        score = keras.layers.Activation("sigmoid", dtype="float32", name="score")(shifted)
        network = keras.Model(inputs, score, name=config.family)
        _check_registered(network)
    for layer in embeddings_of(network):
        if layer.num_ids:
            layer.slots.assign(np.concatenate(sizes.slots))
    return network


def _check_registered(network: keras.Model) -> None:
    """Checks that Keras can read the network's layers back, which is otherwise found only after training."""
    for layer in network._flatten_layers():
        kind = type(layer)
        name = keras.saving.get_registered_name(kind)
        if not kind.__module__.startswith(("keras.", "tidemill.")) and keras.saving.get_registered_object(name) is None:
            want = "decorate it with @register of tidemill.models.core.layers"
            raise TypeError(f"the layer class {kind.__name__} is not registered, so Keras cannot read it back; {want}")


def logits_of(network: keras.Model) -> keras.Model:
    """Returns the network from the same inputs to its logits. Training uses it."""
    return keras.Model(network.input, network.get_layer(LOGIT).output)


def embeddings_of(network: keras.Model) -> list[Embeddings]:
    """Returns the network's embedding layers."""
    return [layer for layer in network.layers if isinstance(layer, Embeddings)]


def tables_of(network: keras.Model) -> list[keras.Variable]:
    """Returns the network's embedding tables."""
    return [table for layer in embeddings_of(network) for table in layer.tables_by_size]


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
