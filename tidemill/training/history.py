"""The course of training: for the report as JSON, and while it goes on for TensorBoard."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from tidemill import storage
from tidemill.training.metrics import better

EVENTS_FILE = "events.out.tfevents.tidemill"
_COPY_SECONDS = 5.0


class History:
    """What each epoch or boosting round gave. TensorBoard's event file is written without TensorFlow.

    Args:
        logs: Folder for the event file; it is made.
        unit: What an entry is.
        live: URI of a folder where a copy of the event file is kept that is some seconds old at most, for TensorBoard
            while the training goes on. Defaults to none.

    Attributes:
        entries: One dict an epoch or round: `step` (from 1), `train` and `valid` (metrics by name; `valid` is empty
            without a valid split), `seconds`, `rows_per_second` and, where it is known, `input_share`, the share of the
            time that was spent waiting for rows.
    """

    def __init__(self, logs: str | os.PathLike, unit: Literal["epoch", "round"], live: str | None = None):
        self.unit = unit
        self.entries: list[dict] = []
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
        """Adds the mean train loss since the epoch began, after `step` steps of the whole training: for TensorBoard
        alone, since an epoch can take hours."""
        values = [Summary.Value(tag="train/log_loss_so_far", simple_value=loss)]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def input_share(self) -> float | None:
        """The share of the training's time that was spent waiting for rows; None where it is not known."""
        known = [entry for entry in self.entries if "input_share" in entry]
        seconds = sum(entry["seconds"] for entry in known)
        return sum(entry["input_share"] * entry["seconds"] for entry in known) / seconds if seconds else None

    def restore(self, entries: list[dict]) -> None:
        """Takes over the entries of a checkpoint."""
        for entry in entries:
            self._add(entry)

    def best(self, metric: str) -> int | None:
        """The place in `entries` of the best valid metric, the first of equals. None where there is no such metric."""
        best = None
        for place, entry in enumerate(self.entries):
            value = entry["valid"].get(metric)
            if value is not None and (best is None or better(metric, value, self.entries[best]["valid"][metric])):
                best = place
        return best

    def save(self, path: str | os.PathLike, kept: int) -> None:
        """Writes the entries as JSON with `unit` and `kept`, the number of epochs or rounds that the model keeps."""
        storage.write_json(path, {"unit": self.unit, "kept": kept, "entries": self.entries})

    def close(self) -> None:
        """Closes the event file."""
        self._file.close()
        self._copy()

    def _add(self, entry: dict) -> None:
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
