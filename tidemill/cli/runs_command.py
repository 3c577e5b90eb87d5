"""The commands `tidemill runs` and `tidemill report`: list runs, show one, and open its reports."""

from __future__ import annotations

import argparse
import json
import webbrowser
from dataclasses import asdict
from pathlib import Path

from tidemill.cli.metrics_table import decision, metrics_table, ranked
from tidemill.cli.short_paths import short_path
from tidemill.errors import Code, TidemillError
from tidemill.local.run_checks import root_folder
from tidemill.local.run_outputs import MemberResult
from tidemill.local.run_record import Run, find_run, list_runs


def list_all(args: argparse.Namespace) -> int:
    """Prints a table of all runs with the metrics of their best models, the newest first."""
    runs = list_runs(root_folder(args.root))
    if not runs:
        print(f"no runs in {args.root}")
        return 0
    rows = [("run", "status", "experiment", "pipeline", "started", "seconds", "model", "valid", "test")]
    for run in runs:
        facts = (run.id, _status(run), run.experiment, run.pipeline, _when(run.started), _seconds(run.seconds))
        rows.append((*facts, *_best(run)))
    _print_columns(rows)
    return 0


def show(args: argparse.Namespace) -> int:
    """Prints the steps, metrics, outputs, errors and reports of one run."""
    run = find_run(root_folder(args.root), args.run)
    if args.json:
        print(json.dumps(asdict(run), indent=1, ensure_ascii=False))
        return 0
    print(f"run {run.id}: {_status(run)}")
    print(f"{run.experiment}, pipeline {run.pipeline}, from {short_path(run.file)}")
    print(f"started {_when(run.started)}, {_seconds(run.seconds) or '?'} seconds")
    print(f"root {short_path(run.root)}\n")
    rows = [("step", "state", "seconds", "log")]
    rows += [(s["name"], s["state"], _seconds(s["seconds"]), short_path(s["log"] or "", run.root)) for s in run.steps]
    _print_columns(rows)
    if run.members:
        members = _members(run)
        print(f"\n{metrics_table(members)}\n\ndecided: {decision(members)}")
    for step in run.steps:
        for name, output in step["outputs"].items():
            for item in output if isinstance(output, list) else [output]:
                if isinstance(item, dict) and "uri" in item:
                    print(f"\n{step['name']}.{name}  {short_path(item['uri'], run.root)}", end="")
    print()
    for step in run.steps:
        if error := step["error"]:
            code = f" [{error['code']}]" if error["code"] else ""
            print(f"\n{step['name']}: error{code}{'' if code else ':'} {error['message']}")
    for report in run.reports:
        print(f"report  {short_path(report, run.root)}")
    return 0


def report(args: argparse.Namespace) -> int:
    """Prints the paths of a run's HTML reports, and opens them with `--open`.

    Without a run's id, it takes the newest run that has reports.
    """
    root = root_folder(args.root)
    runs = [find_run(root, args.run)] if args.run else list_runs(root)
    with_reports = [run for run in runs if any(Path(path).is_file() for path in run.reports)]
    run = (with_reports or [find_run(root, args.run)])[0]
    reports = [path for path in run.reports if Path(path).is_file()]
    if not reports:
        got = f"run {run.id} ({run.status}), which has no report"
        raise TidemillError(Code.MISSING_FILE, "report", got, "choose another run of tidemill runs list")
    for path in reports:
        print(short_path(path))
        if args.open:
            webbrowser.open(Path(path).as_uri())
    return 0


def _members(run: Run) -> list[MemberResult]:
    return [MemberResult(**member) for member in run.members]


def _best(run: Run) -> tuple[str, str, str]:
    """Returns the published model, or else the best one, with its objective on the valid and the test split."""
    members = ranked(_members(run))
    if not members:
        return ("", "", "")
    published = [member for member in members if member.name in run.published]
    best = (published or members)[0]
    values = [best.objective_value, best.metrics.get(best.objective)]
    valid, test = ("" if value is None else f"{best.objective} {value:.4f}" for value in values)
    return (best.name if published else f"{best.name}, not published", valid, test)


def _status(run: Run) -> str:
    return f"{run.status}, cached" if run.every_step_cached else run.status


def _when(iso: str) -> str:
    return iso[:19].replace("T", " ")


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _print_columns(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
