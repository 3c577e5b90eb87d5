"""Private knowledge of TFT's combiners that lets the local engine run them faster.

Other combiners run only through `create_accumulator`, `add_input` and `merge_accumulators`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_transform import analyzers
from tfx_bsl import sketches

# The package's attribute of this name is another module.
_experimental = importlib.import_module("tensorflow_transform.experimental.analyzers")

QuantilesSketch = sketches.QuantilesSketch
MisraGriesSketch = sketches.MisraGriesSketch

_KNOWN = (
    analyzers.NumPyCombiner,
    analyzers.WeightedMeanAndVarCombiner,
    analyzers.QuantilesCombiner,
    analyzers.CovarianceCombiner,
    analyzers.PCACombiner,
    analyzers._LMomentsCombiner,
    _experimental._VocabularyCombiner,
)
"""Combiners whose accumulators are arrays, tuples of arrays or sketches, and whose attributes describe them completely.
"""


@dataclass(frozen=True)
class NumPyFold:
    """The fold of a `NumPyCombiner`: `fn(arrays, axis=0)`, starting from a default value.

    TFT treats an accumulator that starts with the default as a scalar like an empty one.
    """

    fn: Callable[..., np.ndarray]
    default: float | int
    dtypes: tuple[type, ...]

    def is_default(self, scalars: np.ndarray) -> np.ndarray:
        """Returns which of some scalars equal the default."""
        return np.isnan(scalars) if self.default != self.default else scalars == self.default


@dataclass(frozen=True)
class QuantilesParameters:
    """The parameters of a `QuantilesCombiner` for a single feature.

    Attributes:
        epsilon: Maximum error of a quantile's rank, as a share of the total weight.
        max_values: Number of values for which the error holds.
        has_weights: Whether each value has a weight.
    """

    epsilon: float
    max_values: int
    has_weights: bool


def numpy_fold(combiner: Any) -> NumPyFold | None:
    """Returns the fold of a `NumPyCombiner`; None for a combiner of another class."""
    if type(combiner) is not analyzers.NumPyCombiner:
        return None
    return NumPyFold(combiner._fn, combiner._default_accumulator_value, tuple(combiner._output_dtypes))


def mean_and_var_dtype(combiner: Any) -> type | None:
    """Returns the dtype of a combiner's mean and variance; None unless it computes these two, unweighted."""
    if type(combiner) is not analyzers.WeightedMeanAndVarCombiner:
        return None
    return combiner._output_numpy_dtype if combiner._compute_variance and not combiner._compute_weighted else None


def quantiles(combiner: Any) -> QuantilesParameters | None:
    """Returns the parameters of a combiner for the quantiles of one feature; None for other combiners."""
    if type(combiner) is not analyzers.QuantilesCombiner or combiner._num_features != 1:
        return None
    return QuantilesParameters(combiner._epsilon, combiner._max_num_values, combiner._has_weights)


def is_covariance(combiner: Any) -> bool:
    """Returns whether a combiner sums products of a batch's columns."""
    return isinstance(combiner, analyzers.CovarianceCombiner)


def describe(operation: Any) -> Any | None:
    """Returns what an accumulate operation depends on, apart from its tensors, as JSON; None if that is unknown."""
    try:
        fields = {name: getattr(operation, name) for name in operation._fields if name != "label"}
        return [type(operation).__name__, {name: _described(value) for name, value in fields.items()}]
    except TypeError:
        return None


def _described(value: Any) -> Any:
    if type(value) in _KNOWN:
        # Bound methods add nothing to the attributes that select them.
        attributes = {name: v for name, v in vars(value).items() if not _is_method_of(v, value)}
        return [type(value).__name__, {name: _described(v) for name, v in sorted(attributes.items())}]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value.hex() if np.isfinite(value) else str(value)
    if isinstance(value, functools.partial):
        return ["partial", _described(value.func), _described(value.args), _described(value.keywords)]
    if isinstance(value, dict):
        return {str(name): _described(v) for name, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_described(v) for v in value]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), [_described(v) for v in value.ravel().tolist()]]
    if isinstance(value, type) or (callable(value) and getattr(value, "__module__", "").startswith("numpy")):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, tf.DType):
        return value.name
    if isinstance(value, tf.TensorShape):
        return str(value)
    raise TypeError(f"cannot be described: {value!r}")


def _is_method_of(value: Any, owner: Any) -> bool:
    return getattr(value, "__self__", None) is owner
