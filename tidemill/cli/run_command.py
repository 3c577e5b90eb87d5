"""`tidemill run`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import sys
import time
from pathlib import Path

from rich.console import Console

from tidemill.cli.root_option import root_folder
from tidemill.cli.run_display import Lines, LiveTable, duration
from tidemill.cli.validate_command import check_files
from tidemill.errors import EXIT_CODE, Code, TidemillError
from tidemill.experiment import dump, load
from tidemill.local import definitions
from tidemill.local.execution import RunResult, Stopped, run_pipeline
from tidemill.local.run_outputs import MemberResult, RunOutputs
from tidemill.local.run_record import Run
from tidemill.local.step_states import Step, Steps

_LOG_LINES = 20
_STEP_PACKAGES = ("duckdb", "lightgbm", "polars", "pyarrow", "tensorflow", "tensorflow_transform")
_TENSORFLOW = re.compile(r"[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl|To enable the following")
_METRIC_COLUMNS = ("auc", "pr_auc", "log_loss", "calibration", "accuracy")


def run(args: argparse.Namespace) -> int:
    """Runs a pipeline on this machine, shows how it goes, and says where the results are."""
    began = time.monotonic()
    experiment, root = load(args.file), root_folder(args)
    _check_packages()
    check_files(experiment)
    arguments = {"experiment": dump(experiment), "root": str(root), **_params(args.param)}
    console = Console()
    display = LiveTable(console) if console.is_terminal and not args.plain else Lines(console)
    with contextlib.ExitStack() as stack:

        def on_start(run: Run, steps: Steps) -> None:
            _say(f"run {run.id}: {run.experiment}, pipeline {run.pipeline}, in {_shown(run.folder)}")
            stack.enter_context(display.showing(steps))

        try:
            ended = run_pipeline(
                definitions.find_pipeline(args.pipeline),
                arguments,
                experiment=experiment.name,
                file=str(Path(args.file).absolute()),
                root=root,
                use_cache=not args.no_cache,
                on_start=on_start,
            )
        except Stopped as stopped:
            stack.close()
            _complain(f"{stopped}: finished steps are kept; the same command goes on from there")
            return 128 + stopped.signum
    if not ended.succeeded:
        return _tell_failure(ended)
    _tell_results(ended.results)
    cached = "every step was cached; " if ended.run.every_step_cached else ""
    _say(f"{cached}{duration(time.monotonic() - began)}")
    return 0


def metrics_table(members: list[MemberResult]) -> str:
    """Metrics of the test split, one line a member, the columns aligned; below it the gates that failed."""
    columns = [name for name in _METRIC_COLUMNS if any(member.metrics.get(name) is not None for member in members)]
    rows = [["model", *columns, "gates"]]
    for member in members:
        values = [member.metrics.get(name) for name in columns]
        verdict = "passed" if member.blessed else "failed"
        rows.append([member.name, *("" if value is None else f"{value:.4f}" for value in values), verdict])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) + 1)]
    lines = ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]) for row in rows]
    lines += [f"{member.name}: {reason}" for member in members if not member.blessed for reason in member.reasons]
    return "\n".join(lines)


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


def _tell_results(results: RunOutputs) -> None:
    if results.members:
        _say(f"\n{metrics_table(results.members)}")
    _say("")
    for report in results.reports:
        _say(f"report       {_shown(report)}")
    for uri, member in results.published:
        _say(f"published    {_shown(uri)} ({member})")
    for uri, rows in results.predictions:
        _say(f"predictions  {_shown(uri)}" + ("" if rows is None else f" ({rows:,.0f} rows)"))


def _check_packages() -> None:
    """Says at once what the light installation lacks, instead of failing in a step."""
    missing = [name for name in _STEP_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        got = f"an installation without {', '.join(missing)}"
        raise TidemillError(Code.MISSING_PACKAGE, "tidemill run", got, "install Tidemill with its extra steps")


def _tell_failure(ended: RunResult) -> int:
    failed = ended.steps.failed()
    for step in failed:
        _tell_failed_step(step)
    for report in ended.results.reports:
        _complain(f"report  {_shown(report)}")
    if ended.results.members:
        _complain(metrics_table(ended.results.members))
    mistakes = [step.error["code"] for step in failed]
    if Code.INCOMPLETE_ARTIFACT.code in mistakes:
        _complain("hint    files of an earlier run were removed or changed; --no-cache makes everything anew")
    return EXIT_CODE if failed and all(mistakes) else 1


def _tell_failed_step(step: Step) -> None:
    code = step.error["code"]
    _complain(f"\nerror [{code}] {step.error['message']}" if code else f"\nerror: {step.error['message']}")
    _complain(f"step    {step.name}")
    if not step.log.is_file():
        return
    _complain(f"log     {_shown(step.log)}")
    for line in _said(step.log.read_text(encoding="utf-8", errors="replace"))[-_LOG_LINES:]:
        _complain(f"  | {line}")


def _said(log: str) -> list[str]:
    """The lines of a step's log that the step wrote.

    Without the JSON of its inputs and outputs, which kfp prints, and without what TensorFlow says of the processor.
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
    """Local paths below the working directory as relative ones."""
    text = str(path)
    if "://" in text:
        return text
    relative = os.path.relpath(text)
    return text if relative.startswith("..") else relative


def _say(text: str) -> None:
    print(text, flush=True)


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
