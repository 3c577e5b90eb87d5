"""The `publish` step: copies the best blessed model to the model store as its next version."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tidemill import storage
from tidemill.artifacts import artifact, evaluation_artifact, model_store
from tidemill.artifacts.model import DOCUMENT, HISTORY, PUBLISHED, SERVING
from tidemill.errors import Code, TidemillError
from tidemill.reports import leaderboard_page
from tidemill.steps.publish import PublishSpec


@dataclass(frozen=True)
class PublishSummary:
    """The result of the step: the published version.

    Attributes:
        uri: Folder of the version.
        version: Its number.
        name: The member's name.
        family: The member's family.
    """

    uri: str
    version: int
    name: str
    family: str


@dataclass(frozen=True)
class _Member:
    """A model with its evaluation.

    Attributes:
        model: Folder of the model.
        evaluation: Folder of the evaluation.
        facts: Metadata of the evaluation.
    """

    model: Path
    evaluation: Path
    facts: evaluation_artifact.EvaluationFacts


def publish(
    spec: PublishSpec,
    models: Sequence[str],
    evaluations: Sequence[str],
    *,
    root: str,
    publisher: str | None = None,
    statistics: str | None = None,
    report: str | None = None,
) -> PublishSummary:
    """Publishes the best blessed member. A reader sees the whole version or none.

    The best member has the best objective on the valid split. If members are equal, or valid is empty, it is the first
    of them in `models`. Each run publishes a version of its own. A repeated attempt of the same run returns the version
    that an earlier attempt published.

    Args:
        spec: Name, run and lineage.
        models: Folders of the members' models.
        evaluations: Folders of their evaluations, in any order.
        root: URI of the folder that holds `models/`.
        publisher: Identifies the task of the run. It is the same for all attempts, and differs between runs. Defaults
            to a new publisher for each call.
        statistics: Folder of the train split's statistics, for later comparisons. Defaults to none.
        report: File for the leaderboard, which is also written if no member is blessed. Defaults to no page.

    Raises:
        TidemillError: `not-blessed` with the reasons of every member; `incomplete-artifact`.
    """
    members = _members(models, evaluations)
    blessed = [member for member in members if member.facts.blessed]
    best = max(blessed, key=lambda member: member.facts.rank(), default=None)
    if report is not None:
        documents = [evaluation_artifact.read_document(member.evaluation) for member in members]
        published = None if best is None else best.facts.name
        costs = {member.facts.name: _cost(member.model) for member in members}
        storage.write_text(report, leaderboard_page.render(documents, published=published, costs=costs))
    if best is None:
        raise _not_blessed_error(members)
    publisher = publisher or uuid.uuid4().hex
    version = model_store.version_of(root, spec.experiment, publisher)
    if version is None:
        version = _publish(spec, best, members, root, publisher, statistics)
    uri = model_store.version_uri(root, spec.experiment, version)
    return PublishSummary(uri, version, best.facts.name, best.facts.family)


def _members(models: Sequence[str], evaluations: Sequence[str]) -> list[_Member]:
    """Returns each model with the evaluation of the same name and model fingerprint."""
    by_model: dict[tuple[str, str], tuple[Path, evaluation_artifact.EvaluationFacts]] = {}
    for path in evaluations:
        facts = evaluation_artifact.read_facts(path)
        by_model[facts.name, facts.model_fingerprint] = (Path(path), facts)
    members = []
    for path in models:
        metadata = artifact.open_folder(path)["metadata"]
        key = metadata["name"], metadata["model_fingerprint"]
        if key not in by_model:
            got, want = "a model without an evaluation", "evaluate every model before publishing"
            raise artifact.incomplete_error(path, got, want)
        members.append(_Member(Path(path), *by_model[key]))
    if not members:
        raise artifact.incomplete_error("models", "no model", "give at least one model and its evaluation")
    return members


def _cost(model: Path) -> leaderboard_page.Cost:
    """Returns the time that a model's epochs or rounds took, and the size of its export."""
    entries = storage.read_json(model / HISTORY)["entries"] if (model / HISTORY).is_file() else None
    exported = [file["bytes"] for file in artifact.read_manifest(model)["files"] if file["name"].startswith(SERVING)]
    seconds = None if entries is None else sum(entry["seconds"] for entry in entries)
    return leaderboard_page.Cost(seconds, sum(exported))


def _not_blessed_error(members: Sequence[_Member]) -> TidemillError:
    reasons = {member.facts.name: member.facts.reasons for member in members}
    got = "; ".join(f"{name} (not blessed: {'; '.join(each)})" for name, each in reasons.items())
    by_base_rate = [evaluation_artifact.BASE_RATE_KEY in reason for each in reasons.values() for reason in each]
    where, change = "evaluation.gates", "change evaluation.gates"
    if any(by_base_rate):
        change = f"set {evaluation_artifact.BASE_RATE_KEY} to false"
        if all(by_base_rate):
            where = evaluation_artifact.BASE_RATE_KEY
        else:
            change = f"change evaluation.gates and {change}"
    return TidemillError(Code.NOT_BLESSED, where, got, f"improve the model or {change}", {"reasons": reasons})


def _publish(
    spec: PublishSpec, member: _Member, members: Sequence[_Member], root: str, publisher: str, statistics: str | None
) -> int:
    with tempfile.TemporaryDirectory(prefix="tidemill-publish-") as scratch:
        folder = Path(scratch) / "version"
        _assemble(spec, member, members, folder, statistics)
        version = model_store.claim(root, spec.experiment, publisher)
        storage.publish_folder(folder, model_store.version_uri(root, spec.experiment, version))
    return version


def _assemble(
    spec: PublishSpec, member: _Member, members: Sequence[_Member], folder: Path, statistics: str | None
) -> None:
    """Writes the sealed folder of a version."""
    shutil.copytree(member.model / SERVING, folder)
    storage.copy_file(member.model / DOCUMENT, folder / PUBLISHED / DOCUMENT)
    for name in (evaluation_artifact.METRICS_FILE, evaluation_artifact.REPORT_FILE):
        storage.copy_file(member.evaluation / name, folder / PUBLISHED / name)
    if statistics is not None:
        shutil.copytree(statistics, folder / model_store.STATISTICS)
    facts = member.facts
    model: model_store.PublishedMember = {
        "name": facts.name,
        "family": facts.family,
        "objective": facts.objective,
        "objective_value": facts.objective_value,
        "fingerprint": facts.model_fingerprint,
    }
    lineage = {
        "experiment_name": spec.experiment,
        "run_fingerprint": spec.run_fingerprint,
        "model": model,
        "members": {
            m.facts.name: {"fingerprint": m.facts.model_fingerprint, "blessed": m.facts.blessed} for m in members
        },
        **json.loads(json.dumps(spec.lineage)),
    }
    model_store.write_lineage(folder, cast(model_store.Lineage, lineage))
    metadata = {key: value for key, value in model.items() if key != "fingerprint"}
    artifact.seal(folder, {"experiment": spec.experiment, "run_fingerprint": spec.run_fingerprint, **metadata})
