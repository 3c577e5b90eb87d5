"""Files that Beam's workers can reach, and their copies on this machine. Imports Beam."""

from __future__ import annotations

import posixpath
import shutil
from pathlib import Path

from apache_beam.io.filesystems import FileSystems

_MOUNTS = {"/gcs/": "gs://", "/s3/": "s3://"}
"""Paths under which Kubeflow mounts the objects of a step's artifacts."""


def shared_uri(path: str | Path) -> str:
    """Returns the name of a local path on other machines: the object's URI if Kubeflow mounted an artifact there."""
    text = str(path)
    for mount, scheme in _MOUNTS.items():
        if text.startswith(mount):
            return scheme + text.removeprefix(mount)
    return text


def upload(folder: Path, uri: str) -> None:
    """Copies a local folder's files below `uri`."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        upload_file(path, posixpath.join(uri, path.relative_to(folder).as_posix()))


def upload_file(path: Path, uri: str) -> None:
    """Copies one local file to `uri`."""
    if "://" not in uri:
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "rb") as source, FileSystems.create(uri, compression_type="uncompressed") as target:
        shutil.copyfileobj(source, target)


def download(uri: str, folder: Path) -> None:
    """Copies the files below `uri` to a local folder, and keeps the folders between."""
    for match in FileSystems.match([posixpath.join(uri, "**")]):
        for file in match.metadata_list:
            name = posixpath.relpath(file.path, uri)
            if not file.path.endswith("/"):
                download_file(file.path, folder / name)


def download_file(uri: str, path: Path) -> None:
    """Copies the file at `uri` to a local path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileSystems.open(uri, compression_type="uncompressed") as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target)


def remove(uri: str) -> None:
    """Removes a folder with its content. Does nothing if the folder does not exist."""
    if FileSystems.exists(uri):
        FileSystems.delete([uri])
