"""One run of a pipeline on this machine, from the experiment to its record."""

from __future__ import annotations

import contextlib
import difflib
import json
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tidemill import fingerprint
from tidemill.errors import Code, TidemillError
from tidemill.local import record
from tidemill.local.compiling import Source
from tidemill.local.engine import Engine
from tidemill.local.record import Run
from tidemill.local.results import Results, collect
from tidemill.local.steps import Step, Steps

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TYPES = {
    "NUMBER_INTEGER": (int, "an integer"),
    "NUMBER_DOUBLE": (float, "a number"),
    "BOOLEAN": (bool, "true or false"),
    "LIST": (list, "a JSON list"),
    "STRUCT": (dict, "a JSON object"),
}


class Stopped(BaseException):
    """The run was stopped by a signal. Not an `Exception`, so that nothing on the way takes it for a failed step.

    Args:
        signum: The signal's number.
    """

    def __init__(self, signum: int):
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")


@dataclass(frozen=True)
class Ended:
    """A run that has come to its end, good or bad."""

    run: Run
    steps: Steps
    results: Results

    @property
    def succeeded(self) -> bool:
        return self.run.status == record.SUCCEEDED


def run_pipeline(
    source: Source,
    arguments: dict[str, str],
    *,
    experiment: str,
    file: str,
    root: Path,
    use_cache: bool = True,
    on_start: Callable[[Run, Steps], None] | None = None,
    on_change: Callable[[Step], None] | None = None,
) -> Ended:
    """Compiles a pipeline, runs the compiled YAML and records the run.

    Args:
        source: The pipeline.
        arguments: Values of the pipeline's parameters, as texts; they are read by the parameters' types. `experiment`
            and `root` are left out where the pipeline does not have them.
        experiment: The experiment's name, for the record.
        file: The experiment file, for the record.
        root: Folder of artifacts, cache, runs and models.
        use_cache: Whether results of earlier runs are used.
        on_start: Called with the run and its steps before the first step starts.
        on_change: Called after each change of a step's state, from the thread that the step runs on.

    Returns:
        The run, its steps and results. A failed step does not raise.

    Raises:
        TidemillError: `root-busy`, or `unknown-key` and `invalid-value` for the arguments.
        Stopped: SIGINT or SIGTERM was received; the steps have been killed.
    """
    root = root.absolute()
    facts = {
        "experiment": experiment,
        "pipeline": source.name,
        "file": file,
        "arguments_fingerprint": fingerprint.of_json(arguments),
        "temporary": tempfile.mkdtemp(prefix="tidemill-"),
    }
    with _removed(facts["temporary"]), record.recorded(root, **facts) as run:
        _remove_left_over(root)
        compiled = run.folder / "pipeline.yaml"
        source.compile(compiled)
        spec = next(yaml.load_all(compiled.read_text(encoding="utf-8"), Loader=_fast_loader()))
        values = typed_arguments(spec, arguments)
        steps = Steps(spec, run.folder / "steps")
        steps.observe(lambda step: run.see(steps))
        if on_change:
            steps.observe(on_change)
        run.see(steps)
        if on_start:
            on_start(run, steps)
        engine = Engine(steps, root, run.folder / "kfp.log", Path(run.temporary), use_cache=use_cache)
        try:
            with _stopping_on_signals(engine):
                engine.run(compiled, spec, values)
        except Stopped:
            record.finish(run, record.STOPPED)
            raise
        results = collect(steps, run.folder / "reports")
        run.reports = [str(path) for path in results.reports]
        run.every_step_cached = steps.all_cached()
        record.finish(run, record.FAILED if steps.failed() else record.SUCCEEDED)
        return Ended(run, steps, results)


def typed_arguments(spec: dict, arguments: dict[str, str]) -> dict[str, Any]:
    """Reads the arguments of a pipeline by the types of its parameters.

    Args:
        spec: The compiled pipeline.
        arguments: Texts by parameter name.

    Raises:
        TidemillError: `unknown-key` for a parameter that the pipeline does not have, `invalid-value` for a text that is
            not of the parameter's type, or a parameter without value.
    """
    parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    values = {}
    for name, text in arguments.items():
        if name in parameters:
            values[name] = _typed(name, text, parameters[name]["parameterType"])
        elif name not in ("experiment", "root"):
            close = difflib.get_close_matches(name, parameters, n=1)
            want = f"did you mean {close[0]!r}" if close else f"use one of {', '.join(sorted(parameters))}"
            raise TidemillError(Code.UNKNOWN_KEY, "--param", f"the unknown parameter {name!r}", want)
    for name, parameter in parameters.items():
        if name not in values and "defaultValue" not in parameter and not parameter.get("isOptional"):
            raise TidemillError(Code.INVALID_VALUE, "--param", f"no value of {name!r}", f"add --param {name}=…")
    return values


def _typed(name: str, text: str, kind: str) -> Any:
    if kind == "STRING":
        return text
    want, words = _TYPES[kind]
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if want is float and type(value) is int:
        value = float(value)
    if type(value) is not want:
        raise TidemillError(Code.INVALID_VALUE, f"--param {name}", repr(text), f"give {words}")
    return value


@contextlib.contextmanager
def _stopping_on_signals(engine: Engine) -> Iterator[None]:
    """Kills the steps at Ctrl-C, a second one included, and raises `Stopped`. Only the main thread can do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: object) -> None:
        engine.processes.stop()
        raise Stopped(signum)

    before = {signum: signal.signal(signum, stop) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def _removed(folder: str) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_over(root: Path) -> None:
    """Temporary folders of runs that were killed."""
    for run in record.list_runs(root):
        if run.status == record.INTERRUPTED:
            shutil.rmtree(run.temporary, ignore_errors=True)


def _fast_loader() -> type:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
