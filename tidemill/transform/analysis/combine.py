"""Reductions for TFT's combiners over all rows: CacheableCombineAccumulate and CacheableCombineMerge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tidemill.transform.analysis.accumulators import MomentsAccumulator, WeightedPoints, merge_moments
from tidemill.transform.analysis.reduction import MergingReduction
from tidemill.transform.tft import combiners


def combine_reduction(combiner: Any, tensors: Sequence[tf.Tensor]) -> MergingReduction:
    """Returns the reduction of a combiner. Its result is the list of outputs that CacheableCombineMerge returns."""
    if fold := combiners.numpy_fold(combiner):
        return _FoldReduction(combiner, tensors, fold)
    if dtype := combiners.mean_and_var_dtype(combiner):
        return _MeanAndVarReduction(combiner, tensors, dtype)
    if parameters := combiners.quantiles(combiner):
        return _QuantilesReduction(combiner, tensors, parameters)
    if combiners.is_covariance(combiner):
        return _CovarianceReduction(combiner, tensors)
    return _CombineReduction(combiner, tensors)


def encode_accumulator(accumulator: Any) -> dict[str, np.ndarray]:
    """Returns a combiner's accumulator (a list or tuple of arrays, or a sketch) as arrays."""
    if isinstance(accumulator, combiners.QuantilesSketch):
        return {"sketch": np.frombuffer(accumulator.__getstate__(), np.uint8)}
    if isinstance(accumulator, combiners.MisraGriesSketch):
        return {"sketch": np.frombuffer(accumulator.Serialize(), np.uint8)}
    return {str(index): np.asarray(part) for index, part in enumerate(accumulator)}


