"""Layers of click-through-rate networks, made of backend-neutral Keras operations.

The names of weights are part of a model's fingerprint, and the registered names of layers are part of saved models.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import keras
import numpy as np

LayerClass = TypeVar("LayerClass", bound=type)
ops: Any = keras.ops
"""Not typed, because Keras's annotations allow None for every result."""
Tensor = Any
"""A tensor of any backend, or a `keras.KerasTensor`."""
LayerShape = tuple[int | None, ...]
LookUp = Callable[[keras.Variable, Tensor], Tensor]
"""From a table and row indices [batch, features] int32 to the rows, [batch, features, size] float32."""

_PACKAGE = "tidemill"
_look_up: contextvars.ContextVar[LookUp | None] = contextvars.ContextVar("_look_up", default=None)


def register(layer: LayerClass) -> LayerClass:
    """Registers a layer class with Keras, so that saved networks can be loaded.

    The class of a user's module is registered under the module's name, so that several modules may have one of a name.
    """
    package = _PACKAGE if layer.__module__.startswith(f"{_PACKAGE}.") else layer.__module__
    decorator: Any = keras.saving.register_keras_serializable(package=package)
    return decorator(layer)


def _register_as(name: str) -> Callable[[LayerClass], LayerClass]:
    decorator: Any = keras.saving.register_keras_serializable(package=_PACKAGE, name=name)
    return decorator


@contextlib.contextmanager
def looked_up_by(look_up: LookUp) -> Iterator[None]:
    """Makes all `Embeddings` take their rows from `look_up` inside the block.

    A training step needs the gradients of the rows in its batch, and not of whole tables. So it provides `look_up`, and
    takes the gradients of the rows that `look_up` returned.
    """
    token = _look_up.set(look_up)
    try:
        yield
    finally:
        _look_up.reset(token)


@register
class Embeddings(keras.layers.Layer):
    """Embedding tables of id features.

    Tables of one size are stacked in one variable, so that one lookup and one update serve all of them.

    Args:
        dims: The embedding size of each feature.
        rows: The number of rows of each feature's table.
        tables: For each feature, the index of the feature whose table it reads. Defaults to its own.
        l2: Penalty on the sum of squares of a row's embeddings, averaged over the batch. Defaults to 0.
        limit: Initial weights are uniform between -limit and limit. Defaults to 0.01.
        num_ids: The number of ids of each feature, if not every id has a row of its own. The weight `slots`, [sum of
            `num_ids`] int32, then holds the row of each id. Defaults to a row for each id.
        kwargs: Arguments of `keras.layers.Layer`.

    Call arguments: ids [batch, features] int32. Returns a list with a tensor [batch, features of the size, size]
    float32 for each size.

    Attributes:
        tables_by_size: The variables, one for each size.
        features_by_size: The features of each variable, as indices.
        offsets: For each feature, the first row of its table in the variable.
    """

    def __init__(
        self,
        dims: list[int],
        rows: list[int],
        tables: list[int] | None = None,
        l2: float = 0.0,
        limit: float = 0.01,
        num_ids: list[int] | None = None,
        **kwargs: Any,
    ):
        # Tables stay float32 under mixed precision: casting a variable reads, and updates, all of it.
        super().__init__(autocast=False, **kwargs)
        self.dims, self.rows, self.l2, self.limit = list(dims), list(rows), l2, limit
        self.tables = list(range(len(dims))) if tables is None else list(tables)
        self.num_ids = None if num_ids is None else list(num_ids)

    def build(self, input_shape: LayerShape) -> None:
        self.features_by_size: list[list[int]] = []
        self.tables_by_size: list[keras.Variable] = []
        offsets = [0] * len(self.dims)
        for dim in dict.fromkeys(self.dims):
            features = [i for i, size in enumerate(self.dims) if size == dim]
            total = 0
            for i in features:
                if self.tables[i] == i:
                    offsets[i], total = total, total + self.rows[i]
                else:
                    offsets[i] = offsets[self.tables[i]]
            initializer = keras.initializers.RandomUniform(-self.limit, self.limit) if self.limit else "zeros"
            self.tables_by_size.append(
                self.add_weight(
                    shape=(total, dim), initializer=initializer, autocast=False, dtype="float32", name=f"tables_{dim}"
                )
            )
            self.features_by_size.append(features)
        self.offsets = offsets
        if self.num_ids:
            self.slots = self.add_weight(
                shape=(sum(self.num_ids),), initializer="zeros", dtype="int32", trainable=False, name="slots"
            )

    def call(self, ids: Tensor) -> list[Tensor]:
        if self.num_ids:
            starts = [sum(self.num_ids[:i]) for i in range(len(self.num_ids))]
            ids = ops.take(self.slots, ids + ops.convert_to_tensor(starts, "int32"), axis=0)
        rows = ids + ops.convert_to_tensor(self.offsets, "int32")
        embedded = []
        for features, table in zip(self.features_by_size, self.tables_by_size, strict=True):
            of_size = rows if len(features) == len(self.dims) else ops.take(rows, features, axis=1)
            embedded.append(_take_rows(table, of_size))
        if self.l2:
            squares = [ops.sum(ops.square(vectors), axis=(1, 2)) for vectors in embedded]
            self.add_loss(self.l2 * ops.mean(sum(squares)))
        return [ops.cast(vectors, self.compute_dtype) for vectors in embedded]

    def compute_output_spec(self, ids: keras.KerasTensor) -> list[keras.KerasTensor]:
        counts = {dim: self.dims.count(dim) for dim in dict.fromkeys(self.dims)}
        return [keras.KerasTensor((ids.shape[0], n, dim), dtype=self.compute_dtype) for dim, n in counts.items()]

    def table_of(self, feature: int) -> int:
        """Returns the index in `tables_by_size` of the variable that a feature reads."""
        return next(i for i, features in enumerate(self.features_by_size) if feature in features)

    def rows_of(self, feature: int) -> np.ndarray:
        """Returns the row in the variable of each id of a feature, [number of ids] int64."""
        if not self.num_ids:
            return self.offsets[feature] + np.arange(self.rows[feature])
        start = sum(self.num_ids[:feature])
        slots = np.asarray(self.slots)[start : start + self.num_ids[feature]]
        return self.offsets[feature] + slots.astype(np.int64)

    def get_config(self) -> dict[str, Any]:
        own = {"dims": self.dims, "rows": self.rows, "tables": self.tables, "l2": self.l2, "limit": self.limit}
        own["num_ids"] = self.num_ids
        config = super().get_config()
        config.pop("autocast", None)
        return config | own


