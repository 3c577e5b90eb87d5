"""Checkpoints at `ROOT/checkpoints/<training fingerprint>/<step>/`, written on a background thread.

The fingerprint covers everything that decides the result. So a training run finds the checkpoints of its own
earlier attempts, also from another process or pod, and never those of another training run.

The training thread only copies the state to host memory, between two steps. The copy is written while training
continues, and at most one write is in flight. A process that is killed loses at most the work of `every_seconds`
and of the time of one write; if a write takes longer than `every_seconds`, that of two writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from tidemill import storage
from tidemill.errors import TidemillError
from tidemill.training import checkpoint_files
from tidemill.training.checkpoint_files import PARTIAL, Arrays

KEPT_CHECKPOINTS = 2


class Checkpoints:
    """The checkpoints of one training run.

    Use it as a context manager. If the block ends, they are removed. If it raises, the write in flight is finished.

    Args:
        root: URI of the root.
        training_fingerprint: Fingerprint of the spec and the transformed examples.
        every_seconds: Time between two checkpoints. It is longer if writing one takes longer.
        every_steps: Maximum number of steps between two checkpoints, unless writing one takes longer. Defaults to no
            limit.

    Attributes:
        blocked_seconds: Time that `save` took so far.
        write_seconds: Time that the slowest write took so far.
    """

    def __init__(self, root: str, training_fingerprint: str, every_seconds: float, every_steps: int | None = None):
        self.uri = storage.join(root, "checkpoints", training_fingerprint)
        self.blocked_seconds, self.write_seconds = 0.0, 0.0
        self._every_seconds, self._every_steps = every_seconds, every_steps
        self._started = self._last_time = time.monotonic()
        self._last_step = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._write: Future[None] | None = None
        self._abandon = threading.Event()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if kind is None:
            self.remove()
        else:
            self._pool.shutdown(wait=True)

    def due(self, step: int, ahead: float = 0.0) -> bool:
        """Returns whether a checkpoint is due: enough seconds or steps have passed since the last one, or since the
        start, and no write is in flight.

        Args:
            step: The current step.
            ahead: Seconds until the next call. Defaults to 0.

        Raises:
            Exception: The last write failed with this error.
        """
        if self._write is not None and not self._write.done():
            return False
        self.wait()
        if self._every_steps is not None and step - self._last_step >= self._every_steps:
            return True
        return time.monotonic() - self._last_time + ahead >= self._every_seconds

    def save(self, step: int, state: dict[str, Any], snapshot: Callable[[], Arrays]) -> None:
        """Takes a snapshot and starts to write a checkpoint. Afterwards, all but the newest two are removed.

        Waits for the write in flight first. On SIGTERM this loses nothing: if the process is killed before the next
        checkpoint is complete, it resumes from the one in flight, which has the state of a moment before. Starting anew
        would take longer and could leave nothing.

        Args:
            step: Must grow from one checkpoint to the next.
            state: JSON-serializable. Must not be changed later.
            snapshot: Returns arrays by name, of any dtype except object, that are not changed later.

        Raises:
            Exception: The last write failed with this error.
        """
        started = time.monotonic()
        self.wait()
        arrays = snapshot()
        self._write = self._pool.submit(self._write_and_prune, step, state, arrays)
        del arrays  # the writer releases them
        self._last_time, self._last_step = started, step
        self.blocked_seconds += time.monotonic() - started

    def wait(self) -> None:
        """Waits for the write in flight.

        Raises:
            Exception: The write failed with this error.
        """
        if self._write is not None:
            self._write.result()

    def newest(self) -> tuple[dict[str, Any], Arrays] | None:
        """Returns state and arrays of the newest intact checkpoint, or None if there is none.

        Training starts after this call: it also removes what killed processes were writing, and starts the clock of
        `due` and `blocked_share`.
        """
        for name in self._names(PARTIAL):
            # If a live process is writing it, it skips this checkpoint.
            checkpoint_files.remove(storage.join(self.uri, name))
        try:
            for name in reversed(self._names()):
                try:
                    return checkpoint_files.read(storage.join(self.uri, name))
                except (TidemillError, FileNotFoundError):
                    # A killed process left it incomplete, or a process with the same training just removed it.
                    continue
            return None
        finally:
            self._started = self._last_time = time.monotonic()

    def blocked_share(self) -> float:
        """Returns the share of the time since `newest` that `save` took."""
        return self.blocked_seconds / max(time.monotonic() - self._started, 1e-9)

    def remove(self) -> None:
        """Removes all checkpoints of this training run. Stops the write in flight, whose result is not needed."""
        self._abandon.set()
        self._pool.shutdown(wait=True)
        self._write = None
        checkpoint_files.remove(self.uri)

    def _write_and_prune(self, step: int, state: dict[str, Any], arrays: Arrays) -> None:
        started = time.monotonic()
        name = f"{step:012d}"
        checkpoint_files.write(storage.join(self.uri, name), state, arrays, self._abandon)
        complete = [n for n in self._names() if checkpoint_files.is_complete(storage.join(self.uri, n))]
        # The newest may be damaged, or a killed process may have left it incomplete: the one just written is kept.
        kept = {*complete[-KEPT_CHECKPOINTS:], name}
        for other in self._names() + self._names(PARTIAL):
            if other not in kept and (other in complete or other < min(kept)):
                checkpoint_files.remove(storage.join(self.uri, other))
        self.write_seconds = max(self.write_seconds, time.monotonic() - started)

    def _names(self, suffix: str = "") -> list[str]:
        """Returns the sorted names of the checkpoints, or of folders that are being written."""
        parts = [(name, *name.partition(".")) for name in storage.list_folders(self.uri)]
        return sorted(name for name, step, dot, _ in parts if step.isdigit() and name.endswith(suffix or step))
