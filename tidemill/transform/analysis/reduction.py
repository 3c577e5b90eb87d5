"""The interface of reductions over the rows of an analysis, and the order in which partial results are merged."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeGuard, TypeVar

import numpy as np
import tensorflow as tf

State = TypeVar("State")
_MAX_PENDING = 64


class Reduction(Protocol):
    """A reduction of the rows for one accumulate node of TFT: a `FedReduction` or a `ScanningReduction`.

    Attributes:
        tensors: The tensors that it takes from each batch.
        scans: Whether it is a `ScanningReduction`.
    """

    @property
    def tensors(self) -> Sequence[tf.Tensor]: ...

    @property
    def scans(self) -> bool: ...

    def close(self, file: int) -> None:
        """Finishes a file, which may have had no unit."""

    def dump(self, file: int, folder: Path) -> None:
        """Writes a closed file's state to files in a folder, without pickle."""

    def load(self, file: int, folder: Path) -> None:
        """Reads the state that `dump` wrote, instead of `collect` and `close`."""

    def result(self) -> Any:
        """Returns the merged states of all files, in the form that the next node takes."""


class FedReduction(Reduction, Protocol):
    """A reduction that is fed batches of the rows.

    Threads reduce units, each by `start`, `add` and `finish`. The other methods run on one thread, with units and files
    in row order, so that the result does not depend on the number of threads.
    """

    def start(self) -> Any:
        """Returns a unit's empty partial result."""

    def add(self, partial: Any, values: tuple[np.ndarray, ...]) -> Any:
        """Adds a batch.

        Args:
            partial: The result of `start` or `add`; may be changed.
            values: The tensors' values; strings as objects of type bytes.
        """

    def finish(self, partial: Any) -> Any:
        """Compacts a partial result, on the unit's thread."""

    def collect(self, file: int, partial: Any) -> None:
        """Takes a unit's result."""


class ScanningReduction(Reduction, Protocol):
    """A reduction that reads the rows by itself, without units."""

    def run(self, files: Sequence[int]) -> None:
        """Reads files, given by index, and closes them."""

    def dump_sum(self, folder: Path) -> None:
        """Writes the merged states of all files, after `result`."""

    def load_sum(self, folder: Path) -> None:
        """Reads the states that `dump_sum` wrote, instead of its files. Called at most once and before all other
        methods."""


def is_fed(reduction: Reduction) -> TypeGuard[FedReduction]:
    """Returns whether a reduction is fed batches."""
    return not reduction.scans


def is_scanning(reduction: Reduction) -> TypeGuard[ScanningReduction]:
    """Returns whether a reduction reads the rows by itself."""
    return reduction.scans


class MergingReduction(abc.ABC, Generic[State]):
    """A `FedReduction` that merges the states of units, then those of files."""

    scans = False

    def __init__(self, tensors: Sequence[tf.Tensor]):
        self.tensors = tuple(tensors)
        self._pending: list[State] = []
        self._files: dict[int, State] = {}

    @abc.abstractmethod
    def start(self) -> Any:
        """See `FedReduction`."""

    @abc.abstractmethod
    def add(self, partial: Any, values: tuple[np.ndarray, ...]) -> Any:
        """See `FedReduction`."""

    @abc.abstractmethod
    def finish(self, partial: Any) -> State:
        """See `FedReduction`."""

    @abc.abstractmethod
    def merge(self, states: Sequence[State]) -> State:
        """Merges states, given in row order, into one. There may be no state. May change the states."""

    @abc.abstractmethod
    def encode(self, state: State) -> Mapping[str, np.ndarray]:
        """Returns a state as arrays of numbers."""

    @abc.abstractmethod
    def decode(self, arrays: Mapping[str, np.ndarray]) -> State:
        """Returns the state that `encode` encoded."""

    @abc.abstractmethod
    def extract(self, state: State) -> Any:
        """Returns the reduction's result."""

    def collect(self, file: int, partial: State) -> None:
        """See `FedReduction`."""
        self._pending.append(partial)
        if len(self._pending) == _MAX_PENDING:
            self._pending = [self.merge(self._pending)]

    def close(self, file: int) -> None:
        """See `Reduction`."""
        self._files[file] = self.merge(self._pending)
        self._pending = []

    def dump(self, file: int, folder: Path) -> None:
        """See `Reduction`."""
        arrays: Any = self.encode(self._files[file])
        np.savez(folder / "state.npz", **arrays)

    def load(self, file: int, folder: Path) -> None:
        """See `Reduction`."""
        with np.load(folder / "state.npz", allow_pickle=False) as arrays:
            self._files[file] = self.decode(arrays)

    def result(self) -> Any:
        """See `Reduction`."""
        return self.extract(self.merge([self._files[file] for file in sorted(self._files)]))


def encode_bytes(values: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Returns byte strings as two arrays: the concatenated bytes, and the end of each string."""
    return {
        "bytes": np.frombuffer(b"".join(values), np.uint8),
        "ends": np.cumsum([len(value) for value in values], dtype=np.int64),
    }


def decode_bytes(arrays: Mapping[str, np.ndarray]) -> list[bytes]:
    """Returns the byte strings that `encode_bytes` encoded."""
    joined, ends = arrays["bytes"].tobytes(), arrays["ends"].tolist()
    return [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]
