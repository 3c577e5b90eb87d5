"""The steps of a run, as the runner sees them: in pipeline order, each with its state."""

from __future__ import annotations

import enum
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_LABEL = 40


class State(enum.Enum):
    """The state of a step. A finished step that is never cached by design, such as planning, is `checked`, not
    `done`."""

    WAITING = "waiting"
    RUNNING = "running"
    CACHED = "cached"
    CHECKED = "checked"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"


@dataclass(eq=False)
class Step:
    """One step: a task of the pipeline, or one iteration of a task inside a loop."""

    name: str
    """The step's name, unique within the run; also the name of its log."""
    task: str
    """The task's name in the pipeline."""
    cacheable: bool
    component: str
    """The component's function, which has the step's name in `tidemill.steps`."""
    iteration: tuple[int, ...] = ()
    """The numbers of loops and iterations; empty outside loops, and for the step that represents all iterations before
    the loop starts."""
    state: State = State.WAITING
    started: float | None = None
    """The start, in seconds of `time.monotonic`."""
    seconds: float | None = None
    """Duration; None until the step has ended."""
    folder: Path = Path()
    """Folder of the log, the progress file and the error file."""
    outputs: dict = field(default_factory=dict)
    """By output name: `{"uri", "type", "metadata"}` of an artifact, or a parameter's value."""
    reasons: list[str] = field(default_factory=list)
    """Why the step runs again, the most telling first. Empty for cached steps, and for those that never are."""
    error: dict | None = None
    """`code` (None: not a user error), `message`, `details`."""

    @property
    def log(self) -> Path:
        """The file with what the step printed."""
        return self.folder / f"{self.name}.log"

    @property
    def progress_file(self) -> Path:
        """The file to which `tidemill.runtime.Progress` writes."""
        return self.folder / f"{self.name}.progress.jsonl"

    @property
    def error_file(self) -> Path:
        """The file to which `tidemill.runtime.step` writes a user error."""
        return self.folder / f"{self.name}.error.json"

    def elapsed(self) -> float | None:
        """Returns the seconds since the start, or the duration of a step that has ended; None if it has not started."""
        if self.seconds is not None or self.started is None:
            return self.seconds
        return time.monotonic() - self.started


Observer = Callable[[Step], None]


