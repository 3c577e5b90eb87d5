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
from tidemill.errors import EXIT_CODE, Code, TidemillError
from tidemill.experiment import Experiment, as_parameter, dump, load
from tidemill.local import definitions
from tidemill.local.container_mounts import absolute_output, experiment_mounts
from tidemill.local.execution import RunResult, Stopped, run_pipeline
from tidemill.local.run_checks import check_files, check_modules, check_packages, root_folder
from tidemill.local.run_display import Lines, LiveTable, duration
from tidemill.local.run_outputs import MemberResult, RunOutputs
from tidemill.local.run_record import Run
from tidemill.local.step_containers import ContainerSettings
from tidemill.local.step_states import Step, Steps

_LOG_LINES = 20
_TENSORFLOW = re.compile(r"[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl|To enable the following")
_METRIC_COLUMNS = ("auc", "pr_auc", "log_loss", "calibration", "accuracy")


def run(args: argparse.Namespace) -> int:
    """Runs a pipeline, shows its progress, and prints the metrics and the paths of the results."""
    started = time.monotonic()
    experiment, root, params = load(args.file), root_folder(args.root), _params(args.param)
    check_files(experiment)
    check_modules(experiment)
    containers = _containers(args, experiment, params)
    params = absolute_output(params) if containers else params
    arguments = {"experiment": as_parameter(dump(experiment), str(root)), "root": str(root), **params}
    console = Console()
    display = LiveTable(console) if console.is_terminal and not args.plain else Lines(console)
    with contextlib.ExitStack() as stack:

        def on_start(run: Run, steps: Steps) -> None:
            _print(f"run {run.id}: {run.experiment}, pipeline {run.pipeline}, in {_shown(run.folder)}")
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


def metrics_table(members: list[MemberResult]) -> str:
    """Returns a table with the metrics of the test split, one line per member, and below it the failed gates."""
    columns = [name for name in _METRIC_COLUMNS if any(member.metrics.get(name) is not None for member in members)]
    rows = [["model", *columns, "gates"]]
    for member in members:
        values = [member.metrics.get(name) for name in columns]
        verdict = "passed" if member.blessed else "failed"
        rows.append([member.name, *("" if value is None else f"{value:.4f}" for value in values), verdict])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) + 1)]
    lines = ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]) for row in rows]
    lines += [f"{member.name}: {reason}" for member in members if not member.blessed for reason in member.gate_texts]
    lines += [f"{member.name}: {warning}" for member in members for warning in member.warnings]
    return "\n".join(lines)


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
    for report in outputs.reports:
        _print(f"report       {_shown(report)}")
    for path, rows in outputs.quarantined:
        _print(f"quarantine   {_shown(path)} ({rows:,} malformed {'row' if rows == 1 else 'rows'} left out)")
    for text in outputs.lost:
        _print(f"lost values  {text}")
    for uri, member in outputs.published:
        _print(f"published    {_shown(uri)} ({member}{', by an earlier run' if uri in outputs.from_cache else ''})")
    for uri, rows in outputs.predictions:
        _print(f"predictions  {_shown(uri)}" + ("" if rows is None else f" ({rows:,.0f} rows)"))


def _print_failure(result: RunResult) -> int:
    failed = result.steps.failed()
    for step in failed:
        _print_failed_step(step)
    for report in result.outputs.reports:
        _print_error(f"report  {_shown(report)}")
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
    _print_error(f"log     {_shown(step.log)}")
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


def _shown(path: str | Path) -> str:
    """Returns a path for display: relative if it is below the working directory."""
    text = str(path)
    if "://" in text:
        return text
    relative = os.path.relpath(text)
    return text if relative.startswith("..") else relative


def _print(text: str) -> None:
    print(text, flush=True)


def _print_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
