"""Layers of click-through-rate networks, by backend-neutral Keras operations."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops


def register(layer: type) -> type:
    """Makes a layer known to Keras, so that networks are read back."""
    return keras.saving.register_keras_serializable(package="tidemill")(layer)


_look_up: contextvars.ContextVar[Callable | None] = contextvars.ContextVar("_look_up", default=None)


@contextlib.contextmanager
def looked_up_by(look_up: Callable[[keras.Variable, Any], Any]) -> Iterator[None]:
    """Within, `Embeddings` take rows from `look_up(variable, places)`, [batch, features, size] float32 at the places
    [batch, features] int32 of a table. A training step that wants gradients of these rows, and none of the table,
    gets hold of them here, whatever the network does before and after."""
    token = _look_up.set(look_up)
    try:
        yield
    finally:
        _look_up.reset(token)


@register
class Embeddings(keras.layers.Layer):
    """Embedding tables of id features. Those of one size lie in one variable, table below table: one lookup and one
    update serve them all.

    Args:
        dims: For each feature the size of its embedding.
        rows: For each feature the rows of its table.
        tables: For each feature the place of the feature whose table it reads. Defaults to its own.
        l2: Penalty on the sum of squares of a row's embeddings, averaged over the batch. Defaults to 0.
        limit: Initial weights are uniform between -limit and limit. Defaults to 0.05.
        num_ids: For each feature the number of its ids, where not each has a row of its own: `slots`, [sum of these]
            int32, then says which it has. Defaults to a row for each.

    Call arguments: ids [batch, features] int32. Returns a list of [batch, features of one size, size] float32.
    """

    def __init__(
        self,
        dims: list[int],
        rows: list[int],
        tables: list[int] | None = None,
        l2: float = 0.0,
        limit: float = 0.05,
        num_ids: list[int] | None = None,
        **kwargs,
    ):
        # Tables stay float32 under mixed precision: a variable that is cast is read, and updated, as a whole.
        super().__init__(autocast=False, **kwargs)
        self.dims, self.rows, self.l2, self.limit = list(dims), list(rows), l2, limit
        self.tables = list(range(len(dims))) if tables is None else list(tables)
        self.num_ids = None if num_ids is None else list(num_ids)

    def build(self, input_shape: tuple) -> None:
        self.groups: list[list[int]] = []
        self.weights_of: list[keras.Variable] = []
        offsets = [0] * len(self.dims)
        for dim in dict.fromkeys(self.dims):
            group = [place for place, own in enumerate(self.dims) if own == dim]
            total = 0
            for place in group:
                if self.tables[place] == place:
                    offsets[place], total = total, total + self.rows[place]
                else:
                    offsets[place] = offsets[self.tables[place]]
            initializer = keras.initializers.RandomUniform(-self.limit, self.limit) if self.limit else "zeros"
            self.weights_of.append(
                self.add_weight(
                    shape=(total, dim), initializer=initializer, autocast=False, dtype="float32", name=f"tables_{dim}"
                )
            )
            self.groups.append(group)
        self.offsets = offsets
        if self.num_ids:
            self.slots = self.add_weight(
                shape=(sum(self.num_ids),), initializer="zeros", dtype="int32", trainable=False, name="slots"
            )

    def call(self, ids):
        if self.num_ids:
            starts = [sum(self.num_ids[:place]) for place in range(len(self.num_ids))]
            ids = ops.take(self.slots, ids + ops.convert_to_tensor(starts, "int32"), axis=0)
        places = ids + ops.convert_to_tensor(self.offsets, "int32")
        parts = []
        for group, variable in zip(self.groups, self.weights_of, strict=True):
            chosen = places if len(group) == len(self.dims) else ops.take(places, group, axis=1)
            parts.append(_rows(variable, chosen))
        if self.l2:
            squares = [ops.sum(ops.square(part), axis=(1, 2)) for part in parts]
            self.add_loss(self.l2 * ops.mean(sum(squares)))
        return [ops.cast(part, self.compute_dtype) for part in parts]

    def compute_output_spec(self, ids):
        counts = {dim: self.dims.count(dim) for dim in dict.fromkeys(self.dims)}
        return [keras.KerasTensor((ids.shape[0], n, dim), dtype=self.compute_dtype) for dim, n in counts.items()]

    def rows_of(self, place: int) -> np.ndarray:
        """The row of each id of a feature in the variable of its size, [number of ids] int64."""
        if not self.num_ids:
            return self.offsets[place] + np.arange(self.rows[place])
        start = sum(self.num_ids[:place])
        return self.offsets[place] + np.asarray(self.slots)[start : start + self.num_ids[place]].astype(np.int64)

    def get_config(self) -> dict:
        own = {"dims": self.dims, "rows": self.rows, "tables": self.tables, "l2": self.l2, "limit": self.limit}
        own["num_ids"] = self.num_ids
        config = super().get_config()
        config.pop("autocast", None)
        return config | own


def _rows(variable: keras.Variable, places):
    """Rows of a variable. TensorFlow gives a gradient of these rows alone where they are looked up in the variable
    itself, and not in its value."""
    look_up = _look_up.get()
    if look_up is not None:
        return look_up(variable, places)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(variable.value, places)
    return ops.take(variable, places, axis=0)


@register
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


@register
class NumberVectors(keras.layers.Layer):
    """A vector for each number, times the number, as factorisation machines embed it.

    Args:
        dim: Size of the vectors.

    Call arguments: numbers [batch, n] float32. Returns [batch, n, dim].
    """

    def __init__(self, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim

    def build(self, input_shape: tuple) -> None:
        initializer = keras.initializers.RandomUniform(-0.05, 0.05)
        self.vectors = self.add_weight(shape=(input_shape[-1], self.dim), initializer=initializer, name="vectors")

    def call(self, numbers):
        return ops.expand_dims(numbers, 2) * self.vectors

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape, self.dim)

    def get_config(self) -> dict:
        return super().get_config() | {"dim": self.dim}


@register
class FieldSum(keras.layers.Layer):
    """The sum over fields.

    Call arguments: fields [batch, n, dim] float32. Returns [batch, dim].
    """

    def call(self, fields):
        return ops.sum(fields, axis=1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape[0], input_shape[2]


@register
class PairwiseSum(keras.layers.Layer):
    """The sum of the inner products of all pairs of fields, in linear time (Rendle, 2010, equation 5).

    Call arguments: fields [batch, n, dim] float32. Returns [batch, 1].
    """

    def call(self, fields):
        together = ops.square(ops.sum(fields, axis=1))
        each = ops.sum(ops.square(fields), axis=1)
        return 0.5 * ops.sum(together - each, axis=1, keepdims=True)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape[0], 1


@register
class PairwiseProducts(keras.layers.Layer):
    """The inner product of each pair of fields, as DLRM's interaction.

    Call arguments: fields [batch, n, dim] float32. Returns [batch, n (n - 1) / 2].
    """

    def call(self, fields):
        n = fields.shape[1]
        products = ops.reshape(ops.matmul(fields, ops.transpose(fields, (0, 2, 1))), (-1, n * n))
        return ops.take(products, [i * n + j for i in range(n) for j in range(i)], axis=1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape[0], input_shape[1] * (input_shape[1] - 1) // 2


@register
class Gate(keras.layers.Layer):
    """FinalMLP's gate: weights between 0 and 2 for each element, from a learned context or from a context that is
    given.

    Args:
        hidden: Width of the gate's hidden layer.

    Call arguments: x [batch, d] float32 and, where the gate depends on the row, context [batch, c]. Returns [batch, d].
    """

    def __init__(self, hidden: int, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden

    def build(self, x_shape: tuple, context_shape: tuple | None = None) -> None:
        if context_shape is None:
            self.context = self.add_weight(shape=(1, self.hidden), initializer="zeros", name="context")
        width = self.hidden if context_shape is None else context_shape[-1]
        self.first = self.add_weight(shape=(width, self.hidden), initializer="glorot_uniform", name="first")
        self.first_bias = self.add_weight(shape=(self.hidden,), initializer="zeros", name="first_bias")
        self.second = self.add_weight(shape=(self.hidden, x_shape[-1]), initializer="glorot_uniform", name="second")
        self.second_bias = self.add_weight(shape=(x_shape[-1],), initializer="zeros", name="second_bias")

    def call(self, x, context=None):
        context = self.context if context is None else context
        hidden = ops.relu(ops.matmul(context, self.first) + self.first_bias)
        return x * 2.0 * ops.sigmoid(ops.matmul(hidden, self.second) + self.second_bias)

    def compute_output_shape(self, x_shape: tuple, context_shape: tuple | None = None) -> tuple:
        return x_shape

    def get_config(self) -> dict:
        return super().get_config() | {"hidden": self.hidden}


@register
class BilinearFusion(keras.layers.Layer):
    """FinalMLP's fusion of two streams: a linear term of each, and a bilinear term between them in heads.

    Args:
        heads: Number of parts that both streams are cut into; must divide their widths.

    Call arguments: x [batch, m] and y [batch, n], float32. Returns [batch, 1].
    """

    def __init__(self, heads: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, x_shape: tuple, y_shape: tuple) -> None:
        m, n = x_shape[-1], y_shape[-1]
        if m % self.heads or n % self.heads:
            raise ValueError(f"{self.heads} heads do not divide widths of {m} and {n}")
        self.of_x = self.add_weight(shape=(m, 1), initializer="glorot_uniform", name="of_x")
        self.of_y = self.add_weight(shape=(n, 1), initializer="glorot_uniform", name="of_y")
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")
        self.between = self.add_weight(
            shape=(self.heads, m // self.heads, n // self.heads), initializer="glorot_uniform", name="between"
        )

    def call(self, x, y):
        linear = ops.matmul(x, self.of_x) + ops.matmul(y, self.of_y) + self.bias
        xs = ops.reshape(x, (-1, self.heads, x.shape[-1] // self.heads))
        ys = ops.reshape(y, (-1, self.heads, y.shape[-1] // self.heads))
        return linear + ops.expand_dims(ops.einsum("bhm,hmn,bhn->b", xs, self.between, ys), 1)

    def compute_output_shape(self, x_shape: tuple, y_shape: tuple) -> tuple:
        return x_shape[0], 1

    def get_config(self) -> dict:
        return super().get_config() | {"heads": self.heads}


@register
class Mixture(keras.layers.Layer):
    """What experts say, weighed by a gate.

    Call arguments: weights [batch, n] and experts [batch, n, d], float32. Returns [batch, d].
    """

    def call(self, weights, experts):
        return ops.einsum("bn,bnd->bd", weights, experts)

    def compute_output_shape(self, weights_shape: tuple, experts_shape: tuple) -> tuple:
        return experts_shape[0], experts_shape[2]
