"""The runner of compiled pipelines: runs one with kfp.local and follows its steps.

kfp.local has no events, keeps no logs and prints what it does, so this module replaces a few of its private functions
while a pipeline runs. All such knowledge about kfp is here; `check_kfp` compares it with the kfp that is installed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import os
import shlex
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
import kfp.components
from kfp import dsl, local
from kfp.local import cache, config, logging_utils, status, subprocess_task_handler, task_dispatcher
from kfp.local.orchestrator import task_executor

import tidemill.runtime
from tidemill.errors import Code, TidemillError
from tidemill.local import fork_server
from tidemill.local.run_logging import logging_to
from tidemill.local.run_outputs import is_whole
from tidemill.local.step_containers import StepContainers
from tidemill.local.step_keys import StepKey, read_spec, step_key
from tidemill.local.step_processes import StepProcesses
from tidemill.local.step_states import State, Step, Steps, iteration_label, loop_items
from tidemill.steps import step_codes

_TASK_ARGUMENTS = (
    "task_name task_spec pipeline_resource_name components executors io_store pipeline_root runner"
    " unique_pipeline_id fail_stack"
)
_HANDLER_ARGUMENTS = "image full_command pipeline_root runner env_vars"
_EXPECTED = [
    (task_executor, "execute_single_task", _TASK_ARGUMENTS),
    (subprocess_task_handler, "run_local_subprocess", "full_command env_vars"),
    (subprocess_task_handler.SubprocessTaskHandler, "__init__", f"self {_HANDLER_ARGUMENTS}"),
    (subprocess_task_handler, "replace_python_executable", "full_command new_executable"),
    (logging_utils, "local_logger_context", ""),
    (logging_utils, "indented_print", "num_spaces"),
    (logging_utils, "print_horizontal_line", ""),
    (cache.LocalCache, "get", "self key"),
    (
        cache.LocalCache,
        "compute_key",
        "self component_name image full_command arguments env_vars custom_cache_key",
    ),
]
_EXECUTOR_INPUT = "--executor_input"
_LONGEST_VALUE = 500
# kfp.local keeps its settings for the whole process, and so does `_hooks`.
_kfp_in_use = threading.Lock()
_CHANNEL = "pipelinechannel--"
_CHANNEL_PLACEHOLDER = f"{{{{$.inputs.parameters['{_CHANNEL}"


def check_kfp() -> None:
    """Checks that the installed kfp is one whose private functions this module knows.

    Raises:
        TidemillError: `unsupported`.
    """
    wrong = [name for owner, name, arguments in _EXPECTED if _arguments(owner, name) != arguments.split()]
    callers = [(task_executor, "task_dispatcher", task_dispatcher), (task_executor, "cache_module", cache)]
    wrong += [name for owner, name, module in callers if getattr(owner, name, None) is not module]
    if wrong:
        got = f"version {kfp.__version__}, in which kfp.local differs ({', '.join(wrong)})"
        raise TidemillError(Code.UNSUPPORTED, "kfp", got, "install kfp==2.17.0")


class PipelineRunner:
    """A runner of one compiled pipeline.

    Args:
        steps: The steps of the pipeline; their states follow the run.
        root: Folder below which artifacts (`artifacts/`) and the cache (`cache/`) are kept.
        log: File for log records of kfp and other libraries.
        temporary: Folder for temporary files of kfp and of the steps.
        containers: Runs each step in a container of its image. Defaults to none: in processes of this machine.
        use_cache: Whether finished steps of earlier runs are used. Results are put into the cache in any case.
        on_key: Called with each cacheable step and its key before the step is looked up in the cache.
    """

    def __init__(
        self,
        steps: Steps,
        root: Path,
        log: Path,
        temporary: Path,
        *,
        containers: StepContainers | None = None,
        use_cache: bool = True,
        on_key: Callable[[Step, StepKey], None] | None = None,
    ):
        check_kfp()
        self.processes = StepProcesses()
        self.containers = containers
        self._steps = steps
        self._root = root
        self._log = log
        self._temporary = temporary
        self._use_cache = use_cache
        self._on_key = on_key
        self._loop_items: list[str] = []
        # The task that this thread runs: kfp runs the iterations of a loop on threads.
        self._current = threading.local()

    def run(self, pipeline: Path, pipeline_spec: dict, arguments: dict[str, Any]) -> None:
        """Runs the pipeline to its end, whether it succeeds or fails; see the steps' states.

        Waits for a run on another thread of this process first.

        Args:
            pipeline: The compiled YAML.
            pipeline_spec: The same, read.
            arguments: Values of the pipeline's parameters.
        """
        self._loop_items = list(loop_items(pipeline_spec))
        with _kfp_in_use, logging_to(self._log), self._hooks():
            self._configure()
            component = kfp.components.load_component_from_file(str(pipeline))
            try:
                component(**arguments)
            finally:
                config.LocalExecutionConfig.instance = None
                self._steps.close()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return (self.containers or self.processes).stopped

    def stop(self) -> None:
        """Kills the running steps. No step starts afterwards."""
        (self.containers or self.processes).stop()

    def _configure(self) -> None:
        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=str(self._root / "artifacts"),
            # kfp deletes this folder after the run.
            workspace_root=str(self._temporary / "workspace"),
            raise_on_error=False,
            enable_caching=True,
            cache_root=str(self._root / "cache"),
        )

    @contextlib.contextmanager
    def _hooks(self) -> Iterator[None]:
        replacements = [
            (task_executor, "execute_single_task", self._task(task_executor.execute_single_task)),
            (subprocess_task_handler, "run_local_subprocess", self._process),
            (subprocess_task_handler, "replace_python_executable", _replace_python),
            *self._container_hooks(),
            (cache.LocalCache, "get", self._cached(cache.LocalCache.get)),
            (cache.LocalCache, "compute_key", self._compute_key(cache.LocalCache.compute_key)),
            # These three change the root logger and `print` for all threads.
            (logging_utils, "local_logger_context", contextlib.nullcontext),
            (logging_utils, "indented_print", contextlib.nullcontext),
            (logging_utils, "print_horizontal_line", lambda: None),
        ]
        with contextlib.ExitStack() as stack:
            for owner, name, replacement in replacements:
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, replacement)
            yield

    def _container_hooks(self) -> list[tuple[object, str, object]]:
        if self.containers is None:
            return []
        return [(subprocess_task_handler, "SubprocessTaskHandler", functools.partial(_ContainerTask, self._process))]

    def _task(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps kfp's `execute_single_task` (cache look-up, run, outputs), so that `Steps` follows the task."""

        def run(**task: Any) -> tuple[dict[str, Any], status.Status]:
            # The step itself decides what it tries again: see `tidemill.failure_record`.
            task["task_spec"].ClearField("retry_policy")
            if _is_import(task):
                return execute(**task)
            iteration = task["pipeline_resource_name"].partition("/")[2]
            label = self._item_label(task["io_store"]) if iteration else None
            step = self._steps.start(task["task_name"], iteration, label)
            self._current.step, self._current.command, self._current.exit_code = step, None, None
            try:
                outputs, ended = execute(**task)
            except Exception as error:
                logging.exception("task %s", task["task_name"])
                self._steps.end(step, State.FAILED, self._written(), _as_error(error))
                return {}, status.Status.FAILURE
            if ended != status.Status.SUCCESS and self.stopped:
                self._steps.end(step, State.STOPPED)
            elif ended != status.Status.SUCCESS:
                self._steps.end(step, State.FAILED, self._written(), _read_error(step, self._current.exit_code))
            else:
                ran = State.DONE if step.cacheable else State.CHECKED
                state = State.CACHED if self._current.command is None else ran
                self._steps.end(step, state, {name: _describe(value) for name, value in outputs.items()})
            return outputs, ended

        return run

    def _process(self, full_command: list[str], env_vars: dict[str, str] | None = None, image: str = "") -> int:
        """Runs a step's command, in the place of kfp's `run_local_subprocess`. Returns the exit code."""
        step = self._current.step
        self._current.command = full_command
        env = {
            **(env_vars or {}),
            tidemill.runtime.PROGRESS_FILE: str(step.progress_file),
            tidemill.runtime.ERROR_FILE: str(step.error_file),
        }
        self._steps.mark_running(step)
        if self.containers is not None:
            self._current.exit_code = self.containers.run(image, full_command, env, step.log, component=step.component)
            return self._current.exit_code
        # With a safe path, a folder `tidemill` in the working directory is not taken for the package.
        own = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "TMPDIR": str(self._temporary)}
        env = {**os.environ, **own, **env, tidemill.runtime.RUN_PID: str(os.getpid())}
        server = self._fork_server(step, full_command, env)
        self._current.exit_code = self.processes.run(full_command, env, step.log, name=step.name, server=server)
        return self._current.exit_code

    def _fork_server(self, step: Step, command: list[str], env: dict[str, str]) -> fork_server.ForkServer | None:
        """Returns the server that has TensorFlow loaded if the step needs it.

        The first step that is not cached starts the server in the background if a later step may need it.
        """
        libraries = _spec(command).get("libraries", {})
        if needs_server(libraries):
            return fork_server.shared(env)
        codes = step_codes()
        later = (codes[each.component] for each in self._steps.waiting_after(step) if each.component in codes)
        if step.cacheable and any(needs_server(code.libraries) for code in later):
            fork_server.shared(env)
        return None

    def _cached(self, get: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps `LocalCache.get`, which accepts an artifact of which a part is left, and rejects such an artifact."""

        def whole(local_cache: cache.LocalCache, key: str) -> dict | None:
            outputs = get(local_cache, key) if self._use_cache else None
            if outputs and not all(is_whole(name, value) for name, value in outputs.items()):
                logging.info("cache entry %s names an artifact that is no longer whole", key)
                return None
            return outputs

        return whole

    def _compute_key(self, compute: Callable[..., str]) -> Callable[..., str]:
        """Wraps `LocalCache.compute_key`: leaves out resource requests, and passes `on_key` what goes into the key."""

        def compute_and_report(local_cache: cache.LocalCache, **content: Any) -> str:
            content["arguments"] = arguments = without_resources(content["arguments"])
            key = compute(local_cache, **content)
            if self._on_key is not None:
                del content["arguments"]
                inputs = {name: value for name, value in arguments.items() if _is_artifact(value)}
                parameters = {name: value for name, value in arguments.items() if name not in inputs}
                self._on_key(self._current.step, step_key(key, parameters, inputs, content))
            return key

        return compute_and_report

    def _item_label(self, io_store: Any) -> str | None:
        """Returns the name of the loop's item that a task belongs to; None if it belongs to none."""
        for name in reversed(self._loop_items):
            with contextlib.suppress(ValueError):
                return iteration_label(io_store.get_parent_input(name))
        return None

    def _written(self) -> dict:
        """Returns the output artifacts that a failed step wrote all the same, such as a report."""
        command = self._current.command
        if not command or _EXECUTOR_INPUT not in command:
            return {}
        executor_input = json.loads(command[command.index(_EXECUTOR_INPUT) + 1])
        written = {}
        for name, value in executor_input.get("outputs", {}).get("artifacts", {}).items():
            declared = value["artifacts"][0]
            if os.path.exists(declared["uri"]):
                kind = declared["type"].get("schemaTitle", "")
                written[name] = {"uri": declared["uri"], "type": kind, "metadata": {}}
        return written


@dataclass(frozen=True)
class _ContainerTask:
    """A task that runs in a container, in the place of kfp's `SubprocessTaskHandler`."""

    process: Callable[..., int]
    image: str
    full_command: list[str]
    pipeline_root: str
    runner: local.SubprocessRunner
    env_vars: dict[str, str] | None = None

    def run(self) -> status.Status:
        code = self.process(self.full_command, self.env_vars, self.image)
        return status.Status.SUCCESS if code == 0 else status.Status.FAILURE


def without_resources(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a step's arguments without its CPU, memory and accelerator requests, which change no result.

    kfp passes a request that is known only at run time as two arguments: a value named `pipelinechannel--…`, and a
    placeholder that refers to it.
    """
    return {
        name: value
        for name, value in arguments.items()
        if not name.startswith(_CHANNEL) and not (isinstance(value, str) and value.startswith(_CHANNEL_PLACEHOLDER))
    }


def needs_server(libraries: Collection[str]) -> bool:
    """Returns whether a step with these libraries imports TensorFlow as the fork server does.

    With JAX, Keras must be imported with another backend.
    """
    return "tensorflow" in libraries and "jax" not in libraries


def _spec(command: list[str]) -> dict[str, Any]:
    """Returns the step's spec, or an empty one if the component takes none."""
    if _EXECUTOR_INPUT not in command:
        return {}
    executor_input = json.loads(command[command.index(_EXECUTOR_INPUT) + 1])
    return read_spec(executor_input.get("inputs", {}).get("parameterValues", {}).get("spec")) or {}


def _is_import(task: Mapping[str, Any]) -> bool:
    """Returns whether a task makes an artifact of a URI. Such a task runs no code."""
    component = task["components"][task["task_spec"].component_ref.name]
    return task["executors"][component.executor_label].WhichOneof("spec") == "importer"


def _arguments(owner: object, name: str) -> list[str] | None:
    function = getattr(owner, name, None)
    return list(inspect.signature(function).parameters) if callable(function) else None


def _replace_python(full_command: list[str], new_executable: str) -> list[str]:
    """Replaces `python3` in a step's scripts. kfp's own function also replaces it in the step's arguments."""
    # A shell script or two, the component's source, and from here on its arguments.
    scripts = full_command.index(_EXECUTOR_INPUT) - 1
    quoted = shlex.quote(new_executable)
    return [part.replace("python3", quoted) for part in full_command[:scripts]] + full_command[scripts:]


def _is_artifact(value: object) -> bool:
    artifacts = value if isinstance(value, list) else [value]
    return bool(artifacts) and all(isinstance(item, dsl.Artifact) for item in artifacts)


def _describe(value: object) -> object:
    if isinstance(value, dsl.Artifact):
        return {"uri": value.uri, "type": value.schema_title, "metadata": value.metadata}
    if isinstance(value, list):
        return [_describe(item) for item in value]
    text = json.dumps(value)
    return value if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _read_error(step: Step, exit_code: int | None) -> dict:
    """Returns the error that a failed step wrote; without one, an error with its exit code or signal."""
    if step.error_file.is_file():
        return json.loads(step.error_file.read_text(encoding="utf-8"))
    if exit_code is not None and exit_code < 0:
        return {"code": None, "message": f"killed by signal {-exit_code}", "details": {}}
    # A shell reports a killed child as 128 and the signal's number.
    killed = " (killed by the system: is there too little memory?)" if exit_code == 137 else ""
    return {"code": None, "message": f"exit code {exit_code}{killed}", "details": {}}


def _as_error(error: Exception) -> dict:
    if isinstance(error, TidemillError):
        return error.to_dict()
    return {"code": None, "message": f"{type(error).__name__}: {error}", "details": {}}
