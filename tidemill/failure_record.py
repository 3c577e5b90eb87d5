"""The record of a task's failures, at `ROOT/failures/<step>-<task>/`.

Kubeflow loses what a failed step knows: its exit code becomes 1, and none of its outputs is uploaded. It also may start
the pod of a failed step again, whatever the reason of the failure. So a step that fails leaves a record below the root:

    failure.json    every failed attempt: its error's code, sentence and details
    <report>        the reports that the step wrote before it failed

The next attempt reads it. A user error is not tried again, and other errors have a budget. A lost pod leaves no record
and costs nothing. A task is identified by the URI of one of its outputs, which is the same for all its attempts and
differs between runs, loop items and tasks.
"""

from __future__ import annotations

import datetime
import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tidemill import storage
from tidemill.errors import Code, Preempted, TidemillError, from_system_error

FOLDER = "failures"
RECORD = "failure.json"
PAUSE_S = 5.0
"""Pause before an attempt that follows a failed one."""
T = TypeVar("T")


class GivenUp(Exception):
    """The error for a task that has failed too often."""


class FailureRecord:
    """The failures of one task.

    Args:
        root: URI of the root.
        step: The step's name.
        output: URI of one of the task's outputs.
        reports: Local paths of the reports that the step writes, by file name.
    """

    def __init__(self, root: str, step: str, output: str, reports: Mapping[str, str] | None = None):
        self.step, self.output = step, output
        self.uri = storage.join(root, FOLDER, f"{step}-{hashlib.sha256(output.encode()).hexdigest()[:16]}")
        self._reports = reports or {}
        self._attempts: list[dict[str, Any]] = []

    def read(self) -> None:
        """Reads the failures of earlier attempts.

        Raises:
            TidemillError: An earlier attempt ended with this user error.
        """
        uri = storage.join(self.uri, RECORD)
        self._attempts = storage.read_json(uri)["attempts"] if storage.exists(uri) else []
        if self._attempts and (mistake := self._attempts[-1]).get("name"):
            where, got, want = (mistake[name] for name in ("where", "got", "want"))
            raise TidemillError(Code[mistake["name"]], where, got, want, mistake["details"])

    def add(self, error: Exception) -> bool:
        """Adds a failed attempt and copies the reports. Returns whether the record could be written."""
        entry: dict[str, Any] = {"attempt": len(self._attempts) + 1, "time": _now()}
        if isinstance(error, TidemillError):
            names = {name: getattr(error, name) for name in ("where", "got", "want")}
            entry |= {"name": error.code.name, **error.to_dict(), **names}
        else:
            entry |= {"code": None, "message": f"{type(error).__name__}: {error}", "details": {}}
        self._attempts.append(entry)
        record = {"step": self.step, "output": self.output, "attempts": self._attempts}
        try:
            for name, path in self._reports.items():
                if Path(path).exists():
                    _copy(path, storage.join(self.uri, name))
            storage.write_json(storage.join(self.uri, RECORD), record)
        except Exception as failure:  # The failure of the step is the one to report, not that of its record.
            print(f"the failure could not be recorded at {self.uri}: {failure}", file=sys.stderr, flush=True)
            return False
        return True

    def repeat(self, retries: int, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Calls a function until it succeeds, again after errors that are not the user's.

        The budget is for all attempts of the task, in this process and in the pods before it.

        Args:
            retries: Number of attempts after the first that failed.
            function: The function, with its arguments.

        Returns:
            The function's result.

        Raises:
            GivenUp: Earlier attempts have used up the budget.
            Exception: What the last attempt raised. A user error, an error of the file system that the user can fix,
                and anything that is no `Exception` end the calls at once.
        """
        if len(self._attempts) > retries:
            failed = f"{len(self._attempts)} attempts have failed, the last with {self._attempts[-1]['message']}"
            raise GivenUp(f"{failed}; fix the cause and start a new run, or remove {self.uri} and retry this one")
        while True:
            try:
                return function(*args, **kwargs)
            except (TidemillError, Preempted):
                raise
            except Exception as error:
                if from_system_error(error) is not None or len(self._attempts) >= retries:
                    raise
                self.add(error)
                number, attempts = len(self._attempts), retries + 1
                print(f"attempt {number} of {attempts} failed with {error!r}", file=sys.stderr, flush=True)
                time.sleep(PAUSE_S)

    def remove(self) -> None:
        """Removes the record after a success."""
        if self._attempts:
            storage.remove_folder(self.uri)


def _copy(path: str, uri: str) -> None:
    """Copies a local text file or folder to a URI."""
    if Path(path).is_dir():
        storage.upload_folder(path, uri)
    else:
        storage.write_text(uri, Path(path).read_text(encoding="utf-8"))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
