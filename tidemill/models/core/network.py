"""Building a network from what a family says. Imports Keras, and none of the frameworks below it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tidemill.models.core.family import Network
from tidemill.models.core.features import Features
from tidemill.models.core.inputs import Layout
from tidemill.models.core.layers import Embeddings
from tidemill.models.core.origin import own_errors
from tidemill.models.core.sizes import Sizes

LOGIT = "logit"


def build(config: Network, layout: Layout, found: Sizes, shift: float = 0.0, precision: str = "float32") -> keras.Model:
    """A fresh network of two inputs, `ids` [batch, id features] int32 and `numbers` [batch, number features] float32
    (each only where there are such features), and one output, the probabilities [batch, labels].

    Args:
        config: The family.
        layout: The features and labels.
        found: Sizes of the embeddings.
        shift: What is added to the logit before it becomes a score. Defaults to 0.
        precision: Keras's policy for all but embeddings and score.

    Raises:
        TidemillError: `invalid-value` for a family of the user's own that does not give a logit.
    """
    inputs = {}
    if layout.ids:
        inputs["ids"] = keras.Input((len(layout.ids),), dtype="int32", name="ids")
    if layout.numbers:
        inputs["numbers"] = keras.Input((len(layout.numbers),), dtype="float32", name="numbers")
    labels = len(layout.labels)
    features = Features(
        inputs.get("ids"), inputs.get("numbers"), found, config.embedding_dim, config.l2_embedding, labels
    )
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        with own_errors(config.origin, f"models.{config.name}.module"):
            logit = config.logit(features)
            if not isinstance(logit, keras.KerasTensor) or logit.shape != (None, labels):
                raise TypeError(f"logit(features) gave {logit!r}, and must give a tensor [batch, {labels}]")
    finally:
        keras.config.set_dtype_policy(before)
    with own_errors(config.origin, f"models.{config.name}.module"):
        logit = keras.layers.Identity(dtype="float32", name=LOGIT)(logit)
        shifted = keras.layers.Rescaling(1.0, offset=shift, dtype="float32", name="score_logit")(logit)
        score = keras.layers.Activation("sigmoid", dtype="float32", name="score")(shifted)
        network = keras.Model(inputs, score, name=config.family)
    for layer in network.layers:
        if isinstance(layer, Embeddings) and layer.num_ids:
            layer.slots.assign(np.concatenate(found.slots))
    return network


def logits_of(network: keras.Model) -> keras.Model:
    """What training uses of a network: its inputs to its logits."""
    return keras.Model(network.input, network.get_layer(LOGIT).output)


def tables_of(network: keras.Model) -> list[keras.Variable]:
    """A network's embedding tables."""
    return [table for layer in network.layers if isinstance(layer, Embeddings) for table in layer.weights_of]


def network_inputs(network: keras.Model, ids: Any, numbers: Any) -> dict[str, Any]:
    """Those of the two tensors that the network has an input for."""
    return {name: value for name, value in (("ids", ids), ("numbers", numbers)) if name in network.input}
