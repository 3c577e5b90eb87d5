"""The outputs of a run: reports, metrics, published models and predictions, collected from its steps' outputs.

A component marks the artifact of a result with the metadata entry `kind`. Reports are artifacts of the type HTML.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidemill.artifacts import evaluation_artifact
from tidemill.errors import TidemillError
from tidemill.local.step_states import Step

_HTML = "system.HTML"
EVALUATION = "evaluation"
PUBLISHED_MODEL = "published-model"
PREDICTIONS = "predictions"


@dataclass(frozen=True)
class MemberResult:
    """The evaluation of one model."""

    name: str
    blessed: bool
    gate_texts: list[str]
    """One sentence for each failed gate, or for each gate if none failed."""
    metrics: dict[str, float | None]
    """Metrics on the whole test split."""
    objective: str
    objective_value: float | None
    """The objective on the valid split."""


@dataclass
class RunOutputs:
    """The outputs of a run."""

    reports: list[Path] = field(default_factory=list)
    members: list[MemberResult] = field(default_factory=list)
    published: list[tuple[str, str]] = field(default_factory=list)
    """URIs of published models, each with its member's name."""
    predictions: list[tuple[str, float | None]] = field(default_factory=list)
    """URIs of predictions, each with its number of rows."""


def collect_outputs(steps: Iterable[Step], reports: Path) -> RunOutputs:
    """Collects the outputs, and copies the HTML reports to files with the suffix that browsers need.

    Args:
        steps: The steps of the run, whether they succeeded or failed.
        reports: Folder for the copies, `<step>-<output>.html`.
    """
    outputs = RunOutputs()
    for step in steps:
        for name, output in _artifacts(step):
            uri, metadata = output["uri"], output["metadata"]
            kind = metadata.get("kind")
            if output["type"] == _HTML and Path(uri).is_file():
                reports.mkdir(exist_ok=True)
                copy = reports / f"{step.name}-{name}.html"
                shutil.copyfile(uri, copy)
                outputs.reports.append(copy)
            elif kind == EVALUATION and (member := read_member_result(Path(uri))):
                outputs.members.append(member)
            elif kind == PUBLISHED_MODEL:
                outputs.published.append((uri, metadata.get("name", "")))
            elif kind == PREDICTIONS:
                outputs.predictions.append((uri, metadata.get("rows")))
    return outputs


def read_member_result(evaluation: Path) -> MemberResult | None:
    """Reads the result from an evaluation artifact. Returns None if the artifact is incomplete."""
    try:
        facts = evaluation_artifact.read_facts(evaluation)
    except TidemillError:
        return None
    metrics = evaluation_artifact.read_document(evaluation)["test"]["metrics"]
    return MemberResult(
        name=facts.name,
        blessed=facts.blessed,
        gate_texts=facts.reasons,
        metrics={name: estimate["value"] for name, estimate in metrics.items()},
        objective=facts.objective,
        objective_value=facts.objective_value,
    )


def _artifacts(step: Step) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, output in step.outputs.items():
        for item in output if isinstance(output, list) else [output]:
            if isinstance(item, dict) and "uri" in item:
                yield name, item
