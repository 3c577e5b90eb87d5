"""Reductions for TFT's combiners per key: CacheableCombinePerKeyAccumulate and the nodes after it.

A state is a table of distinct keys, each with a row of arrays. Tables are merged by sorting, so that thousands of keys
cost no more than their rows.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tidemill.transform.analysis.accumulators import MomentsAccumulator, WeightedPoints, merge_moment_groups
from tidemill.transform.analysis.combine import decode_accumulator, encode_accumulator
from tidemill.transform.analysis.reduction import MergingReduction, decode_bytes, encode_bytes
from tidemill.transform.tft import combiners


class KeyedOutputs(NamedTuple):
    """A combiner's outputs by key.

    Attributes:
        keys: `[keys]` bytes objects, sorted.
        outputs: An array `[keys, …]` for each output.
    """

    keys: np.ndarray
    outputs: list[np.ndarray]


class KeyedTable(NamedTuple):
    """A table of `keys` (large_binary, distinct) and arrays `[keys, …]`."""

    keys: pa.LargeBinaryArray
    columns: tuple[np.ndarray, ...]


def per_key_reduction(combiner: Any, tensors: Sequence[tf.Tensor]) -> MergingReduction:
    """Returns the reduction of a combiner per key. The first tensor holds the keys. Its result is a `KeyedOutputs`."""
    if fold := combiners.numpy_fold(combiner):
        return _FoldPerKey(combiner, tensors, fold)
    if dtype := combiners.mean_and_var_dtype(combiner):
        return _MeanAndVarPerKey(combiner, tensors, dtype)
    if parameters := combiners.quantiles(combiner):
        return _QuantilesPerKey(combiner, tensors, parameters)
    return _CombinePerKey(combiner, tensors)


def check_inputs(values: tuple[np.ndarray, ...]) -> None:
    """Rejects keys that are not a vector, and values that do not match the keys, with the messages of TFT's Beam
    engine.

    Raises:
        ValueError: They do not match.
    """
    keys, *rest = values
    if keys.ndim != 1:
        raise ValueError(f"keys for CombinePerKey should have rank 1, got shape {keys.shape}")
    for index, value in enumerate(rest):
        if value.ndim < 1:
            raise ValueError(f"Argument {index} for CombinePerKey should have rank >=1, got shape {value.shape}")
        if value.shape[0] != keys.shape[0]:
            raise ValueError(
                f"Argument {index} had shape {value.shape} whose first dimension was not equal to the size of the keys"
                f" vector ({keys.shape[0]})"
            )


class _KeyGroups(NamedTuple):
    """Rows sorted by key; rows of one key keep their order.

    Attributes:
        keys: The distinct keys, in order of appearance.
        codes: `[rows]` position of each row's key in `keys`.
        order: `[rows]` the rows, sorted by `codes`.
        starts: `[keys]` start of each key's rows in `order`.
    """

    keys: pa.LargeBinaryArray
    codes: np.ndarray
    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, keys: pa.LargeBinaryArray) -> _KeyGroups:
        encoded = keys.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        order = np.argsort(codes, kind="stable")
        return cls(encoded.dictionary, codes, order, np.flatnonzero(np.diff(codes[order], prepend=-1)))

    @property
    def positions(self) -> np.ndarray:
        """`[rows]` position of each row of `order` among the rows of its key."""
        sizes = np.diff(self.starts, append=len(self.order))
        return np.arange(len(self.order)) - np.repeat(self.starts, sizes)


def _binary(keys: np.ndarray) -> pa.LargeBinaryArray:
    return pa.array(keys, pa.large_binary())


def _sorted(keys: pa.LargeBinaryArray) -> tuple[np.ndarray, np.ndarray]:
    objects = keys.to_numpy(zero_copy_only=False).astype(object)
    order = np.argsort(objects, kind="stable") if len(objects) else np.zeros(0, np.int64)
    return objects[order], order


class _TableReduction(MergingReduction[KeyedTable]):
    """Base class of reductions per key whose accumulators are arrays."""

    def __init__(self, combiner: Any, tensors: Sequence[tf.Tensor]):
        super().__init__(tensors)
        self._combiner = combiner

    def start(self) -> list[KeyedTable]:
        return []

    def add(self, partial: list[KeyedTable], values: tuple[np.ndarray, ...]) -> list[KeyedTable]:
        check_inputs(values)
        partial.append(KeyedTable(_binary(values[0]), tuple(values[1:])))
        return partial

    def finish(self, partial: list[KeyedTable]) -> KeyedTable:
        return self.merge(partial)

    def merge(self, states: Sequence[KeyedTable]) -> KeyedTable:
        states = [state for state in states if len(state.keys)]
        if not states:
            return KeyedTable(_binary(np.zeros(0, object)), ())
        keys = pa.concat_arrays([state.keys for state in states])
        columns = [np.concatenate(parts) for parts in zip(*(state.columns for state in states), strict=True)]
        groups = _KeyGroups.of(keys)
        return KeyedTable(groups.keys, self.fold(groups, [column[groups.order] for column in columns]))

    @abc.abstractmethod
    def fold(self, groups: _KeyGroups, columns: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Returns one row per key, from arrays whose rows are in the order of the groups."""

    @abc.abstractmethod
    def outputs(self, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the combiner's outputs of one row per key. There is at least one key."""

    def extract(self, state: KeyedTable) -> KeyedOutputs:
        keys, order = _sorted(state.keys)
        if not len(keys):
            return KeyedOutputs(keys, _no_outputs(self._combiner))
        return KeyedOutputs(keys, [output[order] for output in self.outputs(state.columns)])

    def encode(self, state: KeyedTable) -> dict[str, np.ndarray]:
        columns = {f"column_{index}": column for index, column in enumerate(state.columns)}
        return encode_bytes(state.keys.to_pylist()) | columns

    def decode(self, arrays: Mapping[str, np.ndarray]) -> KeyedTable:
        columns = tuple(arrays[f"column_{index}"] for index in range(len(arrays) - 2))
        return KeyedTable(pa.array(decode_bytes(arrays), pa.large_binary()), columns)


class _FoldPerKey(_TableReduction):
    """A reduction for `NumPyCombiner` per key: folds the first rows of all keys at once, then the second rows, and so
    on."""

    def __init__(self, combiner: Any, tensors: Sequence[tf.Tensor], parameters: combiners.NumPyFold):
        super().__init__(combiner, tensors)
        self._parameters = parameters

    def fold(self, groups: _KeyGroups, columns: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        codes, positions = groups.codes[groups.order], groups.positions
        folded = tuple(
            np.empty((len(groups.keys), *column.shape[1:]), dtype)
            for column, dtype in zip(columns, self._parameters.dtypes, strict=True)
        )
        for position in range(int(positions.max(initial=-1)) + 1):
            rows = np.flatnonzero(positions == position)
            key = codes[rows]
            for whole, column in zip(folded, columns, strict=True):
                whole[key] = column[rows] if position == 0 else self._parameters.fn((whole[key], column[rows]), axis=0)
        return folded

    def outputs(self, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs = [column.astype(dtype) for column, dtype in zip(columns, self._parameters.dtypes, strict=True)]
        if columns[0].ndim == 1:
            # See `combine._FoldReduction`.
            is_default = self._parameters.is_default(columns[0])
            for output in outputs:
                output[is_default] = self._parameters.default
        return outputs


class _MeanAndVarPerKey(_TableReduction):
    """A reduction for `WeightedMeanAndVarCombiner` without weights, per key."""

    def __init__(self, combiner: Any, tensors: Sequence[tf.Tensor], dtype: type):
        super().__init__(combiner, tensors)
        self._dtype = dtype

    def add(self, partial: list[KeyedTable], values: tuple[np.ndarray, ...]) -> list[KeyedTable]:
        return super().add(partial, values[:4])

    def fold(self, groups: _KeyGroups, columns: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        return tuple(merge_moment_groups(MomentsAccumulator(*columns), groups.starts))

    def outputs(self, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [column.astype(self._dtype) for column in columns[1:]]


class _QuantilesPerKey(MergingReduction["_KeyedPoints"]):
    """A reduction for `QuantilesCombiner` per key."""

    def __init__(self, combiner: Any, tensors: Sequence[tf.Tensor], parameters: combiners.QuantilesParameters):
        super().__init__(tensors)
        self._combiner = combiner
        self._parameters = parameters

    def start(self) -> list[_KeyedPoints]:
        return []

    def add(self, partial: list[_KeyedPoints], values: tuple[np.ndarray, ...]) -> list[_KeyedPoints]:
        check_inputs(values)
        keys, x, *weights = values
        groups = _KeyGroups.of(_binary(keys))
        width = int(np.prod(x.shape[1:], dtype=np.int64))
        points = WeightedPoints.of(
            x, weights[0] if self._parameters.has_weights else None, np.repeat(groups.codes, width)
        )
        partial.append(_KeyedPoints(groups.keys, points))
        return partial

    def finish(self, partial: list[_KeyedPoints]) -> _KeyedPoints:
        return self.merge(partial)

    def merge(self, states: Sequence[_KeyedPoints]) -> _KeyedPoints:
        if len(states) < 2:
            return states[0] if states else _KeyedPoints(_binary(np.zeros(0, object)), WeightedPoints.merged([]))
        groups = _KeyGroups.of(pa.concat_arrays([state.keys for state in states]))
        ends = np.cumsum([len(state.keys) for state in states])
        parts = []
        for state, end in zip(states, ends, strict=True):
            codes = groups.codes[end - len(state.keys) : end]
            parts.append(state.points._replace(groups=codes[state.points.groups]))
        return _KeyedPoints(groups.keys, WeightedPoints.merged(parts).thinned(self._parameters.epsilon))

    def extract(self, state: _KeyedPoints) -> KeyedOutputs:
        keys, order = _sorted(state.keys)
        bounds = np.searchsorted(state.points.groups, np.arange(len(keys) + 1))
        outputs = []
        for group in order:
            points = WeightedPoints(*(field[bounds[group] : bounds[group + 1]] for field in state.points))
            outputs.append(self._combiner.extract_output(points.sketch(self._parameters))[0])
        return KeyedOutputs(keys, [np.array(outputs)] if outputs else _no_outputs(self._combiner))

    def encode(self, state: _KeyedPoints) -> dict[str, np.ndarray]:
        return encode_bytes(state.keys.to_pylist()) | state.points._asdict()

    def decode(self, arrays: Mapping[str, np.ndarray]) -> _KeyedPoints:
        points = WeightedPoints(*(arrays[name] for name in WeightedPoints._fields))
        return _KeyedPoints(pa.array(decode_bytes(arrays), pa.large_binary()), points)


class _KeyedPoints(NamedTuple):
    """Points by key: the keys, and points whose groups are the positions of the keys."""

    keys: pa.LargeBinaryArray
    points: WeightedPoints


class _CombinePerKey(MergingReduction[dict[bytes, Any]]):
    """A reduction for any combiner per key, row by row, through the combiner's own methods."""

    def __init__(self, combiner: Any, tensors: Sequence[tf.Tensor]):
        super().__init__(tensors)
        self._combiner = combiner

    def start(self) -> dict[bytes, Any]:
        return {}

    def add(self, partial: dict[bytes, Any], values: tuple[np.ndarray, ...]) -> dict[bytes, Any]:
        check_inputs(values)
        for key, *row in zip(*values, strict=True):
            accumulator = partial[key] if key in partial else self._combiner.create_accumulator()
            partial[key] = self._combiner.add_input(accumulator, row)
        return partial

    def finish(self, partial: dict[bytes, Any]) -> dict[bytes, Any]:
        return {key: self._combiner.compact(accumulator) for key, accumulator in partial.items()}

    def merge(self, states: Sequence[dict[bytes, Any]]) -> dict[bytes, Any]:
        by_key: dict[bytes, list[Any]] = {}
        for state in states:
            for key, accumulator in state.items():
                by_key.setdefault(key, [self._combiner.create_accumulator()]).append(accumulator)
        return {key: self._combiner.merge_accumulators(accumulators) for key, accumulators in by_key.items()}

    def encode(self, state: dict[bytes, Any]) -> dict[str, np.ndarray]:
        arrays = encode_bytes(list(state))
        for index, accumulator in enumerate(state.values()):
            arrays |= {f"{index} {name}": part for name, part in encode_accumulator(accumulator).items()}
        return arrays

    def decode(self, arrays: Mapping[str, np.ndarray]) -> dict[bytes, Any]:
        keys = decode_bytes(arrays)
        parts: list[dict[str, np.ndarray]] = [{} for _ in keys]
        for name in set(arrays) - {"bytes", "ends"}:
            index, _, part = name.partition(" ")
            parts[int(index)][part] = arrays[name]
        return {key: decode_accumulator(self._combiner, part) for key, part in zip(keys, parts, strict=True)}

    def extract(self, state: dict[bytes, Any]) -> KeyedOutputs:
        keys = np.array(sorted(state), object)
        outputs = [np.array(o) for o in zip(*(self._combiner.extract_output(state[key]) for key in keys), strict=True)]
        return KeyedOutputs(keys, outputs if len(keys) else _no_outputs(self._combiner))


def _no_outputs(combiner: Any) -> list[np.ndarray]:
    """Returns a combiner's outputs for no keys."""
    infos = combiner.output_tensor_infos()
    return [np.zeros((0, *(dim or 0 for dim in info.shape or ())), info.dtype.as_numpy_dtype) for info in infos]
