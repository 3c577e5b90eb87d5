"""The progress of a running step, read from the events that `tidemill.runtime.Progress` writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class StepProgress:
    """The state of a step: its current phase, and what it has done in all phases."""

    phase: str = ""
    done: int | None = None
    """What is done of the phase: rows, or what the phase counts."""
    total: int | None = None
    rows: int = 0
    """Rows that the step has processed. A row counts once in each epoch or round, and otherwise once in all phases."""
    metrics: str = ""
    """The newest metrics of a training."""

    def share(self) -> float | None:
        """Returns the share of the phase that is done, 0 to 1; None if the total is not known."""
        return min(1.0, self.done / self.total) if self.done is not None and self.total else None


class ProgressReader:
    """A reader of a growing file of events, one JSON object per line. Each call continues where the last one stopped.

    Args:
        file: The progress file. It need not exist yet.
    """

    def __init__(self, file: Path):
        self._file = file
        self._offset = 0
        self._reading = StepProgress()

    def read(self) -> StepProgress:
        """Reads the events written since the last call."""
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
        before, phase = self._reading, event.get("what", "")
        if (metrics := event.get("metrics")) is not None:
            self._reading = replace(before, metrics=metrics)
        elif (done := event.get("rows")) is None:
            self._reading = StepProgress(phase, rows=before.rows, metrics=before.metrics)
        else:
            rows = max(before.rows, event.get("step_rows", 0))
            self._reading = StepProgress(phase, done, event.get("total"), rows, before.metrics)
