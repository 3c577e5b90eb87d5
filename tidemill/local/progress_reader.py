"""The progress of a running step, read from the events that `tidemill.runtime.Progress` writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PhaseProgress:
    """The state of a step's current phase."""

    phase: str = ""
    rows: int | None = None
    total: int | None = None
    rows_per_second: float | None = None

    def share(self) -> float | None:
        """Returns the share of the rows that are done, 0 to 1; None if the total is not known."""
        return min(1.0, self.rows / self.total) if self.rows is not None and self.total else None


class ProgressReader:
    """A reader of a growing file of events, one JSON object per line. Each call continues where the last one stopped.

    Args:
        file: The progress file. It need not exist yet.
    """

    def __init__(self, file: Path):
        self._file = file
        self._offset = 0
        self._phase_began = 0.0
        self._rows_before = 0
        self._reading = PhaseProgress()

    def read(self) -> PhaseProgress:
        """Reads the events written since the last call.

        Rows per second are counted since the phase began.
        """
        try:
            with open(self._file, "rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return self._reading
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))
        return self._reading

    def _take(self, event: dict) -> None:
        seconds, phase, rows = event["seconds"], event.get("what", ""), event.get("rows")
        if rows is None:
            self._phase_began, self._rows_before, self._reading = seconds, 0, PhaseProgress(phase)
            return
        started_anew = self._reading.rows is not None and rows < self._reading.rows
        if phase != self._reading.phase or started_anew:
            self._phase_began, self._rows_before = seconds, rows
        took = seconds - self._phase_began
        rate = (rows - self._rows_before) / took if took > 0 else None
        self._reading = PhaseProgress(phase, rows, event.get("total"), rate)