def decode_accumulator(combiner: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Returns the accumulator that `encode_accumulator` encoded."""
    empty = combiner.create_accumulator()
    if isinstance(empty, combiners.QuantilesSketch):
        sketch = combiners.QuantilesSketch.__new__(combiners.QuantilesSketch)
        sketch.__setstate__(arrays["sketch"].tobytes())
        return sketch
    if isinstance(empty, combiners.MisraGriesSketch):
        return combiners.MisraGriesSketch.Deserialize(arrays["sketch"].tobytes())
    parts = [arrays[str(index)] for index in range(len(empty))]
    return type(empty)(*parts) if hasattr(empty, "_fields") else parts


class _CombineReduction(MergingReduction[Any]):
    """A reduction for any combiner, through the combiner's own methods."""

    def __init__(self, combiner: Any, tensors: Sequence[tf.Tensor]):
        super().__init__(tensors)
        self._combiner = combiner

    def start(self) -> Any:
        return self._combiner.create_accumulator()

    def add(self, partial: Any, values: tuple[np.ndarray, ...]) -> Any:
        return self._combiner.add_input(partial, values)

    def finish(self, partial: Any) -> Any:
        return self._combiner.compact(partial)

    def merge(self, states: Sequence[Any]) -> Any:
        # Beam's merge starts with an empty accumulator too, which affects how TFT treats NaN.
        return self._combiner.merge_accumulators([self._combiner.create_accumulator(), *states])

    def extract(self, state: Any) -> list[np.ndarray]:
        return list(self._combiner.extract_output(state))

    def encode(self, state: Any) -> dict[str, np.ndarray]:
        return encode_accumulator(state)

    def decode(self, arrays: Mapping[str, np.ndarray]) -> Any:
        return decode_accumulator(self._combiner, arrays)


class _FoldReduction(MergingReduction[list[np.ndarray]]):
    """A reduction for `NumPyCombiner`. It folds all batches of a unit at once, which also makes sums more exact.

    A state without batches is empty. TFT treats an accumulator that starts with the default value as empty, even if the
    default was in the data (the smallest integer, or an infinity). Here that happens at the end.
    """

    def __init__(self, combiner: Any, tensors: Sequence[tf.Tensor], parameters: combiners.NumPyFold):
        super().__init__(tensors)
        self._combiner = combiner
        self._parameters = parameters

    def start(self) -> list[tuple[np.ndarray, ...]]:
        return []

    def add(
        self, partial: list[tuple[np.ndarray, ...]], values: tuple[np.ndarray, ...]
    ) -> list[tuple[np.ndarray, ...]]:
        partial.append(values)
        return partial

    def finish(self, partial: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
        return self.merge(partial)

    def merge(self, states: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
        states = [state for state in states if len(state)]
        return [self._parameters.fn(list(parts), axis=0) for parts in zip(*states, strict=True)]

    def extract(self, state: list[np.ndarray]) -> list[np.ndarray]:
        is_scalar = state and np.ndim(state[0]) == 0
        if not state or (is_scalar and self._parameters.is_default(np.asarray(state[0]))):
            state = self._combiner.create_accumulator()
        return list(self._combiner.extract_output(state))

    def encode(self, state: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {str(index): np.asarray(part) for index, part in enumerate(state)}

    def decode(self, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [arrays[str(index)] for index in range(len(arrays))]


class _CovarianceReduction(_CombineReduction):
    """A reduction for `CovarianceCombiner` and `PCACombiner`. It casts batches to float64, because products of float32
    lose precision."""

    def add(self, partial: Any, values: tuple[np.ndarray, ...]) -> Any:
        return self._combiner.add_input(partial, (values[0].astype(np.float64),))

    def merge(self, states: Sequence[Any]) -> Any:
        return self._combiner.merge_accumulators(states or [self._combiner.create_accumulator()])


class _MeanAndVarReduction(MergingReduction["MomentsAccumulator"]):
    """A reduction for `WeightedMeanAndVarCombiner` without weights: the moments of all batches together, in float64."""

    def __init__(self, combiner: Any, tensors: Sequence[tf.Tensor], dtype: type):
        super().__init__(tensors)
        self._combiner, self._dtype = combiner, dtype

    def start(self) -> list[MomentsAccumulator]:
        return []

    def add(self, partial: list[MomentsAccumulator], values: tuple[np.ndarray, ...]) -> list[MomentsAccumulator]:
        # As in TFT, a value that overflows its type becomes the type's largest number.
        partial.append(MomentsAccumulator(*map(np.nan_to_num, values[:3])))
        return partial

    def finish(self, partial: list[MomentsAccumulator]) -> MomentsAccumulator:
        return self.merge(partial)

    def merge(self, states: Sequence[MomentsAccumulator]) -> MomentsAccumulator:
        return merge_moments([MomentsAccumulator(*self._combiner.create_accumulator()[:3]), *states])

    def encode(self, state: MomentsAccumulator) -> dict[str, np.ndarray]:
        return state._asdict()

    def decode(self, arrays: Mapping[str, np.ndarray]) -> MomentsAccumulator:
        return MomentsAccumulator(*(arrays[name] for name in MomentsAccumulator._fields))

    def extract(self, state: MomentsAccumulator) -> list[np.ndarray]:
        return [self._dtype(state.mean), self._dtype(state.variance)]


class _QuantilesReduction(MergingReduction[WeightedPoints]):
    """A reduction for `QuantilesCombiner` of one feature. Only the points that remain of all rows go into a sketch."""

    def __init__(self, combiner: Any, tensors: Sequence[tf.Tensor], parameters: combiners.QuantilesParameters):
        super().__init__(tensors)
        self._combiner = combiner
        self._parameters = parameters

    def start(self) -> list[WeightedPoints]:
        return []

    def add(self, partial: list[WeightedPoints], values: tuple[np.ndarray, ...]) -> list[WeightedPoints]:
        partial.append(WeightedPoints.of(values[0], values[1] if self._parameters.has_weights else None))
        return partial

    def finish(self, partial: list[WeightedPoints]) -> WeightedPoints:
        return self.merge(partial)

    def merge(self, states: Sequence[WeightedPoints]) -> WeightedPoints:
        return WeightedPoints.merged(states).thinned(self._parameters.epsilon)

    def encode(self, state: WeightedPoints) -> dict[str, np.ndarray]:
        return state._asdict()

    def decode(self, arrays: Mapping[str, np.ndarray]) -> WeightedPoints:
        return WeightedPoints(*(arrays[name] for name in WeightedPoints._fields))

    def extract(self, state: WeightedPoints) -> list[np.ndarray]:
        return list(self._combiner.extract_output(state.sketch(self._parameters)))
