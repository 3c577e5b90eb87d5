"""The context of a fit: its data, settings and checkpoints, and the notice of a preemption."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tidemill.artifacts.examples import Dataset
from tidemill.experiment.training import Training
from tidemill.runtime import Preempted, Progress
from tidemill.training.checkpoint import Checkpoints
from tidemill.training.history import History
from tidemill.transform.graph import TransformGraph


class PreemptionNotice:
    """The notice of a preemption: whether this process received SIGTERM, which a spot node sends before it goes
    away."""

    def __init__(self) -> None:
        self._received = False

    @property
    def received(self) -> bool:
        """Whether SIGTERM arrived."""
        return self._received

    def check(self) -> None:
        """Stops the work if SIGTERM arrived.

        Raises:
            Preempted: SIGTERM arrived.
        """
        if self._received:
            raise Preempted("SIGTERM")

    def _receive(self, *_: object) -> None:
        self._received = True


@contextlib.contextmanager
def preemption_notice() -> Iterator[PreemptionNotice]:
    """Records SIGTERM inside the block instead of ending the process.

    Only a process's main thread can do this. In other threads the notice never arrives.
    """
    notice = PreemptionNotice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    previous = signal.signal(signal.SIGTERM, notice._receive)
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, previous)


@dataclass(frozen=True)
class FitContext:
    """The context of a fit: everything that it needs besides the model.

    Attributes:
        data: Transformed examples with the splits train and, unless early stopping is off, valid.
        training: The `training` section of the experiment.
        history: Receives the metrics of each epoch or round.
        checkpoints: Where a fit resumes from.
        progress: Receives the progress.
        notice: Whether the process received SIGTERM. Defaults to a notice that never arrives.
        graph: The transform graph that made the data. Only a warm start needs it. Defaults to None.
    """

    data: Dataset
    training: Training
    history: History
    checkpoints: Checkpoints
    progress: Progress
    notice: PreemptionNotice = field(default_factory=PreemptionNotice)
    graph: TransformGraph | None = None
