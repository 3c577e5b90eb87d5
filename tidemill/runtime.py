"""The frame of every step: progress reports, exit codes, and the end of the process when its run ends."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from tidemill import storage
from tidemill.errors import EXIT_CODE, Code, Preempted, TidemillError, from_system_error
from tidemill.failure_record import FailureRecord, GivenUp
from tidemill.metric_definitions import name_of

PROGRESS_FILE = "TIDEMILL_PROGRESS_FILE"
ERROR_FILE = "TIDEMILL_ERROR_FILE"
RUN_PID = "TIDEMILL_RUN_PID"
CPU_ONLY = "TIDEMILL_CPU_ONLY"
"""Environment variable of planning steps in a pipeline whose steps all run in the CPU image."""
PREEMPTED_EXIT_CODE = 128 + signal.SIGTERM
"""Exit code of a step that SIGTERM ended and that can resume, by the convention of shells."""
_PR_SET_PDEATHSIG = 1
_MIN_INTERVAL_S = 0.2
_LINE_INTERVAL_S = 10.0


class Progress:
    """Progress reports of one step: lines of its log, and events for the terminal of a local run.

    Reports are cheap: at most five events are written per second, and a line about rows or metrics every ten seconds.
    The others are dropped. The environment variable `TIDEMILL_PROGRESS_FILE` names the file to append the events to.

    Args:
        step: The step's name.
        failures: The failures of the step's task. Defaults to a record of none.
    """

    def __init__(self, step: str, failures: FailureRecord | None = None):
        self.step = step
        self.failures = failures
        self._file = os.environ.get(PROGRESS_FILE)
        self._started = time.monotonic()
        self._rows = 0
        self._written: dict[str, float] = {"rows": -math.inf, "metrics": -math.inf}
        """The time of the last event of a kind."""
        self._logged = {"rows": self._started, "metrics": self._started}
        """The time of the last line of a kind."""

    def rows(
        self, done: int, total: int | None = None, phase: str = "", *, earlier: int = 0, unit: str = "rows"
    ) -> None:
        """Reports that rows of the current phase are done.

        Args:
            done: Number of rows that are done.
            total: Number of all rows of the phase. Defaults to unknown.
            phase: Name of the phase. Defaults to none.
            earlier: Rows of earlier phases that the step's number of rows includes, such as earlier epochs. Negative:
                rows of this phase that another process did. Defaults to 0.
            unit: What is counted. Only rows count for the step's rows per second. Defaults to rows.
        """
        if unit == "rows":
            self._rows = max(self._rows, int(done) + earlier)
        if self._is_due("rows") or done == total:
            event = {"rows": int(done), "total": total if total is None else int(total), "what": phase}
            self._write(event | ({"step_rows": self._rows} if unit == "rows" else {}))
        if done != total and self._is_line_due("rows"):
            of_total = "" if total is None else f" of {total:,}"
            self._log(f"{phase}: {done:,}{of_total} {unit}{self._speed()}")

    def metrics(
        self, train: Mapping[str, float], valid: Mapping[str, float], phase: str, *, final: bool = False
    ) -> None:
        """Reports the metrics of an epoch or round.

        Args:
            train: Metrics of the train split by name.
            valid: Metrics of the valid split by name.
            phase: Name of the epoch or round.
            final: Whether they are those of the model, which are never dropped. Defaults to False.
        """
        text = describe_metrics(train, valid)
        if self._is_due("metrics") or final:
            self._write({"metrics": text, "what": phase})
        if self._is_line_due("metrics") or final:
            self._logged["rows"] = time.monotonic()
            self._log(f"{phase}: {text}{self._speed()}")

    def phase(self, name: str) -> None:
        """Reports that a phase of the step starts, for example `export`."""
        self._written["rows"] = -math.inf
        self._write({"what": name})
        self._log(name)

    def end(self) -> None:
        """Reports that the step is done."""
        self._log(f"done: {self._rows:,} rows{self._speed()}" if self._rows else "done")

    def _is_due(self, kind: str) -> bool:
        return _has_passed(self._written, kind, _MIN_INTERVAL_S)

    def _is_line_due(self, kind: str) -> bool:
        return _has_passed(self._logged, kind, _LINE_INTERVAL_S)

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _speed(self) -> str:
        """Returns the rows per second since the step began."""
        return f", {self._rows / max(self._seconds(), 1e-3):,.0f} rows/s" if self._rows else ""

    def _write(self, event: dict) -> None:
        if self._file:
            event = {"step": self.step, "seconds": round(self._seconds(), 3), **event}
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")

    def _log(self, text: str) -> None:
        print(f"{self._seconds():7.1f} s  {text}", flush=True)


def describe_metrics(train: Mapping[str, float], valid: Mapping[str, float]) -> str:
    """Returns the metrics of an epoch or round as text: `log loss 0.61 train, 0.62 valid; AUC 0.70 valid`."""
    parts = []
    for metric in ("log_loss", "auc"):
        values = [
            f"{split[metric]:.4f} {name}" for name, split in (("train", train), ("valid", valid)) if metric in split
        ]
        parts += [f"{name_of(metric)} {', '.join(values)}"] if values else []
    return "; ".join(parts)


def _has_passed(times: dict[str, float], kind: str, interval_s: float) -> bool:
    """Returns whether the interval has passed since the last time of a kind, and if so notes the present time."""
    now = time.monotonic()
    if now - times[kind] < interval_s:
        return False
    times[kind] = now
    return True


@contextlib.contextmanager
def step(
    name: str, *, root: str = "", output: str = "", reports: Mapping[str, str] | None = None
) -> Iterator[Progress]:
    """Surrounds the body of a component.

    A `TidemillError`, or a file-system error that the user can fix, ends the process with exit code 2. Before, it is
    printed as one line, `error [code] message`, and written as JSON to the file that the environment variable
    `TIDEMILL_ERROR_FILE` names. `Preempted` ends the process with `PREEMPTED_EXIT_CODE`.

    With a root, every failure is also recorded below it, with the reports that the step has written, and the last line
    of the log names the record. An attempt that follows a user error ends at once with the same error. A local root is
    refused on a cluster.

    Args:
        name: The component's name.
        root: URI of the root. Defaults to none: failures are not recorded.
        output: URI of one of the step's outputs, which identifies the task. Needed with a root.
        reports: Local paths of the reports that the step writes, by the file name in the record. Defaults to none.

    Yields:
        A `Progress` for the library functions.
    """
    die_with_run()
    record = None
    try:
        if root:
            _check_root(root, output)
            record = FailureRecord(root, name, output, reports)
            record.read()
    except TidemillError as error:
        _refuse(name, error, record)
    progress = Progress(name, record)
    try:
        yield progress
    except Preempted:
        print(f"{name} was interrupted; the next attempt resumes from here", file=sys.stderr, flush=True)
        sys.exit(PREEMPTED_EXIT_CODE)
    except GivenUp:
        raise
    except Exception as error:
        if record is not None and not record.add(error):
            record = None
        mistake = error if isinstance(error, TidemillError) else from_system_error(error)
        if mistake is not None:
            if mistake is not error:
                traceback.print_exception(error)
            _refuse(name, mistake, record, is_final=mistake is error)
        if record is None:
            raise
        traceback.print_exception(error)
        print(f"recorded in {record.uri}", file=sys.stderr, flush=True)
        sys.exit(1)
    if record is not None:
        record.remove()
    progress.end()


def _check_root(root: str, output: str) -> None:
    """Refuses a local root if the outputs go to an object store, as on a cluster."""
    if "://" in output and not output.startswith("file://") and storage.local_path(root) is not None:
        want = "give a folder in a bucket, gs://…; on a cluster each step has a disk of its own"
        raise TidemillError(Code.INVALID_VALUE, "root", repr(root), want)


def _refuse(name: str, error: TidemillError, record: FailureRecord | None, *, is_final: bool = True) -> NoReturn:
    """Reports a user's error and ends the process. A final error is not tried again."""
    if path := os.environ.get(ERROR_FILE):
        # The disk may be full.
        with contextlib.suppress(OSError):
            Path(f"{path}.partial").write_text(json.dumps({"step": name, **error.to_dict()}), encoding="ascii")
            os.replace(f"{path}.partial", path)
    print(f"error [{error.code.code}] {error}", file=sys.stderr, flush=True)
    if record is not None:
        # A local run, which reads the error file, has a record of its own for each try.
        advice = "; remove it before you retry this run" if is_final and ERROR_FILE not in os.environ else ""
        print(f"recorded in {record.uri}{advice}", file=sys.stderr, flush=True)
    sys.exit(EXIT_CODE)


def die_with_run() -> None:
    """Makes this process end when the local run that started it ends, also if the run is killed. Linux only.

    The kernel kills this process when its parent dies: a shell, which dies with the run. If the run ended before this
    call, it is no longer among the ancestors, and the process kills itself.
    """
    run = os.environ.get(RUN_PID)
    if run is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if int(run) not in _ancestors():
        os.kill(os.getpid(), signal.SIGKILL)


def _ancestors() -> Iterator[int]:
    pid = os.getppid()
    while pid > 0:
        yield pid
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return
