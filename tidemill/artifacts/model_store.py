"""The store of published models: its layout, its versions, and what a version holds.

    ROOT/models/<name>/<version>/    a version, counted from 1; without manifest.json it does not exist
    ROOT/models/<name>/.claims/      one file for each version number that a publisher has taken, with its name

A version is a SavedModel as TensorFlow Serving reads it, with a folder of its own:

    tidemill/model.json  metrics.json  report.html  lineage.json  statistics/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired, TypedDict

from tidemill import storage
from tidemill.artifacts.artifact import MANIFEST
from tidemill.artifacts.model import DOCUMENT, PUBLISHED, ModelDocument
from tidemill.errors import Code, TidemillError

CLAIMS = ".claims"
LINEAGE = f"{PUBLISHED}/lineage.json"
STATISTICS = f"{PUBLISHED}/statistics"


class PublishedMember(TypedDict):
    """The member that the version publishes."""

    name: str
    family: str
    objective: str
    objective_value: float | None
    fingerprint: str


class MemberVerdict(TypedDict):
    """A member that took part in the run."""

    fingerprint: str
    blessed: bool


class Lineage(TypedDict):
    """The content of `lineage.json`: what the version was made from."""

    experiment_name: str
    run_fingerprint: str
    model: PublishedMember
    members: dict[str, MemberVerdict]
    experiment: NotRequired[dict[str, Any]]
    """The experiment file; this entry and those below come from the plan."""
    source_fingerprint: NotRequired[str]
    code: NotRequired[dict[str, Any]]
    """`version` of Tidemill, and `steps`: the code's fingerprint and the libraries' versions by step."""
    baseline: NotRequired[str | None]
    """URI of the published model that the run was compared with."""


def models_uri(root: str, name: str) -> str:
    """Returns the folder that holds the versions of a name."""
    return storage.join(root, "models", name)


def version_uri(root: str, name: str, version: int) -> str:
    """Returns the folder of one version."""
    return storage.join(models_uri(root, name), str(version))


def versions(root: str, name: str) -> list[int]:
    """Returns the whole versions in ascending order; empty if none is published."""
    folders = storage.list_folders(models_uri(root, name))
    numbers = [int(folder) for folder in folders if folder.isdecimal()]
    return sorted(v for v in numbers if storage.exists(storage.join(version_uri(root, name, v), MANIFEST)))


def lineage(uri: str) -> Lineage:
    """Returns the lineage of a published version."""
    return storage.read_json(storage.join(uri, LINEAGE))


def model_document(uri: str) -> ModelDocument:
    """Returns the `model.json` of a published version."""
    return ModelDocument.parse(storage.read_text(storage.join(uri, PUBLISHED, DOCUMENT)))


def write_lineage(folder: Path, content: Lineage) -> None:
    """Writes the lineage into the folder of a version that is being assembled."""
    storage.write_json(folder / LINEAGE, content)


def newest(root: str, name: str, *, exclude_run: str | None = None) -> str | None:
    """Returns the URI of the newest whole version; None if there is none.

    Args:
        root: URI of Tidemill's root folder.
        name: The experiment's name.
        exclude_run: Fingerprint of a run whose versions are skipped. A repeated run then has the same baseline as the
            first time. Defaults to none.
    """
    for version in reversed(versions(root, name)):
        uri = version_uri(root, name, version)
        if exclude_run is None or lineage(uri).get("run_fingerprint") != exclude_run:
            return uri
    return None


def resolve(root: str, name: str, version: str | int = "latest") -> str:
    """Returns the URI of a version.

    Args:
        root: URI of Tidemill's root folder.
        name: The experiment's name.
        version: A number or `latest`. Defaults to `latest`.

    Raises:
        TidemillError: `no-model`, with the existing versions.
    """
    known = versions(root, name)
    text = str(version).strip()
    chosen = known[-1:] if text == "latest" else [v for v in known if str(v) == text]
    if not chosen:
        existing = f"the versions {', '.join(map(str, known))} exist" if known else "no version exists"
        want = "choose one of these or latest" if known else f"publish a model of {name!r} first, by the train pipeline"
        raise TidemillError(Code.NO_MODEL, models_uri(root, name), f"version {text!r}, but {existing}", want)
    return version_uri(root, name, chosen[0])


def claim(root: str, name: str, publisher: str) -> int:
    """Takes the next version number, so that two publishers at the same time get different numbers.

    The number of a publisher that was killed is not used again.

    Args:
        root: URI of Tidemill's root folder.
        name: The experiment's name.
        publisher: Identifies the publisher; see `version_of`.
    """
    folder = models_uri(root, name)
    claims = storage.join(folder, CLAIMS)
    names = [*storage.list_folders(folder), *(storage.name_of(f.uri) for f in storage.list_files(f"{claims}/*"))]
    version = max((int(name) for name in names if name.isdecimal()), default=0) + 1
    while True:
        try:
            storage.create_text(storage.join(claims, str(version)), publisher + "\n")
            return version
        except FileExistsError:
            version += 1


def version_of(root: str, name: str, publisher: str) -> int | None:
    """Returns the newest whole version that a publisher has claimed; None if there is none."""
    for version in reversed(versions(root, name)):
        uri = storage.join(models_uri(root, name), CLAIMS, str(version))
        if storage.exists(uri) and storage.read_text(uri).strip() == publisher:
            return version
    return None
