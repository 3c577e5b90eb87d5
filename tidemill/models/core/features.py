"""A row's features as a network takes them: as one vector, as fields of one size, or as a linear term."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tidemill.models.core.layers import Embeddings, FieldSum, NumberVectors
from tidemill.models.core.sizes import Sizes

EMBEDDINGS = "embeddings"


@dataclass(frozen=True)
class Features:
    """The inputs of a network.

    Attributes:
        ids: [batch, id features] int32; None where there are none.
        numbers: [batch, number features] float32; None where there are none.
        sizes: Of the embeddings.
        dim: Size of the vectors of `fields`.
        l2: Penalty on a batch's embeddings.
        labels: Number of labels, and so of logits.
    """

    ids: keras.KerasTensor | None
    numbers: keras.KerasTensor | None
    sizes: Sizes
    dim: int
    l2: float
    labels: int

    def embedded(self) -> list[keras.KerasTensor]:
        """The embeddings, a tensor [batch, features of one size, size] a size; empty without ids. Called once: the
        tables are this call's."""
        if self.ids is None:
            return []
        return self._tables(self.sizes.dims, 0.05, EMBEDDINGS)

    def flat(self, embedded: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        """Embeddings and numbers side by side, [batch, d]."""
        parts = [keras.layers.Flatten()(part) for part in embedded]
        return concatenated([*parts, *([] if self.numbers is None else [self.numbers])], "input")

    def fields(self, embedded: Sequence[keras.KerasTensor]) -> list[keras.KerasTensor]:
        """The embeddings as [batch, fields, `dim`] each; those of another size are projected."""
        same = []
        for part in embedded:
            size = part.shape[-1]
            project = keras.layers.Dense(self.dim, use_bias=False, name=f"project_{size}")
            same.append(part if size == self.dim else project(part))
        return same

    def all_fields(self, embedded: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        """Embeddings, and numbers times a vector each, [batch, fields, `dim`]."""
        parts = self.fields(embedded)
        if self.numbers is not None:
            parts.append(NumberVectors(self.dim, name="number_vectors")(self.numbers))
        return concatenated(parts, "fields")

    def linear(self) -> keras.KerasTensor:
        """A weight for each id and each number, and a bias, from 0: [batch, 1]."""
        parts = []
        if self.ids is not None:
            (weights,) = self._tables((1,) * len(self.sizes.rows), 0.0, "id_weights")
            parts.append(FieldSum(name="id_terms")(weights))
        if self.numbers is not None:
            parts.append(keras.layers.Dense(1, kernel_initializer="zeros", name="number_terms")(self.numbers))
        return added(parts, "linear")

    def _tables(self, dims: Sequence[int], limit: float, name: str) -> list[keras.KerasTensor]:
        found = self.sizes
        num_ids = [len(slots) for slots in found.slots] or None
        layer = Embeddings(list(dims), list(found.rows), list(found.tables), self.l2, limit, num_ids, name=name)
        return layer(self.ids)


def added(parts: Sequence[keras.KerasTensor], name: str) -> keras.KerasTensor:
    """The sum of tensors of one shape."""
    return keras.layers.Add(name=name)(list(parts)) if len(parts) > 1 else keras.layers.Identity(name=name)(parts[0])


def concatenated(parts: Sequence[keras.KerasTensor], name: str) -> keras.KerasTensor:
    """The parts side by side along axis 1."""
    return keras.layers.Concatenate(axis=1, name=name)(list(parts)) if len(parts) > 1 else parts[0]


def mlp(x: keras.KerasTensor, widths: Sequence[int], dropout: float, name: str = "deep") -> keras.KerasTensor:
    """Dense layers with ReLU, each followed by dropout where there is some."""
    for i, width in enumerate(widths):
        x = keras.layers.Dense(width, activation="relu", name=f"{name}_{i}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"{name}_dropout_{i}")(x)
    return x
