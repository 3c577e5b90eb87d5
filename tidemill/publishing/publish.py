"""The `publish` step: the best blessed member becomes the next version in the model store."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.errors import Code, TidemillError
from tidemill.evaluation import leaderboard
from tidemill.evaluation.metrics import goodness
from tidemill.publishing import store
from tidemill.steps.publish import PublishSpec

SERVING = "Format-Serving"


@dataclass(frozen=True)
class PublishSummary:
    """What was published.

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
    model: Path
    evaluation: Path
    fingerprint: str
    facts: dict

    def rank(self) -> float:
        value = self.facts["objective_value"]
        return -math.inf if value is None else float(goodness(self.facts["objective"], value))


def publish(
    spec: PublishSpec,
    models: list[str],
    evaluations: list[str],
    *,
    root: str,
    statistics: str | None = None,
    report: str | None = None,
) -> PublishSummary:
    """Publishes the best blessed member, as a whole: a reader sees the finished version or none.

    The best is the one with the best objective on the valid split; of equals, and where valid is empty, the first of
    `models`. When this run has published the same model before, that version is returned.

    Args:
        spec: Name, run and lineage.
        models: Folders of the members' models.
        evaluations: Folders of their evaluations, in any order.
        root: URI of the folder that holds `models/`.
        statistics: Folder of the train data's statistics, kept for later comparisons. Defaults to none.
        report: File for the page that compares the members. Written also when none is blessed.

    Raises:
        TidemillError: `not-blessed` with the reasons of every member; `incomplete-artifact`.
    """
    members = _match(models, evaluations)
    blessed = [member for member in members if member.facts["blessed"]]
    best = max(blessed, key=_Member.rank, default=None)
    if report is not None:
        chosen = None if best is None else best.facts["name"]
        leaderboard.write(report, [str(member.evaluation) for member in members], published=chosen)
    if best is None:
        raise _not_blessed(members)
    version = _published_before(spec, best, root) or _publish(spec, best, members, root, statistics)
    uri = store.version_uri(root, spec.experiment, version)
    return PublishSummary(uri, version, best.facts["name"], best.facts["family"])


def _match(models: list[str], evaluations: list[str]) -> list[_Member]:
    by_model = {}
    for path in evaluations:
        facts = artifact.open_folder(path)["metadata"]
        by_model[facts["name"], facts["model_fingerprint"]] = (Path(path), facts)
    members = []
    for path in models:
        about = artifact.open_folder(path)["metadata"]
        found = about["name"], about["model_fingerprint"]
        if found not in by_model:
            got = "a model that none of the evaluations is about"
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, path, got, "evaluate every model before publishing")
        evaluation, facts = by_model[found]
        members.append(_Member(Path(path), evaluation, found[1], facts))
    if not members:
        raise TidemillError(
            Code.INCOMPLETE_ARTIFACT, "models", "no model", "give at least one model and its evaluation"
        )
    return members


def _not_blessed(members: list[_Member]) -> TidemillError:
    reasons = {member.facts["name"]: member.facts["reasons"] for member in members}
    got = "; ".join(f"{name} (not blessed: {'; '.join(each)})" for name, each in reasons.items())
    want = "improve the model or change evaluation.gates"
    return TidemillError(Code.NOT_BLESSED, "evaluation.gates", got, want, {"reasons": reasons})


def _published_before(spec: PublishSpec, member: _Member, root: str) -> int | None:
    for version in reversed(store.versions(root, spec.experiment)):
        lineage = store.lineage(store.version_uri(root, spec.experiment, version))
        if lineage["run_fingerprint"] == spec.run_fingerprint and lineage["model"]["fingerprint"] == member.fingerprint:
            return version
    return None


def _publish(spec: PublishSpec, member: _Member, members: list[_Member], root: str, statistics: str | None) -> int:
    with tempfile.TemporaryDirectory(prefix="tidemill-publish-") as scratch:
        folder = Path(scratch) / "version"
        _assemble(spec, member, members, folder, statistics)
        version = store.claim(root, spec.experiment, spec.run_fingerprint)
        storage.publish_folder(folder, store.version_uri(root, spec.experiment, version))
    return version


def _assemble(spec: PublishSpec, member: _Member, members: list[_Member], folder: Path, statistics: str | None) -> None:
    shutil.copytree(member.model / SERVING, folder)
    extra = folder / "tidemill"
    extra.mkdir()
    shutil.copyfile(member.model / "model.json", extra / "model.json")
    for name in ("metrics.json", "report.html"):
        shutil.copyfile(member.evaluation / name, extra / name)
    if statistics is not None:
        shutil.copytree(statistics, extra / "statistics")
    facts = {key: member.facts[key] for key in ("name", "family", "objective", "objective_value")}
    lineage = {
        "experiment_name": spec.experiment,
        "run_fingerprint": spec.run_fingerprint,
        "model": {**facts, "fingerprint": member.fingerprint},
        "members": {m.facts["name"]: {"fingerprint": m.fingerprint, "blessed": m.facts["blessed"]} for m in members},
        **json.loads(json.dumps(spec.lineage)),
    }
    storage.write_json(extra / "lineage.json", lineage)
    artifact.seal(folder, {"experiment": spec.experiment, "run_fingerprint": spec.run_fingerprint, **facts})
