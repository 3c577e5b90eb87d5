"""An exact index of known values, which looks up many values at once in numpy."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

# Polars restarts interrupted system calls after a signal, so Ctrl-C would not end a wait for another thread.
signal.siginterrupt(signal.SIGINT, True)

NOT_FOUND = -1
_EMPTY = np.uint64(0xFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)
_HALF = np.uint64(1 << 32)
_INLINE_BYTES = np.uint64(12)
_SPARSITY = 3
"""Minimum number of slots per known value. More slots cause fewer collisions and a larger table."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_CHUNK = 1 << 15
"""Number of values that are looked up together, so that their hashes and slots stay in the cache."""


class ValueIndex:
    """An index of known values and their positions.

    A hash table with open addressing. A slot holds half of a value's hash and its position. Hits are compared with the
    value itself, so the result is exact for any hashes.

    Args:
        values: Unique values without nulls: large_binary or int64, fewer than 2^32 - 1.

    Attributes:
        values: The values.
    """

    def __init__(self, values: pa.Array):
        self.values = values
        keys = _Keys(values)
        self._words = [np.ascontiguousarray(word) for word in keys.words]
        hashes = keys.hashes
        bits = max(int(len(values) * _SPARSITY - 1).bit_length(), 4)
        self._mask = np.uint64((1 << bits) - 1)
        home = hashes & self._mask
        order = np.argsort(home, kind="stable")
        # Linear probing without wrap-around: values, in the order of their home slots, take the next free slot.
        ranks = np.arange(len(values), dtype=np.int64)
        slots = np.maximum.accumulate(home[order].astype(np.int64) - ranks) + ranks
        self._table = np.full(max(1 << bits, int(slots[-1]) + 1 if len(slots) else 0) + 1, _EMPTY, np.uint64)
        self._table[slots] = (hashes[order] >> _HIGH << _HIGH) | order.astype(np.uint64)

    def __len__(self) -> int:
        return len(self.values)

    def find(self, array: pa.Array) -> np.ndarray:
        """Returns each value's position in `self.values`.

        Args:
            array: `[n]` values of the type of `values`. The result for a null is undefined.

        Returns:
            int32 `[n]`, `NOT_FOUND` for unknown values.
        """
        result = np.empty(len(array), np.int32)
        for start in range(0, len(array), _CHUNK):
            result[start : start + _CHUNK] = self._find(array.slice(start, _CHUNK))
        return result

    def _find(self, array: pa.Array) -> np.ndarray:
        keys = _Keys(array)
        hashes = keys.hashes
        slots = (hashes & self._mask).astype(np.int64)
        entries = self._table[slots]
        # An empty slot holds NOT_FOUND as its position.
        result = (entries & _LOW).astype(np.uint32).view(np.int32)
        differs = (entries ^ hashes) >= _HALF
        pending = np.flatnonzero(differs & (result != NOT_FOUND))
        result[differs] = NOT_FOUND
        while len(pending):
            slots[pending] += 1
            entries = self._table[slots[pending]]
            positions = (entries & _LOW).astype(np.uint32).view(np.int32)
            differs = (entries ^ hashes[pending]) >= _HALF
            used = positions != NOT_FOUND
            hit = used & ~differs
            result[pending[hit]] = positions[hit]
            pending = pending[used & differs]
        self._verify(array, keys, result)
        return result

    def _verify(self, array: pa.Array, keys: _Keys, result: np.ndarray) -> None:
        """Looks up again, one by one, values that share half of a hash with another value."""
        if not len(self.values):
            return
        position = np.maximum(result, 0)
        same = self._words[0][position] == keys.words[0]
        for known, word in zip(self._words[1:], keys.words[1:], strict=True):
            same &= known[position] == word
        wrong = np.flatnonzero((result != NOT_FOUND) & ~same)
        if keys.are_long is not None and len(wrong):
            long = wrong[keys.are_long[wrong]]
            equal = pc.equal(array.take(pa.array(long)), self.values.take(pa.array(result[long])))
            right = long[equal.fill_null(True).to_numpy(zero_copy_only=False)]
            wrong = np.setdiff1d(wrong, right, assume_unique=True)
        for row in wrong:
            scalar = array[int(row)]
            result[row] = pc.index(self.values, scalar).as_py() if scalar.is_valid else NOT_FOUND


class _Keys:
    """Keys: values in the form in which the index compares them.

    Attributes:
        hashes: uint64 `[n]`. Both halves depend on the whole value.
        words: uint64 arrays `[n]`, which are equal if values are equal, except for long values.
        are_long: bool `[n]`, whether the words do not determine the value; None if no value can be long.
    """

    def __init__(self, array: pa.Array):
        if not len(array):
            empty = np.empty(0, np.uint64)
            self.hashes, self.words, self.are_long = empty, [empty, empty], None
        elif pa.types.is_int64(array.type):
            numbers = np.frombuffer(array.buffers()[1], np.uint64, len(array), array.offset * 8)
            hashes = numbers * _MULTIPLIER
            self.hashes = (hashes ^ (hashes >> _HIGH)) * _MULTIPLIER
            self.words, self.are_long = [numbers], None
        else:
            # Arrow's views are 16 bytes: the length, and a value of up to 12 bytes padded with zeros.
            views = array.cast(pa.binary_view())
            series: Any = pl.from_arrow(views)
            self.hashes = series.hash().to_numpy()
            words = np.frombuffer(views.buffers()[1], np.uint64, len(views) * 2, views.offset * 16).reshape(-1, 2)
            self.words = [words[:, 0], words[:, 1]]
            self.are_long = (words[:, 0] & _LOW) > _INLINE_BYTES
