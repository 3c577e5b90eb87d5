"""Being told to end: a spot node that goes away sends SIGTERM, and then leaves some seconds."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from tidemill.runtime import Preempted


class Notice:
    """Whether the process was told to end."""

    def __init__(self) -> None:
        self._told = False

    @property
    def given(self) -> bool:
        """Whether SIGTERM has come."""
        return self._told

    def check(self) -> None:
        """Ends the work where SIGTERM has come.

        Raises:
            Preempted: it has.
        """
        if self._told:
            raise Preempted("SIGTERM")

    def _receive(self, *_: object) -> None:
        self._told = True


@contextlib.contextmanager
def notice() -> Iterator[Notice]:
    """Within, SIGTERM does not end the process but is noticed. Only in a process's main thread; elsewhere nothing is
    ever noticed."""
    found = Notice()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = signal.signal(signal.SIGTERM, found._receive)
    try:
        yield found
    finally:
        signal.signal(signal.SIGTERM, before)
