"""The command `tidemill explain`: shows a step's cache key and why the step ran again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidemill import fingerprint
from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.local.run_checks import root_folder
from tidemill.local.run_record import Run, find_run, list_runs
from tidemill.local.step_keys import StepKey, differences, previous

_MAX_VALUE_CHARS = 80


def explain(args: argparse.Namespace) -> int:
    """Prints the key of a step, or of each step of a task, and compares it with the run before."""
    root = root_folder(args.root)
    run = find_run(root, args.run)
    if args.run is None:
        run = next((each for each in list_runs(root) if _steps(each, args.step)), run)
    steps = _steps(run, args.step)
    if not steps:
        want = suggest_name(args.step, [step["name"] for step in run.steps])
        whose = f"run {run.id} does" if args.run is not None else "the runs do"
        raise TidemillError(Code.INVALID_VALUE, "STEP", f"{args.step!r}, which {whose} not have", want)
    print("\n\n".join(_explanation(root, run, step, args.files) for step in steps))
    return 0


def _steps(run: Run, name: str) -> list[dict[str, Any]]:
    """Returns the step of this name, or the steps of the task of this name."""
    named = [step for step in run.steps if name == step["name"]]
    return named or [step for step in run.steps if name == step["task"]]


def _explanation(root: Path, run: Run, step: dict[str, Any], with_files: bool) -> str:
    lines = [f"{step['name']}: {step['state']} in run {run.id} of {run.experiment}, pipeline {run.pipeline}"]
    key = StepKey.read(run.folder, step["name"])
    if key is None:
        return "\n".join([*lines, _without_key(step)])
    for reason in step.get("reasons", []):
        lines.append(f"it ran because: {reason}")
    lines += ["", f"cache key  {key.key[: fingerprint.DIGEST_CHARS]}"]
    lines += _code(key, with_files)
    lines += _section("libraries", key.libraries)
    lines += _section("source tables", key.sources)
    lines += _section("parameters", {name: _short(value) for name, value in key.parameters.items()})
    for name, artifacts in key.inputs.items():
        lines += _section(
            f"input {name}", {each["fingerprint"] or "(no fingerprint)": each["uri"] for each in artifacts}
        )
    return "\n".join([*lines, "", *_comparison(root, run, step["name"], key)])


def _without_key(step: dict[str, Any]) -> str:
    if step["state"] == "checked":
        return "it is never cached: it looks at the sources and at the published models in every run"
    return "the run recorded no key for it: it did not start"


def _code(key: StepKey, with_files: bool) -> list[str]:
    if not key.code:
        return [f"code       component {key.component}"]
    lines = [f"code       {len(key.code)} files, fingerprint {fingerprint.of_json(key.code)}"]
    return [*lines, *(f"  {value}  {name}" for name, value in key.code.items())] if with_files else lines


def _section(title: str, values: Mapping[str, str]) -> list[str]:
    width = max(map(len, values), default=0)
    return [title, *(f"  {name:<{width}}  {value}" for name, value in values.items())] if values else []


def _comparison(root: Path, run: Run, step: str, key: StepKey) -> list[str]:
    earlier = previous(root, run.id, run.experiment, run.pipeline, step)
    if earlier is None:
        return ["no earlier run of this pipeline recorded the step"]
    before, other, state = earlier
    changes = differences(key, other)
    if not changes:
        return [f"compared with run {before} ({state}): " + ("equal" if key.key == other.key else "other metadata")]
    return [f"compared with run {before} ({state}):", *(f"  {line}" for line in changes)]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}…"
