"""The record of a run, `ROOT/runs/<id>/run.json`, which is updated during the run."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path

from tidemill import storage
from tidemill.errors import Code, TidemillError
from tidemill.local.step_states import State, Step

_FILE = "run.json"
_LOCK = "lock"
"""Name of the file that the process of a run keeps locked. The lock ends with the process, however it ends."""
RUNNING, SUCCEEDED, FAILED, STOPPED, INTERRUPTED = "running", "succeeded", "failed", "stopped", "interrupted"


@dataclass
class Run:
    """A run, as `run.json` stores it and `tidemill runs show` prints it."""

    id: str
    """The time of the start, UTC, so that ids sort by time."""
    experiment: str
    pipeline: str
    file: str
    """The experiment file."""
    root: str
    arguments_fingerprint: str
    """Fingerprint of the pipeline's arguments, which include the experiment."""
    started: str
    """The time of the start, ISO 8601 with time zone."""
    pid: int
    """Id of the process that runs it."""
    temporary: str = ""
    """Folder of temporary files; removed at the end, or by the next run."""
    status: str = RUNNING
    """`running`, `succeeded`, `failed`, `stopped` by a signal; when read also `interrupted`: its process is gone."""
    finished: str | None = None
    seconds: float | None = None
    every_step_cached: bool = False
    steps: list[dict] = field(default_factory=list)
    """`name`, `task`, `state`, `seconds`, `log`, `reasons`, `outputs`, `error`."""
    reports: list[str] = field(default_factory=list)
    """HTML files."""
    members: list[dict] = field(default_factory=list)
    """The evaluations of the models: the fields of `MemberResult`."""
    published: list[str] = field(default_factory=list)
    """Names of the published members."""

    @property
    def folder(self) -> Path:
        """`ROOT/runs/<id>`."""
        return Path(self.root) / "runs" / self.id

    def write(self) -> None:
        """Writes the record. A reader sees the old or the new file, never a part."""
        storage.write_json(self.folder / _FILE, asdict(self))

    def update_steps(self, steps: Iterable[Step]) -> None:
        """Copies the states of the steps into the record, and writes the file."""
        self.steps = [_describe(step) for step in steps]
        self.write()


@contextlib.contextmanager
def record_run(
    root: Path, *, experiment: str, pipeline: str, file: str, arguments_fingerprint: str, temporary: str
) -> Iterator[Run]:
    """Creates the folder and the record of a run, and finishes the record when the block ends.

    Several runs may use a root at the same time. What they share below it appears when it is whole.

    Args:
        root: Folder of all runs.
        experiment, pipeline, file, arguments_fingerprint, temporary: Fields of the record.

    Yields:
        The record, which the caller updates.

    Raises:
        TidemillError: `invalid-value` if the folder cannot be created or written to.
    """
    try:
        folder = _make_folder(root / "runs")
    except OSError as error:
        got, want = f"{str(root)!r} ({error.strerror})", "name a folder that can be made and written to"
        raise TidemillError(Code.INVALID_VALUE, "--root", got, want) from error
    with open(folder / _LOCK, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = Run(
            id=folder.name,
            experiment=experiment,
            pipeline=pipeline,
            file=file,
            root=str(root),
            arguments_fingerprint=arguments_fingerprint,
            started=_now().astimezone().isoformat(),
            pid=os.getpid(),
            temporary=temporary,
        )
        run.write()
        try:
            yield run
        except KeyboardInterrupt:
            finish_run(run, STOPPED)
            raise
        finally:
            if run.status == RUNNING:
                finish_run(run, FAILED)


def finish_run(run: Run, status: str) -> None:
    """Ends a run with `status`, and writes the file."""
    now = _now()
    run.status = status
    run.finished = now.astimezone().isoformat()
    run.seconds = round((now - datetime.datetime.fromisoformat(run.started)).total_seconds(), 3)
    run.write()


def list_runs(root: Path) -> list[Run]:
    """Returns all runs, the newest first."""
    files = sorted((root / "runs").glob(f"*/{_FILE}"), reverse=True)
    return [_read(file) for file in files]


def find_run(root: Path, run_id: str | None) -> Run:
    """Returns one run.

    Args:
        root: Folder of all runs.
        run_id: The run's id or its first characters. None: the newest run.

    Raises:
        TidemillError: `no-run` if no run or several runs match.
    """
    runs = list_runs(root)
    matching = [run for run in runs if run_id is None or run.id.startswith(run_id)]
    exact = [run for run in matching if run.id == run_id]
    if exact or (run_id is None and matching):
        return (exact or matching)[0]
    if len(matching) == 1:
        return matching[0]
    if not runs:
        want = "start one with tidemill run, or give --root"
        raise TidemillError(Code.NO_RUN, str(root), "a folder without runs", want)
    got = f"{run_id!r}, with which {'no run' if not matching else f'{len(matching)} runs'} begin"
    raise TidemillError(Code.NO_RUN, "run", got, f"name one of {', '.join(run.id for run in (matching or runs)[:5])}")


def _make_folder(runs: Path) -> Path:
    """Creates the folder of a new run; its name is the run's id."""
    runs.mkdir(parents=True, exist_ok=True)
    stem = _now().strftime("%Y%m%d-%H%M%S")
    folder, number = runs / stem, 1
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = runs / f"{stem}-{number}"


def _has_process(folder: Path) -> bool:
    """Returns whether the process of a run is alive."""
    try:
        with open(folder / _LOCK, encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _read(file: Path) -> Run:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        # Records of earlier versions lack fields that have a default.
        required = [f.name for f in fields(Run) if f.default is MISSING and f.default_factory is MISSING]
        given = [f.name for f in fields(Run) if f.name in data]
        run = Run(**{name: data[name] for name in dict.fromkeys([*required, *given])})
    except (json.JSONDecodeError, KeyError) as error:
        want = f"remove the folder {file.parent}"
        raise TidemillError(Code.UNREADABLE_FILE, str(file), f"no record of a run ({error!r})", want) from error
    if run.status == RUNNING and not _has_process(file.parent):
        run.status = INTERRUPTED
        for step in run.steps:
            if step["state"] == State.RUNNING.value:
                step["state"] = INTERRUPTED
    return run


def _describe(step: Step) -> dict:
    return {
        "name": step.name,
        "task": step.task,
        "state": step.state.value,
        "seconds": None if step.seconds is None else round(step.seconds, 3),
        "log": str(step.log) if step.log.is_file() else None,
        "reasons": step.reasons if step.state is not State.CACHED else [],
        "outputs": step.outputs,
        "error": step.error,
    }


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
