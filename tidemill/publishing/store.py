"""The store of published models.

    ROOT/models/<name>/<version>/    versions are 1, 2, 3 …; a version without manifest.json does not exist
    ROOT/models/<name>/.claims/      a file a version, by which publishers at the same time get different ones

A version is a SavedModel, as TensorFlow Serving reads it, with a folder `tidemill/` beside its own files.
"""

from __future__ import annotations

import json

from tidemill import storage
from tidemill.artifacts.artifact import MANIFEST
from tidemill.errors import Code, TidemillError

CLAIMS = ".claims"
LINEAGE = "tidemill/lineage.json"


def models_uri(root: str, name: str) -> str:
    """The folder of a name's versions."""
    return storage.join(root, "models", name)


def version_uri(root: str, name: str, version: int) -> str:
    """The folder of one version."""
    return storage.join(models_uri(root, name), str(version))


def versions(root: str, name: str) -> list[int]:
    """The whole versions, ascending. Empty where nothing is published."""
    found = [int(folder) for folder in storage.list_folders(models_uri(root, name)) if folder.isdecimal()]
    return sorted(v for v in found if storage.exists(storage.join(version_uri(root, name, v), MANIFEST)))


def lineage(uri: str) -> dict:
    """What a published version was made of: `run_fingerprint`, `model` and what the `publish` step was told."""
    return json.loads(storage.read_text(storage.join(uri, LINEAGE)))


def newest(root: str, name: str, *, exclude_run: str | None = None) -> str | None:
    """The newest whole version.

    Args:
        root: URI of Tidemill's root folder.
        name: The experiment's name.
        exclude_run: Pass over versions that this run published, so that a repeated run meets the same baseline as the
            first time. Defaults to none.

    Returns:
        Its URI, or None.
    """
    for version in reversed(versions(root, name)):
        uri = version_uri(root, name, version)
        if exclude_run is None or lineage(uri).get("run_fingerprint") != exclude_run:
            return uri
    return None


def resolve(root: str, name: str, version: str | int = "latest") -> str:
    """The URI of a version.

    Args:
        root: URI of Tidemill's root folder.
        name: The experiment's name.
        version: A number, or `latest`.

    Raises:
        TidemillError: `no-model`, with the versions that there are.
    """
    known = versions(root, name)
    text = str(version).strip()
    chosen = known[-1:] if text == "latest" else [v for v in known if str(v) == text]
    if not chosen:
        have = f"versions {', '.join(map(str, known))}" if known else "none"
        want = "choose one of these or latest" if known else f"publish a model of {name!r} first, by the train pipeline"
        raise TidemillError(Code.NO_MODEL, models_uri(root, name), f"version {text!r}, where there are {have}", want)
    return version_uri(root, name, chosen[0])


def claim(root: str, name: str, note: str) -> int:
    """Takes the next version number for the caller alone. A number whose publisher was killed is not used again.

    Args:
        root: URI of Tidemill's root folder.
        name: The experiment's name.
        note: Text to leave in the claim.
    """
    folder = models_uri(root, name)
    claims = storage.join(folder, CLAIMS)
    taken = [int(n) for n in storage.list_folders(folder) if n.isdecimal()]
    names = [file.uri.rsplit("/", 1)[-1] for file in storage.list_files(storage.join(claims, "*"))]
    taken += [int(name) for name in names if name.isdecimal()]
    version = max(taken, default=0) + 1
    while True:
        try:
            storage.create_text(storage.join(claims, str(version)), note + "\n")
            return version
        except FileExistsError:
            version += 1
