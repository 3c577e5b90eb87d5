"""Checkpoints at `ROOT/checkpoints/<training fingerprint>/<step>/`: arrays, a JSON state, and a manifest.

The fingerprint covers everything that decides the result. So a training run finds the checkpoints of its own
earlier attempts, also from another process or pod, and never those of another training run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.errors import TidemillError

KEPT_CHECKPOINTS = 2
_STATE = "state.json"
_ARRAYS = "arrays.npz"


class Checkpoints:
    """The checkpoints of one training run.

    Args:
        root: URI of the root.
        training_fingerprint: Fingerprint of the spec and the transformed examples.
        every_seconds: Minimum time between two checkpoints.
        every_steps: Maximum number of steps between two checkpoints. Defaults to no limit.
    """

    def __init__(self, root: str, training_fingerprint: str, every_seconds: float, every_steps: int | None = None):
        self.uri = storage.join(root, "checkpoints", training_fingerprint)
        self._every_seconds, self._every_steps = every_seconds, every_steps
        self._last_time, self._last_step = time.monotonic(), 0

    def due(self, step: int) -> bool:
        """Returns whether a checkpoint is due: enough seconds or steps have passed since the last one, or since the
        start."""
        if self._every_steps is not None and step - self._last_step >= self._every_steps:
            return True
        return time.monotonic() - self._last_time >= self._every_seconds

    def save(self, step: int, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Writes a checkpoint, and then removes all but the newest two.

        Args:
            step: Must grow from one checkpoint to the next.
            state: JSON-serializable.
            arrays: By name, of any dtype except object.
        """
        uri = storage.join(self.uri, f"{step:012d}")
        local = storage.local_path(uri)
        if local is not None:
            _write(local, state, arrays)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                _write(Path(scratch) / "checkpoint", state, arrays)
                storage.upload_folder(Path(scratch) / "checkpoint", uri)
        for name in self._names()[:-KEPT_CHECKPOINTS]:
            _remove(storage.join(self.uri, name))
        self._last_time, self._last_step = time.monotonic(), step

    def newest(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Returns state and arrays of the newest intact checkpoint, or None if there is none."""
        for name in reversed(self._names()):
            try:
                with _local_copy(storage.join(self.uri, name)) as path:
                    return _read(path)
            except (TidemillError, FileNotFoundError):
                # A killed process left it incomplete, or a process with the same training just removed it.
                continue
        return None

    def remove(self) -> None:
        """Removes all checkpoints of this training run."""
        _remove(self.uri)

    def _names(self) -> list[str]:
        return sorted(name for name in storage.list_folders(self.uri) if name.isdigit())


@contextmanager
def _local_copy(uri: str) -> Iterator[Path]:
    """Yields the path of a folder, which is copied first if it is in an object store."""
    path = storage.local_path(uri)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        storage.download_folder(uri, Path(scratch) / "checkpoint")
        yield Path(scratch) / "checkpoint"


def _remove(uri: str) -> None:
    # A process with the same training may remove the folder at the same time.
    with suppress(FileNotFoundError):
        storage.remove_folder(uri, first=storage.MANIFEST)


def _write(path: Path, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    with artifact.write_folder(path) as folder:
        storage.write_json(folder / _STATE, state)
        np.savez(folder / _ARRAYS, allow_pickle=False, **arrays)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    artifact.open_folder(path, deep=True)
    with np.load(path / _ARRAYS, allow_pickle=False) as arrays:
        return storage.read_json(path / _STATE), dict(arrays)
