"""The execution of a run on this machine: compiles a pipeline, runs it and records the run."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from tidemill import fingerprint
from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.local import run_record
from tidemill.local.definitions import Definition
from tidemill.local.pipeline_runner import PipelineRunner
from tidemill.local.run_outputs import RunOutputs, collect_outputs
from tidemill.local.run_record import Run
from tidemill.local.step_containers import ContainerSettings
from tidemill.local.step_keys import StepKey, previous, reasons
from tidemill.local.step_states import Step, Steps

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_POLL_S = 0.1
_TYPES = {
    "NUMBER_INTEGER": (int, "an integer"),
    "NUMBER_DOUBLE": (float, "a number"),
    "BOOLEAN": (bool, "true or false"),
    "LIST": (list, "a JSON list"),
    "STRUCT": (dict, "a JSON object"),
}


class Stopped(Exception):
    """The run was stopped by a signal.

    Args:
        signum: The signal's number.
    """

    def __init__(self, signum: int):
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")


@dataclass(frozen=True)
class RunResult:
    """A run that has ended, successfully or not."""

    run: Run
    steps: Steps
    outputs: RunOutputs

    @property
    def succeeded(self) -> bool:
        return self.run.status == run_record.SUCCEEDED


def run_pipeline(
    source: Definition,
    arguments: dict[str, str],
    *,
    experiment: str,
    file: str,
    root: Path,
    containers: ContainerSettings | None = None,
    use_cache: bool = True,
    where: str = "--param",
    on_start: Callable[[Run, Steps], None] | None = None,
    on_change: Callable[[Step], None] | None = None,
) -> RunResult:
    """Compiles a pipeline, runs the compiled YAML and records the run.

    Args:
        source: The pipeline.
        arguments: Values of the pipeline's parameters, as texts, which are parsed by the parameters' types.
            `experiment` and `root` are left out if the pipeline does not have them.
        experiment: The experiment's name, for the record.
        file: The experiment file, for the record.
        root: Folder of artifacts, cache, runs and models.
        containers: Runs each step in a container of its image. Defaults to none: in processes of this machine.
        use_cache: Whether results of earlier runs are used.
        where: The name of the option or parameter with the arguments, for errors. Defaults to `--param`.
        on_start: Called with the run and its steps before the first step starts.
        on_change: Called after each change of a step's state, from the thread that the step runs on.

    Returns:
        The run, its steps and its outputs. A failed step does not raise.

    Raises:
        TidemillError: `unknown-key` and `invalid-value` for the arguments, or `no-engine` and `missing-image` for the
            containers.
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
    with _removed(facts["temporary"]), run_record.record_run(root, **facts) as run:
        _remove_left_over(root)
        compiled = run.folder / "pipeline.yaml"
        source.compile(compiled)
        if containers:
            containers.images.write_into(compiled)
        pipeline_spec = next(yaml.load_all(compiled.read_text(encoding="utf-8"), Loader=_fast_loader()))
        values = typed_arguments(pipeline_spec, arguments, where)
        steps = Steps(pipeline_spec, run.folder / "steps")
        steps.observe(lambda step: run.update_steps(steps))
        if on_change:
            steps.observe(on_change)
        run.update_steps(steps)
        if on_start:
            on_start(run, steps)

        def on_key(step: Step, key: StepKey) -> None:
            key.write(run.folder, step.name)
            earlier = previous(root, run.id, run.experiment, run.pipeline, step.name)
            before, state = (None, "") if earlier is None else earlier[1:]
            step.reasons = reasons(key, before, state, use_cache=use_cache)

        log, temporary = run.folder / "kfp.log", Path(run.temporary)
        in_containers = None if containers is None else containers.start(pipeline_spec, root, temporary)
        runner = PipelineRunner(
            steps, root, log, temporary, containers=in_containers, use_cache=use_cache, on_key=on_key
        )
        try:
            with contextlib.nullcontext() if in_containers is None else in_containers.watched():
                _run_unless_stopped(runner, compiled, pipeline_spec, values)
        except Stopped:
            run_record.finish_run(run, run_record.STOPPED)
            raise
        outputs = collect_outputs(steps, run.folder / "reports")
        run.reports = [str(path) for path in outputs.reports]
        run.members = [asdict(member) for member in outputs.members]
        run.published = [name for _, name in outputs.published]
        run.every_step_cached = steps.all_cached()
        run_record.finish_run(run, run_record.FAILED if steps.failed() else run_record.SUCCEEDED)
        return RunResult(run, steps, outputs)


def typed_arguments(pipeline_spec: dict, arguments: dict[str, str], where: str = "--param") -> dict[str, Any]:
    """Parses the arguments of a pipeline by the types of its parameters.

    Args:
        pipeline_spec: The compiled pipeline.
        arguments: Texts by parameter name.
        where: The name of the option or parameter with the arguments, for errors. Defaults to `--param`.

    Raises:
        TidemillError: `unknown-key` for a parameter that the pipeline does not have, `invalid-value` for a text that is
            not of the parameter's type, or a parameter without value.
    """
    parameters = pipeline_spec["root"].get("inputDefinitions", {}).get("parameters", {})
    values = {}
    for name, text in arguments.items():
        if name in parameters:
            values[name] = _typed(f"{where} {name}", text, parameters[name]["parameterType"])
        elif name not in ("experiment", "root"):
            want = suggest_name(name, list(parameters))
            raise TidemillError(Code.UNKNOWN_KEY, where, f"the unknown parameter {name!r}", want)
    for name, parameter in parameters.items():
        if name not in values and "defaultValue" not in parameter and not parameter.get("isOptional"):
            raise TidemillError(Code.INVALID_VALUE, where, f"no value of {name!r}", f"give {name} a value")
    return values


def _typed(where: str, text: str, kind: str) -> Any:
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
        raise TidemillError(Code.INVALID_VALUE, where, repr(text), f"give {words}")
    return value


def _run_unless_stopped(runner: PipelineRunner, compiled: Path, pipeline_spec: dict, values: dict[str, Any]) -> None:
    """Runs the pipeline on a thread, while this thread waits for signals.

    The signal handler only sets a flag: an exception that it raises could occur in code where Python ignores it.
    """
    received: list[int] = []
    with _noting_signals(received), concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(runner.run, compiled, pipeline_spec, values)
        while not concurrent.futures.wait([future], timeout=_POLL_S).done:
            if received:
                runner.stop()
        try:
            future.result()
        except (Exception, SystemExit):
            # Ctrl-C also ends the reader of a pipe, such as `tee`. Then printing fails, for which rich exits.
            if not received:
                raise
    if received:
        raise Stopped(received[0])


@contextlib.contextmanager
def _noting_signals(received: list[int]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers.
        yield
        return
    before = {s: signal.signal(s, lambda signum, frame: received.append(signum)) for s in _SIGNALS}
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
    """Removes the temporary folders of runs that were killed."""
    for run in run_record.list_runs(root):
        if run.status == run_record.INTERRUPTED:
            shutil.rmtree(run.temporary, ignore_errors=True)


def _fast_loader() -> type:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
