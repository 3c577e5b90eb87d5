"""Checkpoints at `ROOT/checkpoints/<training fingerprint>/<step>/`: arrays, a JSON state, and a manifest that comes
last.

The fingerprint is of all that decides the result, so that a checkpoint is found by exactly the training that it
belongs to, also by another process or pod, and never by another.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path

import fsspec
import numpy as np

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.errors import TidemillError

KEPT = 2
_STATE = "state.json"
_ARRAYS = "arrays.npz"


class Checkpoints:
    """The checkpoints of one training.

    Args:
        root: URI of the folder where Tidemill keeps things.
        training_fingerprint: Of the spec and the transformed examples.
        every_seconds: Least time between two checkpoints.
        every_steps: Most steps between two checkpoints. Defaults to no limit.
    """

    def __init__(self, root: str, training_fingerprint: str, every_seconds: float, every_steps: int | None = None):
        self.uri = storage.join(root, "checkpoints", training_fingerprint)
        self._local = storage.local_path(self.uri)
        self._every_seconds, self._every_steps = every_seconds, every_steps
        self._last, self._last_step = time.monotonic(), 0

    def due(self, step: int) -> bool:
        """Whether the last checkpoint, or the start, is long enough ago, in seconds or in steps."""
        if self._every_steps is not None and step - self._last_step >= self._every_steps:
            return True
        return time.monotonic() - self._last >= self._every_seconds

    def save(self, step: int, state: dict, arrays: dict[str, np.ndarray]) -> None:
        """Writes a checkpoint, and then removes all but the newest two.

        Args:
            step: Grows from one checkpoint to the next.
            state: JSON-serialisable.
            arrays: By name; of any dtype but object.
        """
        name = f"{step:012d}"
        if self._local is not None:
            _write(self._local / name, state, arrays)
        else:
            with tempfile.TemporaryDirectory() as folder:
                _write(Path(folder) / name, state, arrays)
                storage.upload_folder(str(Path(folder) / name), storage.join(self.uri, name))
        for old in self._names()[:-KEPT]:
            _remove(storage.join(self.uri, old))
        self._last, self._last_step = time.monotonic(), step

    def newest(self) -> tuple[dict, dict[str, np.ndarray]] | None:
        """State and arrays of the newest checkpoint whose bytes are whole; None where there is none."""
        for name in reversed(self._names()):
            try:
                if self._local is not None:
                    return _read(self._local / name)
                with tempfile.TemporaryDirectory() as folder:
                    storage.download_folder(storage.join(self.uri, name), str(Path(folder) / name))
                    return _read(Path(folder) / name)
            except (TidemillError, FileNotFoundError):
                # Half-written by a process that was killed, or just removed by one that trains the same.
                continue
        return None

    def remove(self) -> None:
        """Removes all checkpoints of this training."""
        _remove(self.uri)

    def _names(self) -> list[str]:
        return sorted(name for name in storage.list_folders(self.uri) if name.isdigit())


def _write(path: Path, state: dict, arrays: dict[str, np.ndarray]) -> None:
    with artifact.write_folder(path) as folder:
        storage.write_json(folder / _STATE, state)
        np.savez(folder / _ARRAYS, allow_pickle=False, **arrays)


def _read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    artifact.open_folder(path, deep=True)
    state = json.loads((path / _STATE).read_text(encoding="utf-8"))
    with np.load(path / _ARRAYS, allow_pickle=False) as arrays:
        return state, dict(arrays)


def _remove(uri: str) -> None:
    path = storage.local_path(uri)
    if path is not None:
        shutil.rmtree(path, ignore_errors=True)
        return
    files = fsspec.filesystem("gs", use_listings_cache=False)
    if files.exists(uri):
        files.rm(uri, recursive=True)
