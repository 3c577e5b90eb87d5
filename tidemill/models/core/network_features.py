"""The features of a network: as one vector, as fields of one size, or as a linear term."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tidemill.models.core.inputs import TableSizes
from tidemill.models.core.layers import Embeddings, FieldSum, NumberVectors

EMBEDDINGS = "embeddings"
_LIMIT = 0.01
"""Largest absolute value of an initial embedding. A value that train does not contain keeps its initial embedding, so a
large one would add noise to the scores of unseen users and items."""


@dataclass(frozen=True)
class Features:
    """The inputs of a network.

    Attributes:
        ids: [batch, id features] int32, or None without id features.
        numbers: [batch, number features] float32, or None without number features.
        sizes: Sizes of the embedding tables.
        dim: Size of the vectors that `fields` returns.
        l2: Penalty on the embeddings of a batch.
        labels: Number of labels, which is the number of logits.
    """

    ids: keras.KerasTensor | None
    numbers: keras.KerasTensor | None
    sizes: TableSizes
    dim: int
    l2: float
    labels: int

    def embedded(self) -> list[keras.KerasTensor]:
        """Embeds the ids. Call it once: each call creates tables.

        Returns:
            A tensor [batch, features of the size, size] for each embedding size. Empty without id features.
        """
        if self.ids is None:
            return []
        return self._look_up(self.sizes.dims, _LIMIT, EMBEDDINGS)

    def flat(self, embedded: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        """Concatenates embeddings and numbers to one vector, [batch, d]."""
        vectors = [keras.layers.Flatten()(of_size) for of_size in embedded]
        return concatenated([*vectors, *([] if self.numbers is None else [self.numbers])], "input")

    def fields(self, embedded: Sequence[keras.KerasTensor]) -> list[keras.KerasTensor]:
        """Projects embeddings of other sizes to `dim`. Returns tensors [batch, fields, `dim`]."""
        fields = []
        for of_size in embedded:
            size = of_size.shape[-1]
            project = keras.layers.Dense(self.dim, use_bias=False, name=f"project_{size}")
            fields.append(of_size if size == self.dim else project(of_size))
        return fields

    def all_fields(self, embedded: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        """Returns `fields`, and for each number a vector multiplied by the number, [batch, fields, `dim`]."""
        fields = self.fields(embedded)
        if self.numbers is not None:
            fields.append(NumberVectors(self.dim, name="number_vectors")(self.numbers))
        return concatenated(fields, "fields")

    def linear(self) -> keras.KerasTensor:
        """Returns a linear term, [batch, 1]: a weight for each id and each number, and a bias, all initially 0."""
        terms = []
        if self.ids is not None:
            (weights,) = self._look_up((1,) * len(self.sizes.rows), 0.0, "id_weights")
            terms.append(FieldSum(name="id_terms")(weights))
        if self.numbers is not None:
            terms.append(keras.layers.Dense(1, kernel_initializer="zeros", name="number_terms")(self.numbers))
        return added(terms, "linear")

    def _look_up(self, dims: Sequence[int], limit: float, name: str) -> list[keras.KerasTensor]:
        sizes = self.sizes
        num_ids = [len(slots) for slots in sizes.slots] or None
        layer = Embeddings(list(dims), list(sizes.rows), list(sizes.tables), self.l2, limit, num_ids, name=name)
        return layer(self.ids)


def added(tensors: Sequence[keras.KerasTensor], name: str) -> keras.KerasTensor:
    """Adds tensors of one shape."""
    if len(tensors) > 1:
        return keras.layers.Add(name=name)(list(tensors))
    return keras.layers.Identity(name=name)(tensors[0])


def concatenated(tensors: Sequence[keras.KerasTensor], name: str) -> keras.KerasTensor:
    """Concatenates tensors along axis 1."""
    return keras.layers.Concatenate(axis=1, name=name)(list(tensors)) if len(tensors) > 1 else tensors[0]


def mlp(x: keras.KerasTensor, widths: Sequence[int], dropout: float | None, name: str = "deep") -> keras.KerasTensor:
    """Applies dense layers with ReLU, each followed by dropout unless `dropout` is 0 or None."""
    for i, width in enumerate(widths):
        x = keras.layers.Dense(width, activation="relu", name=f"{name}_{i}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"{name}_dropout_{i}")(x)
    return x
