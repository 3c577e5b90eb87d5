"""Deep & Cross Network V2 (Wang et al., 2020, arXiv:2008.13535), in the parallel structure: cross layers and a deep
network read the same input, and one logit reads both."""

from __future__ import annotations

import keras
from keras import ops

from tidemill.models.neural import LOGIT, NeuralModel


@keras.saving.register_keras_serializable(package="tidemill")
class Embeddings(keras.layers.Layer):
    """One embedding table for each id feature.

    Args:
        num_ids: For each feature the number of its ids.
        dim: Size of an embedding; smaller for features with fewer ids than that.
        l2: Penalty on the sum of squares of a row's embeddings, averaged over the batch. Defaults to 0.

    Call arguments: ids [batch, features] int32. Returns [batch, sum of the embeddings' sizes] float32.
    """

    def __init__(self, num_ids: list[int], dim: int, l2: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_ids, self.dim, self.l2 = list(num_ids), dim, l2

    def build(self, input_shape: tuple) -> None:
        self.tables = [
            self.add_weight(
                shape=(n, min(self.dim, n)),
                initializer=keras.initializers.RandomUniform(-0.05, 0.05),
                name=f"table_{i}",
            )
            for i, n in enumerate(self.num_ids)
        ]

    def call(self, ids):
        parts = [ops.take(table, ids[:, i], axis=0) for i, table in enumerate(self.tables)]
        embeddings = ops.concatenate(parts, axis=1)
        if self.l2:
            self.add_loss(self.l2 * ops.mean(ops.sum(ops.square(embeddings), axis=1)))
        return embeddings

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape[0], sum(min(self.dim, n) for n in self.num_ids)

    def get_config(self) -> dict:
        return super().get_config() | {"num_ids": self.num_ids, "dim": self.dim, "l2": self.l2}


@keras.saving.register_keras_serializable(package="tidemill")
class Cross(keras.layers.Layer):
    """A cross layer of DCN-V2 with a full matrix (equation 1 of the paper): x0 * (W x + b) + x.

    Call arguments: x0 and x, both [batch, d] float32. Returns [batch, d].
    """

    def build(self, x0_shape: tuple, x_shape: tuple) -> None:
        width = x_shape[-1]
        self.kernel = self.add_weight(shape=(width, width), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(width,), initializer="zeros", name="bias")

    def call(self, x0, x):
        return x0 * (ops.matmul(x, self.kernel) + self.bias) + x

    def compute_output_shape(self, x0_shape: tuple, x_shape: tuple) -> tuple:
        return x_shape


class DcnV2Model(NeuralModel):
    """DCN-V2. Ids are embedded, numbers go in as they are. Without cross layers what is left beside the deep network
    is a linear model; with an empty `deep` the cross layers stand alone."""

    def build(self, inputs: dict[str, keras.KerasTensor]) -> keras.KerasTensor:
        config = self.config
        parts = []
        if "ids" in inputs:
            embed = Embeddings(self.layout.num_ids, config.embedding_dim, config.l2_embedding, name="embeddings")
            parts.append(embed(inputs["ids"]))
        if "numbers" in inputs:
            parts.append(inputs["numbers"])
        x0 = keras.layers.Concatenate(name="input")(parts) if len(parts) > 1 else parts[0]
        crossed = x0
        for i in range(config.cross_layers):
            crossed = Cross(name=f"cross_{i}")(x0, crossed)
        deep = x0
        for i, width in enumerate(config.deep):
            deep = keras.layers.Dense(width, activation="relu", name=f"deep_{i}")(deep)
            if config.dropout:
                deep = keras.layers.Dropout(config.dropout, name=f"dropout_{i}")(deep)
        if config.deep:
            crossed = keras.layers.Concatenate(name="both")([crossed, deep])
        return keras.layers.Dense(1, name=LOGIT)(crossed)


MODEL = DcnV2Model
