"""The command `tidemill run`: runs a pipeline on this machine and prints its results."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from tidemill.cli import image_options
from tidemill.cli.metrics_table import decision, metrics_table
from tidemill.cli.short_paths import short_path
from tidemill.errors import EXIT_CODE, Code, TidemillError
from tidemill.experiment import Experiment, as_parameter, dump, load
from tidemill.local import definitions
from tidemill.local.container_mounts import absolute_output, experiment_mounts
from tidemill.local.execution import RunResult, Stopped, run_pipeline
from tidemill.local.run_checks import (
    check_files,
    check_modules,
    check_packages,
    check_queries,
    missing_gpu,
    root_folder,
)
from tidemill.local.run_display import Lines, LiveTable, duration
from tidemill.local.run_outputs import RunOutputs
from tidemill.local.run_record import Run
from tidemill.local.step_containers import ContainerSettings
from tidemill.local.step_states import Step, Steps

_LOG_LINES = 20
_TENSORFLOW = re.compile(r"[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl|To enable the following")
_MAX_NOTES = 5
"""Number of notes of one kind that are printed."""


def run(args: argparse.Namespace) -> int:
    """Runs a pipeline, shows its progress, and prints the metrics and the paths of the results."""
    started = time.monotonic()
    experiment, root, params = load(args.file), root_folder(args.root), _params(args.param)
    check_files(experiment)
    check_modules(experiment)
    check_queries(experiment)
    if warning := missing_gpu(experiment):
        _print_error(f"warning  {warning}")
    containers = _containers(args, experiment, params)
    params = absolute_output(params) if containers else params
    arguments = {"experiment": as_parameter(dump(experiment), str(root)), "root": str(root), **params}
    console = Console()
    display = LiveTable(console) if console.is_terminal and not args.plain else Lines(console)
    with contextlib.ExitStack() as stack:

        def on_start(run: Run, steps: Steps) -> None:
            _print(f"run {run.id}: {run.experiment}, pipeline {run.pipeline}, in {short_path(run.folder)}")
            stack.enter_context(display.showing(steps))

        try:
            result = run_pipeline(
                definitions.find_pipeline(args.pipeline),
                arguments,
                experiment=experiment.name,
                file=str(Path(args.file).absolute()),
                root=root,
                containers=containers,
                use_cache=not args.no_cache,
                on_start=on_start,
            )
        except Stopped as stopped:
            with _broken_pipes_ignored():
                stack.close()
                _print_error(f"{stopped}: finished steps are kept; the same command resumes after them")
            return 128 + stopped.signum
    if not result.succeeded:
        return _print_failure(result)
    _print_outputs(result.outputs)
    cached = "every step was cached; " if result.run.every_step_cached else ""
    _print(f"{cached}{duration(time.monotonic() - started)}")
    return 0


@contextlib.contextmanager
def _broken_pipes_ignored() -> Iterator[None]:
    """Lets a run that Ctrl-C has ended exit with its code, although the same Ctrl-C ended the reader of its output."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # SystemExit is rich's
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _containers(args: argparse.Namespace, experiment: Experiment, params: dict[str, str]) -> ContainerSettings | None:
    if args.runner == "subprocess":
        if options := image_options.given(args):
            want = "add --runner docker; in processes, the steps run with the installed packages"
            raise TidemillError(Code.INVALID_VALUE, options[0], "a run without containers", want)
        check_packages()
        return None
    mounts = experiment_mounts(experiment, params.get("output", ""))
    return ContainerSettings(image_options.images(args), tuple(mounts))


def _params(texts: list[str]) -> dict[str, str]:
    params = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise TidemillError(Code.INVALID_VALUE, "--param", repr(text), "write it as KEY=VALUE")
        if name in ("experiment", "root"):
            want = "give the experiment file and --root instead"
            raise TidemillError(Code.INVALID_VALUE, "--param", f"the parameter {name!r}", want)
        params[name] = value
    return params


def _print_outputs(outputs: RunOutputs) -> None:
    if outputs.members:
        _print(f"\n{metrics_table(outputs.members)}")
    _print("")
    if outputs.members:
        _print(f"decided      {decision(outputs.members)}")
    for line in _note_lines(outputs):
        _print(line)
    for report in outputs.reports:
        _print(f"report       {short_path(report)}")
    for uri, member in outputs.published:
        _print(f"published    {short_path(uri)} ({member}{', by an earlier run' if uri in outputs.from_cache else ''})")
    for uri, rows in outputs.predictions:
        facts = [*([] if rows is None else [f"{rows:,.0f} rows"]), *["by an earlier run"] * (uri in outputs.from_cache)]
        _print(f"predictions  {short_path(uri)}" + (f" ({', '.join(facts)})" if facts else ""))


def _note_lines(outputs: RunOutputs) -> list[str]:
    """Returns a line for each file with rows that were left out, and the first notes on the data of each kind."""
    lines = []
    for path, rows in outputs.quarantined:
        lines.append(f"quarantine   {short_path(path)} ({rows:,} malformed {'row' if rows == 1 else 'rows'} left out)")
    for kind, notes in outputs.notes.items():
        lines += [f"{kind:<11}  {text}" for text in notes[:_MAX_NOTES]]
        if len(notes) > _MAX_NOTES:
            lines.append(f"{kind:<11}  {len(notes) - _MAX_NOTES} more, see the report of validate")
    return lines


def _print_failure(result: RunResult) -> int:
    failed = result.steps.failed()
    for step in failed:
        _print_failed_step(step)
    for line in _note_lines(result.outputs):
        _print_error(line)
    for report in result.outputs.reports:
        _print_error(f"report  {short_path(report)}")
    if result.outputs.members:
        _print_error(metrics_table(result.outputs.members))
    mistakes = [step.error["code"] for step in failed if step.error]
    if Code.INCOMPLETE_ARTIFACT.code in mistakes:
        _print_error("hint    files of an earlier run were removed or changed; --no-cache runs all steps again")
    return EXIT_CODE if failed and all(mistakes) else 1


def _print_failed_step(step: Step) -> None:
    error = step.error or {"code": "", "message": "the step failed"}
    _print_error(f"\nerror{f' [{code}]' if (code := error['code']) else ':'} {error['message']}")
    _print_error(f"step    {step.name}")
    if not step.log.is_file():
        return
    _print_error(f"log     {short_path(step.log)}")
    for line in _own_lines(step.log.read_text(encoding="utf-8", errors="replace"))[-_LOG_LINES:]:
        _print_error(f"  | {line}")


def _own_lines(log: str) -> list[str]:
    """Returns the lines of a log that the step itself wrote.

    Left out are the JSON of its inputs and outputs, which kfp prints, and TensorFlow's notes on the processor.
    """
    lines, in_json = [], False
    for line in log.rstrip().splitlines():
        if line.startswith("[KFP Executor") or _TENSORFLOW.match(line):
            continue
        in_json = in_json or line == "{"
        if not in_json:
            lines.append(line)
        in_json = in_json and line != "}"
    return lines


def _print(text: str) -> None:
    print(text, flush=True)


def _print_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
