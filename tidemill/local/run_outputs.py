"""What a run has produced, from the outputs of its steps: reports, metrics, a published model, predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tidemill.local.step_states import Step

_HTML = "system.HTML"


@dataclass(frozen=True)
class MemberResult:
    """The evaluation of one model."""

    name: str
    blessed: bool
    reasons: list[str]
    metrics: dict[str, float | None]
    """Of the whole test split."""
    objective: str | None
    objective_value: float | None
    """Of the valid split."""


@dataclass
class RunOutputs:
    """Everything worth telling at the end of a run."""

    reports: list[Path] = field(default_factory=list)
    members: list[MemberResult] = field(default_factory=list)
    published: list[tuple[str, str]] = field(default_factory=list)
    """URIs of published models, each with its member's name."""
    predictions: list[tuple[str, float | None]] = field(default_factory=list)
    """URIs of predictions with their number of rows."""


def collect_outputs(steps: Iterable[Step], reports: Path) -> RunOutputs:
    """Gathers the results, and copies the HTML reports to where a browser knows them by their name.

    Args:
        steps: The steps of the run, ended or failed.
        reports: Folder for the copies, `<step>-<output>.html`.
    """
    results = RunOutputs()
    for step in steps:
        for name, output in _artifacts(step):
            uri, metadata = output["uri"], output["metadata"]
            if output["type"] == _HTML and Path(uri).is_file():
                reports.mkdir(exist_ok=True)
                copy = reports / f"{step.name}-{name}.html"
                shutil.copyfile(uri, copy)
                results.reports.append(copy)
            elif name == "evaluation" and (member := read_member_result(Path(uri))):
                results.members.append(member)
            elif name == "published":
                results.published.append((uri, metadata.get("name", "")))
            elif name == "predictions":
                results.predictions.append((uri, metadata.get("rows")))
    return results


def read_member_result(evaluation: Path) -> MemberResult | None:
    """The essence of an evaluation artifact; None where it is not whole."""
    try:
        manifest = json.loads((evaluation / "manifest.json").read_text(encoding="utf-8"))
        metrics = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    facts = manifest["metadata"]
    return MemberResult(
        name=facts["name"],
        blessed=facts["blessed"],
        reasons=facts.get("reasons", []),
        metrics={name: estimate["value"] for name, estimate in metrics["test"]["metrics"].items()},
        objective=facts.get("objective"),
        objective_value=facts.get("objective_value"),
    )


def _artifacts(step: Step) -> Iterator[tuple[str, dict]]:
    for name, output in step.outputs.items():
        for item in output if isinstance(output, list) else [output]:
            if isinstance(item, dict) and "uri" in item:
                yield name, item