class Steps:
    """All steps of a run."""

    def __init__(self, pipeline_spec: dict, folder: Path):
        """Lists the tasks of a pipeline; those inside a loop become steps only when their iterations start.

        Args:
            pipeline_spec: The compiled pipeline.
            folder: Where logs are written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._observers: list[Observer] = []
        self._lock = threading.RLock()
        self._steps: list[Step] = []
        self._by_key: dict[tuple[str, str], Step] = {}
        for task, cacheable, component in _tasks(pipeline_spec, pipeline_spec["root"]["dag"]):
            self._steps.append(Step(self._free_name(task), task, cacheable, component, folder=folder))

    def __iter__(self) -> Iterator[Step]:
        with self._lock:
            return iter(list(self._steps))

    def observe(self, observer: Observer) -> None:
        """Registers a function that is called, one call at a time, with each step whose state has changed."""
        self._observers.append(observer)

    def start(self, task: str, iteration: str, label: str | None) -> Step:
        """Starts the clock of a task's step, before its outputs are looked up in the cache.

        Args:
            task: Its name.
            iteration: Identifier of the iteration; empty outside loops.
            label: A readable name of the iteration.

        Returns:
            The step.
        """
        with self._lock:
            step = self._find(task, iteration, label)
            step.started = time.monotonic()
            for file in (step.progress_file, step.error_file):
                file.unlink(missing_ok=True)
            return step

    def mark_running(self, step: Step) -> None:
        """Records that a process of the step starts. A step with retries has several."""
        with self._lock:
            step.state = State.RUNNING
            self._notify(step)

    def end(self, step: Step, state: State, outputs: dict | None = None, error: dict | None = None) -> None:
        """Records the state in which a step ended."""
        with self._lock:
            step.seconds = step.elapsed()
            step.state, step.outputs, step.error = state, outputs or {}, error
            if state is State.CACHED:
                step.reasons = []
            self._notify(step)

    def close(self) -> None:
        """Ends the run: running steps become `stopped`, waiting ones `skipped`."""
        with self._lock:
            for step in self._steps:
                if step.state is State.RUNNING:
                    self.end(step, State.STOPPED)
                elif step.state is State.WAITING:
                    step.state = State.SKIPPED
                    self._notify(step)

    def waiting_after(self, step: Step) -> list[Step]:
        """Returns the waiting steps that come later in the pipeline."""
        steps = list(self)
        return [later for later in steps[steps.index(step) + 1 :] if later.state is State.WAITING]

    def failed(self) -> list[Step]:
        """Returns the steps that failed, in pipeline order."""
        return [step for step in self if step.state is State.FAILED]

    def all_cached(self) -> bool:
        """Returns whether every step that can be cached was cached."""
        states = [step.state for step in self if step.cacheable and step.state is not State.SKIPPED]
        return bool(states) and all(state is State.CACHED for state in states)

    def _find(self, task: str, iteration: str, label: str | None) -> Step:
        if (task, iteration) in self._by_key:
            return self._by_key[task, iteration]
        if iteration:
            step = self._add_iteration(task, iteration, label)
        else:
            step = next(step for step in self._steps if step.task == task and step.started is None)
        self._by_key[task, iteration] = step
        return step

    def _add_iteration(self, task: str, iteration: str, label: str | None) -> Step:
        """Inserts the step of an iteration in its order, and removes the step that stood for all iterations."""
        numbers = tuple(int(number) for number in re.findall(r"\d+", iteration))
        same = [step for step in self._steps if step.task == task]
        name = self._free_name(f"{task}-{label or '-'.join(map(str, numbers))}")
        new = Step(name, task, same[0].cacheable, same[0].component, numbers, folder=self._folder)
        before = [step for step in same if step.iteration and step.iteration < numbers]
        at = self._steps.index(before[-1]) + 1 if before else self._steps.index(same[0])
        self._steps.insert(at, new)
        self._steps = [step for step in self._steps if step not in same or step.iteration]
        return new

    def _free_name(self, base: str) -> str:
        taken = {step.name for step in self._steps}
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}-{number}"
        return name

    def _notify(self, step: Step) -> None:
        for observer in self._observers:
            observer(step)


def iteration_label(item: object) -> str | None:
    """Returns a short name of a loop's item: its field `name`, the `name` of a nested object, or a short string itself.

    Args:
        item: Any JSON value, or a JSON text.

    Returns:
        At most 40 letters, digits, `_`, `.` and `-`; None if the item has no such name.
    """
    if isinstance(item, str):
        try:
            item = json.loads(item)
        except json.JSONDecodeError:
            return _UNSAFE.sub("-", item).strip("-") if 0 < len(item) <= _MAX_LABEL else None
    if isinstance(item, dict):
        name = item.get("name")
        inner = [iteration_label(value) for value in item.values() if isinstance(value, dict)]
        return _UNSAFE.sub("-", str(name))[:_MAX_LABEL] if name else next((label for label in inner if label), None)
    return None if isinstance(item, list | None) else _UNSAFE.sub("-", str(item))[:_MAX_LABEL]


def loop_items(pipeline_spec: dict) -> Iterator[str]:
    """Yields the names under which loops pass on their items, outer loops first."""
    dags = [pipeline_spec["root"]["dag"], *(c["dag"] for c in pipeline_spec["components"].values() if "dag" in c)]
    for dag in dags:
        for task in dag.get("tasks", {}).values():
            if iterator := task.get("parameterIterator"):
                yield iterator["itemInput"]


def _tasks(pipeline_spec: dict, dag: dict) -> Iterator[tuple[str, bool, str]]:
    """Yields the name of each task of a DAG and its nested DAGs, whether it is cached, and its function, in the order
    in which they run. Imports of artifacts are no steps.
    """
    tasks = dag.get("tasks", {})
    for name in _ordered(tasks):
        task = tasks[name]
        component = pipeline_spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from _tasks(pipeline_spec, component["dag"])
        elif "importer" not in _executor(pipeline_spec, component):
            yield name, task.get("cachingOptions", {}).get("enableCache", False), _function(pipeline_spec, component)


def _executor(pipeline_spec: dict, component: dict) -> dict:
    return pipeline_spec.get("deploymentSpec", {}).get("executors", {}).get(component.get("executorLabel"), {})


def _function(pipeline_spec: dict, component: dict) -> str:
    arguments = _executor(pipeline_spec, component).get("container", {}).get("args", [])
    option = "--function_to_execute"
    return arguments[arguments.index(option) + 1] if option in arguments else ""


def _ordered(tasks: dict) -> list[str]:
    """Returns task names sorted by name, but each after the tasks that it depends on."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in tasks and name not in order:
            for dependency in sorted(tasks[name].get("dependentTasks", [])):
                visit(dependency)
            order[name] = None

    for name in sorted(tasks):
        visit(name)
    return list(order)