def _take_rows(table: keras.Variable, rows: Tensor) -> Tensor:
    look_up = _look_up.get()
    if look_up is not None:
        return look_up(table, rows)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # The gradient is sparse only if the lookup is in the variable itself, and not in a tensor of its value.
        return tf.gather(table.value, rows)
    return ops.take(table, rows, axis=0)


@_register_as("Cross")
class CrossLayer(keras.layers.Layer):
    """A cross layer of DCN-V2 with a full matrix (equation 1 of the paper): x0 * (W x + b) + x.

    Call arguments: x0 and x, both [batch, d] float32. Returns [batch, d].
    """

    def build(self, x0_shape: LayerShape, x_shape: LayerShape) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        width = x_shape[-1]
        self.kernel = self.add_weight(shape=(width, width), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(width,), initializer="zeros", name="bias")

    def call(self, x0: Tensor, x: Tensor) -> Tensor:
        return x0 * (ops.matmul(x, self.kernel) + self.bias) + x

    def compute_output_shape(self, x0_shape: LayerShape, x_shape: LayerShape) -> LayerShape:
        return x_shape


@register
class NumberVectors(keras.layers.Layer):
    """A learned vector for each number feature, multiplied by the number, as factorization machines embed it.

    Args:
        dim: Size of the vectors.
        kwargs: Arguments of `keras.layers.Layer`.

    Call arguments: numbers [batch, n] float32. Returns [batch, n, dim].
    """

    def __init__(self, dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.dim = dim

    def build(self, input_shape: LayerShape) -> None:
        initializer = keras.initializers.RandomUniform(-0.05, 0.05)
        self.vectors = self.add_weight(shape=(input_shape[-1], self.dim), initializer=initializer, name="vectors")

    def call(self, numbers: Tensor) -> Tensor:
        return ops.expand_dims(numbers, 2) * self.vectors

    def compute_output_shape(self, input_shape: LayerShape) -> LayerShape:
        return (*input_shape, self.dim)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"dim": self.dim}


@register
class FieldSum(keras.layers.Layer):
    """The sum over fields.

    Call arguments: fields [batch, n, dim] float32. Returns [batch, dim].
    """

    def call(self, fields: Tensor) -> Tensor:
        return ops.sum(fields, axis=1)

    def compute_output_shape(self, input_shape: LayerShape) -> LayerShape:
        return input_shape[0], input_shape[2]


@register
class PairwiseSum(keras.layers.Layer):
    """The sum of the inner products of all pairs of fields, in linear time (Rendle, 2010, equation 5).

    Call arguments: fields [batch, n, dim] float32. Returns [batch, 1].
    """

    def call(self, fields: Tensor) -> Tensor:
        square_of_sum = ops.square(ops.sum(fields, axis=1))
        sum_of_squares = ops.sum(ops.square(fields), axis=1)
        return 0.5 * ops.sum(square_of_sum - sum_of_squares, axis=1, keepdims=True)

    def compute_output_shape(self, input_shape: LayerShape) -> LayerShape:
        return input_shape[0], 1


