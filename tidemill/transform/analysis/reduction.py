"""What reduces the rows of an analysis: the interface, and the order in which partial results are merged."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import tensorflow as tf

State = TypeVar("State")
_MOST_PENDING = 64


class Reduction(Protocol):
    """One accumulate node of TFT's: what becomes of the rows before TFT's later nodes see them. It is `FedReduction` or
    `ScanningReduction`.

    Attributes:
        tensors: What each batch gives it.
        scans: Whether it is `ScanningReduction`.
    """

    tensors: Sequence[tf.Tensor]
    scans: bool

    def close(self, file: int) -> None:
        """A file is through, perhaps without any unit."""

    def dump(self, file: int, folder: Path) -> None:
        """Writes a closed file's state to files in a folder, without pickle."""

    def load(self, file: int, folder: Path) -> None:
        """Reads what `dump` wrote, instead of `collect` and `close`."""

    def result(self) -> Any:
        """All files' states together, as the node's consumer takes it."""


class FedReduction(Reduction, Protocol):
    """A reduction that is given batches of the rows.

    Units are reduced by threads, each from `start` over `add` to `finish`. The rest happens on one thread, units and
    files in row order, so that the result does not depend on the number of threads.
    """

    def start(self) -> Any:
        """A unit's fresh partial result."""

    def add(self, partial: Any, values: tuple[np.ndarray, ...]) -> Any:
        """A batch more.

        Args:
            partial: What `start` or `add` gave; may be changed.
            values: The tensors' values; strings as objects of type bytes.
        """

    def finish(self, partial: Any) -> Any:
        """Makes a partial result small. Still on the unit's thread."""

    def collect(self, file: int, partial: Any) -> None:
        """Takes a unit's result."""


class ScanningReduction(Reduction, Protocol):
    """A reduction that reads the rows by itself, and gets no units."""

    def run(self, files: Sequence[int], threads: int, progress: Callable[[int], None]) -> None:
        """Reads files and closes them.

        Args:
            files: Their indices.
            threads: The number of threads to use.
            progress: Told the number of rows that are through.
        """

    def dump_sum(self, folder: Path) -> None:
        """Writes all files' states together, after `result`."""

    def load_sum(self, folder: Path) -> None:
        """Reads what `dump_sum` wrote, instead of each of its files. Called at most once, before all else."""


class MergingReduction(abc.ABC, Generic[State]):
    """A `FedReduction` reduction whose states are merged unit after unit, then file after file."""

    scans = False

    def __init__(self, tensors: Sequence[tf.Tensor]):
        self.tensors = tuple(tensors)
        self._pending: list[State] = []
        self._files: dict[int, State] = {}

    @abc.abstractmethod
    def start(self) -> Any:
        """See `Reduction`."""

    @abc.abstractmethod
    def add(self, partial: Any, values: tuple[np.ndarray, ...]) -> Any:
        """See `Reduction`."""

    @abc.abstractmethod
    def finish(self, partial: Any) -> State:
        """See `Reduction`."""

    @abc.abstractmethod
    def merge(self, states: Sequence[State]) -> State:
        """States in row order, of which there may be none, as one. May change them."""

    @abc.abstractmethod
    def encode(self, state: State) -> Mapping[str, np.ndarray]:
        """A state as arrays of numbers."""

    @abc.abstractmethod
    def decode(self, arrays: Mapping[str, np.ndarray]) -> State:
        """The state that `encode` was given."""

    @abc.abstractmethod
    def extract(self, state: State) -> Any:
        """The result."""

    def collect(self, file: int, partial: State) -> None:
        """See `Reduction`."""
        self._pending.append(partial)
        if len(self._pending) == _MOST_PENDING:
            self._pending = [self.merge(self._pending)]

    def close(self, file: int) -> None:
        """See `Reduction`."""
        self._files[file] = self.merge(self._pending)
        self._pending = []

    def dump(self, file: int, folder: Path) -> None:
        """See `Reduction`."""
        np.savez(folder / "state.npz", **self.encode(self._files[file]))

    def load(self, file: int, folder: Path) -> None:
        """See `Reduction`."""
        with np.load(folder / "state.npz", allow_pickle=False) as arrays:
            self._files[file] = self.decode(arrays)

    def result(self) -> Any:
        """See `Reduction`."""
        return self.extract(self.merge([self._files[file] for file in sorted(self._files)]))


def encode_bytes(values: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Byte strings as two arrays: their bytes one after the other, and where each ends."""
    return {
        "bytes": np.frombuffer(b"".join(values), np.uint8),
        "ends": np.cumsum([len(value) for value in values], dtype=np.int64),
    }


def decode_bytes(arrays: Mapping[str, np.ndarray]) -> list[bytes]:
    """What `encode_bytes` was given."""
    joined, ends = arrays["bytes"].tobytes(), arrays["ends"].tolist()
    return [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]
