"""The outputs of a run: reports, metrics, published models and predictions, collected from its steps' outputs.

The component `evaluate` marks its evaluation with the metadata entry `kind`. `publish` and `predict` write outside the
run's folder, and their output parameter `uri` names the result. Reports are artifacts of the type HTML.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidemill import storage
from tidemill.artifacts import artifact, evaluation_artifact, model_store, predictions
from tidemill.errors import TidemillError
from tidemill.local.step_states import State, Step

_HTML = "system.HTML"
EVALUATION = "evaluation"
QUARANTINE = "quarantine"
"""The output artifact of `ingest` with the malformed rows."""
NOTES = "notes"
"""The entry of the metadata of `validate` with sentences on the data, by kind."""
URI = "uri"
"""The output parameter that names a published version or predictions."""


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
    warnings: list[str] = field(default_factory=list)
    """What to know about the training."""


@dataclass
class RunOutputs:
    """The outputs of a run."""

    reports: list[Path] = field(default_factory=list)
    members: list[MemberResult] = field(default_factory=list)
    published: list[tuple[str, str]] = field(default_factory=list)
    """URIs of published models, each with its member's name."""
    from_cache: set[str] = field(default_factory=set)
    """The URIs among `published` and `predictions` that an earlier run wrote."""
    predictions: list[tuple[str, float | None]] = field(default_factory=list)
    """URIs of predictions, each with its number of rows."""
    quarantined: list[tuple[Path, int]] = field(default_factory=list)
    """Files with the malformed rows that were left out, each with its number of rows. Without empty files."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """What to know about the data, as sentences: `split`, `unseen`, `outliers` and `lost values`."""


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
            for note_kind, texts in metadata.get(NOTES, {}).items():
                outputs.notes.setdefault(note_kind, []).extend(texts)
            if output["type"] == _HTML and Path(uri).is_file():
                reports.mkdir(exist_ok=True)
                copy = reports / f"{step.name}-{name}.html"
                shutil.copyfile(uri, copy)
                outputs.reports.append(copy)
            elif kind == EVALUATION and (member := read_member_result(Path(uri))):
                outputs.members.append(member)
            elif name == QUARANTINE and (rows := metadata.get("rows")):
                outputs.quarantined.append((Path(uri), int(rows)))
        if isinstance(uri := step.outputs.get(URI), str):
            _add_result(outputs, uri)
            if step.state is State.CACHED:
                outputs.from_cache.add(uri)
    return outputs


def _add_result(outputs: RunOutputs, uri: str) -> None:
    """Adds the published version or the predictions at a URI, whichever is there."""
    if (manifest := predictions.read(uri)) is not None:
        outputs.predictions.append((uri, manifest["rows"]))
    elif storage.exists(storage.join(uri, model_store.LINEAGE)):
        outputs.published.append((uri, model_store.lineage(uri)["model"]["name"]))


def read_member_result(evaluation: Path) -> MemberResult | None:
    """Reads the result from an evaluation artifact. Returns None if the artifact is incomplete."""
    try:
        facts = evaluation_artifact.read_facts(evaluation)
    except TidemillError:
        return None
    document = evaluation_artifact.read_document(evaluation)
    return MemberResult(
        name=facts.name,
        blessed=facts.blessed,
        gate_texts=facts.reasons,
        metrics={name: estimate["value"] for name, estimate in document["test"]["metrics"].items()},
        objective=facts.objective,
        objective_value=facts.objective_value,
        warnings=document.get("warnings", []),
    )


def is_whole(name: str, value: object) -> bool:
    """Returns whether the local folders of an output are whole: all listed files are there with their sizes.

    Args:
        name: The output's name.
        value: An artifact with a `uri`, a list of artifacts, or a parameter's value. A parameter `uri` names a folder.
    """
    items: list[Any] = value if isinstance(value, list) else [value]
    uris = [item.uri for item in items if hasattr(item, "uri")]
    if name == URI and isinstance(value, str):
        if storage.local_path(value) is None:
            return True
        if not any(storage.exists(storage.join(value, file)) for file in (artifact.MANIFEST, predictions.SUCCESS)):
            return False
        uris = [value]
    try:
        for folder in map(Path, uris):
            if (folder / artifact.MANIFEST).is_file():
                artifact.check_files(folder)
    except TidemillError as error:
        logging.info("%s", error)
        return False
    return True


def _artifacts(step: Step) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, output in step.outputs.items():
        for item in output if isinstance(output, list) else [output]:
            if isinstance(item, dict) and "uri" in item:
                yield name, item
