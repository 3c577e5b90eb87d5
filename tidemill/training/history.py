"""The history of a training run: its metrics over time, as JSON for the report and live for TensorBoard."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Literal

from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter

from tidemill import storage
from tidemill.auc_and_log_loss import is_better

EVENTS_FILE = "events.out.tfevents.tidemill"
_COPY_SECONDS = 5.0


class History:
    """A history: the metrics of each epoch or boosting round. Writes TensorBoard's event file without TensorFlow.

    Args:
        logs: Folder for the event file. It is created.
        unit: What an entry is: `epoch` or `round`.
        live: URI of a folder for a copy of the event file that is updated every few seconds, for TensorBoard during
            training. Defaults to no copy.

    Attributes:
        entries: One dict for each epoch or round: `step` (from 1), `train` and `valid` (metrics by name; `valid` is
            empty without a valid split), `seconds`, `rows_per_second` and, for networks, `input_share`, the share of
            the time that was spent waiting for rows.
    """

    def __init__(self, logs: str | os.PathLike[str], unit: Literal["epoch", "round", "model"], live: str | None = None):
        self.unit = unit
        self.entries: list[dict[str, Any]] = []
        self._folder, self._live, self._copied = Path(logs), live, 0.0
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self._folder / EVENTS_FILE, "wb")  # noqa: SIM115 (closed by `close`)
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(
        self,
        train: dict[str, float],
        valid: dict[str, float],
        seconds: float,
        rows_per_second: float,
        input_share: float | None = None,
    ) -> None:
        """Adds the next epoch or round."""
        entry = {"step": len(self.entries) + 1, "train": train, "valid": valid}
        entry |= {"seconds": round(seconds, 3), "rows_per_second": round(rows_per_second, 1)}
        self._add(entry | ({} if input_share is None else {"input_share": round(input_share, 4)}))

    def add_loss(self, step: int, loss: float) -> None:
        """Adds the mean train loss of the epoch so far, after `step` steps of the training, only for TensorBoard.

        An epoch can take hours.
        """
        values = [Summary.Value(tag="train/log_loss_so_far", simple_value=loss)]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def input_share(self) -> float | None:
        """Returns the share of the training time that was spent waiting for rows, or None if it is unknown."""
        known = [entry for entry in self.entries if "input_share" in entry]
        seconds = sum(entry["seconds"] for entry in known)
        return sum(entry["input_share"] * entry["seconds"] for entry in known) / seconds if seconds else None

    def restore(self, entries: list[dict[str, Any]]) -> None:
        """Adds the entries of a checkpoint."""
        for entry in entries:
            self._add(entry)

    def best(self, metric: str) -> int | None:
        """Returns the index of the entry with the best valid metric, the first of equals. None if no entry has it."""
        best = None
        for i, entry in enumerate(self.entries):
            value = entry["valid"].get(metric)
            if value is not None and (best is None or is_better(metric, value, self.entries[best]["valid"][metric])):
                best = i
        return best

    def save(self, path: str | os.PathLike[str], kept: int) -> None:
        """Writes `unit`, `kept` (the number of epochs or rounds that the model keeps) and `entries` as JSON."""
        storage.write_json(path, {"unit": self.unit, "kept": kept, "entries": self.entries})

    def close(self) -> None:
        """Closes the event file."""
        self._file.close()
        self._copy()

    def _add(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        scalars = {f"{split}/{name}": value for split in ("train", "valid") for name, value in entry[split].items()}
        scalars |= {name: entry[name] for name in ("rows_per_second", "input_share") if name in entry}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=entry["step"], summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()
        if time.monotonic() - self._copied > _COPY_SECONDS:
            self._copy()

    def _copy(self) -> None:
        if self._live is not None:
            storage.upload_folder(self._folder, self._live)
            self._copied = time.monotonic()