@register
class PairwiseProducts(keras.layers.Layer):
    """The inner product of each pair of fields: DLRM's interaction.

    Call arguments: fields [batch, n, dim] float32. Returns [batch, n (n - 1) / 2].
    """

    def call(self, fields: Tensor) -> Tensor:
        n = fields.shape[1]
        products = ops.reshape(ops.matmul(fields, ops.transpose(fields, (0, 2, 1))), (-1, n * n))
        return ops.take(products, [i * n + j for i in range(n) for j in range(i)], axis=1)

    def compute_output_shape(self, input_shape: LayerShape) -> LayerShape:
        fields = input_shape[1]
        assert fields is not None
        return input_shape[0], fields * (fields - 1) // 2


@_register_as("Gate")
class FeatureGate(keras.layers.Layer):
    """FinalMLP's gate: multiplies each element by a weight between 0 and 2, computed from a context.

    Args:
        hidden: Width of the gate's hidden layer.
        kwargs: Arguments of `keras.layers.Layer`.

    Call arguments: x [batch, d] float32, and optionally a context [batch, c]. Without one, the gate learns a context.
    Returns [batch, d].
    """

    def __init__(self, hidden: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden = hidden

    def build(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x_shape: LayerShape, context_shape: LayerShape | None = None
    ) -> None:
        if context_shape is None:
            self.context = self.add_weight(shape=(1, self.hidden), initializer="zeros", name="context")
        width = self.hidden if context_shape is None else context_shape[-1]
        self.first = self.add_weight(shape=(width, self.hidden), initializer="glorot_uniform", name="first")
        self.first_bias = self.add_weight(shape=(self.hidden,), initializer="zeros", name="first_bias")
        self.second = self.add_weight(shape=(self.hidden, x_shape[-1]), initializer="glorot_uniform", name="second")
        self.second_bias = self.add_weight(shape=(x_shape[-1],), initializer="zeros", name="second_bias")

    def call(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = self.context if context is None else context
        hidden = ops.relu(ops.matmul(context, self.first) + self.first_bias)
        return x * 2.0 * ops.sigmoid(ops.matmul(hidden, self.second) + self.second_bias)

    def compute_output_shape(self, x_shape: LayerShape, context_shape: LayerShape | None = None) -> LayerShape:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"hidden": self.hidden}


@register
class BilinearFusion(keras.layers.Layer):
    """FinalMLP's fusion of two streams: a linear term of each, and bilinear terms between their heads.

    Args:
        heads: Number of heads that each stream is split into. Must divide both widths. Defaults to 1.
        kwargs: Arguments of `keras.layers.Layer`.

    Call arguments: x [batch, m] and y [batch, n], float32. Returns [batch, 1].
    """

    def __init__(self, heads: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, x_shape: LayerShape, y_shape: LayerShape) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        m, n = x_shape[-1], y_shape[-1]
        assert m is not None and n is not None
        if m % self.heads or n % self.heads:
            raise ValueError(f"{self.heads} heads do not divide widths of {m} and {n}")
        self.x_kernel = self.add_weight(shape=(m, 1), initializer="glorot_uniform", name="of_x")
        self.y_kernel = self.add_weight(shape=(n, 1), initializer="glorot_uniform", name="of_y")
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")
        self.bilinear = self.add_weight(
            shape=(self.heads, m // self.heads, n // self.heads), initializer="glorot_uniform", name="between"
        )

    def call(self, x: Tensor, y: Tensor) -> Tensor:
        linear = ops.matmul(x, self.x_kernel) + ops.matmul(y, self.y_kernel) + self.bias
        xs = ops.reshape(x, (-1, self.heads, x.shape[-1] // self.heads))
        ys = ops.reshape(y, (-1, self.heads, y.shape[-1] // self.heads))
        return linear + ops.expand_dims(ops.einsum("bhm,hmn,bhn->b", xs, self.bilinear, ys), 1)

    def compute_output_shape(self, x_shape: LayerShape, y_shape: LayerShape) -> LayerShape:
        return x_shape[0], 1

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"heads": self.heads}


@register
class Mixture(keras.layers.Layer):
    """The weighted sum of experts' outputs.

    Call arguments: weights [batch, n] and experts [batch, n, d], float32. Returns [batch, d].
    """

    def call(self, weights: Tensor, experts: Tensor) -> Tensor:
        return ops.einsum("bn,bnd->bd", weights, experts)

    def compute_output_shape(self, weights_shape: LayerShape, experts_shape: LayerShape) -> LayerShape:
        return experts_shape[0], experts_shape[2]
