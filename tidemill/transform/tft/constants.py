"""Constants of a graph, each made once. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tidemill.transform.tft import private

_PLAIN = (bool, int, float, str, bytes)
_OWN = (None, "Const")
"""The names of constants that `tf.constant` and `tf.convert_to_tensor` make."""


def sharing(original: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """TensorFlow's `_create_graph_constant`, which gives the same constant for the same value again.

    A third of the ops of a preprocessing_fn over many columns are the same few small constants: the bounds of slices,
    default values. Each takes as long to make, to save and to load as any op.

    That is for what TensorFlow makes of the plain arguments of an op, which it calls by their names. A constant that is
    asked for with `tf.constant` stays the caller's own, who may take gradients by it.

    Args:
        original: TensorFlow's function.
    """
    known: dict[tf.Graph, dict[object, tf.Tensor]] = {}

    def create_graph_constant(
        value: Any, dtype: Any, shape: Any, name: str | None, verify_shape: bool, allow_broadcast: bool
    ) -> tf.Tensor:
        graph, key = tf.compat.v1.get_default_graph(), _key(value)
        if key is None or name in _OWN or private.is_apart(graph):
            return original(value, dtype, shape, name, verify_shape, allow_broadcast)
        key = key, dtype, None if shape is None else str(shape), name, verify_shape, allow_broadcast
        constants = known.setdefault(graph, {})
        if key not in constants:
            constants[key] = original(value, dtype, shape, name, verify_shape, allow_broadcast)
        return constants[key]

    return create_graph_constant


def _key(value: Any) -> object | None:
    """What a value is known by; None for one that is not plain. 0 is not 0.0 here, nor -0.0."""
    if type(value) in _PLAIN:
        return type(value), repr(value)
    if type(value) in (list, tuple) and all(type(item) in _PLAIN for item in value):
        return tuple((type(item), repr(item)) for item in value)
    return None
