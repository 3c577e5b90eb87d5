"""Sealed folders: artifacts whose manifest lists their files.

`manifest.json` is written last and lists every file with its size and fingerprint. A folder without a manifest, or with
a file of another size, is refused by every reader.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidemill import fingerprint, storage
from tidemill.errors import Code, TidemillError
from tidemill.storage import MANIFEST

__all__ = [
    "MANIFEST",
    "FileEntry",
    "check_file",
    "check_files",
    "incomplete_error",
    "manifest_of",
    "open_folder",
    "read_manifest",
    "seal",
    "write_folder",
]
_RERUN = "rerun the step that wrote it"


def incomplete_error(path: str | os.PathLike[str], got: str, want: str = _RERUN) -> TidemillError:
    """Returns an `incomplete-artifact` error.

    Args:
        path: The artifact or the file in it.
        got: What was read instead.
        want: What to do. Defaults to rerunning the step that wrote the artifact.
    """
    return TidemillError(Code.INCOMPLETE_ARTIFACT, str(path), got, want)


@dataclass(frozen=True)
class FileEntry:
    """One file of a manifest.

    Attributes:
        name: Path below the artifact's folder.
        rows: Number of rows; None if the file has no rows.
        bytes: Size.
        fingerprint: Fingerprint of the content.
    """

    name: str
    rows: int | None
    bytes: int
    fingerprint: str

    @classmethod
    def of(cls, root: Path, name: str, rows: int | None = None) -> FileEntry:
        """Returns the entry of an existing file."""
        path = root / name
        return cls(name, rows, path.stat().st_size, fingerprint.of_file(path))


@contextlib.contextmanager
def write_folder(path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Writes an artifact as a whole. The block fills a temporary folder, which is then sealed and renamed to `path`.

    If the block raises, nothing is left.

    Args:
        path: Where the artifact will be. An artifact that is already there is replaced.
        metadata: JSON-serializable facts for the manifest. The block may still fill the dict.

    Yields:
        The temporary folder.
    """
    path = Path(path)
    storage.refuse_file(path)
    partial = path.with_name(path.name + ".partial")
    storage.remove_folder(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        seal(partial, metadata)
        storage.remove_folder(path)
        os.replace(partial, path)
    finally:
        storage.remove_folder(partial)


def seal(folder: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> str:
    """Writes the manifest of a folder's files.

    Returns:
        The content fingerprint: of the files' names and bytes, not of the metadata.
    """
    root = Path(folder)
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    manifest = manifest_of([FileEntry.of(root, name) for name in names if name != MANIFEST], metadata)
    storage.write_json(root / MANIFEST, manifest)
    return manifest["fingerprint"]


def manifest_of(entries: Sequence[FileEntry], metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the manifest of a sealed folder with these files."""
    content = fingerprint.of_json([[e.name, e.fingerprint] for e in entries])
    return {"format": 1, "fingerprint": content, "files": [asdict(e) for e in entries], "metadata": metadata or {}}


def open_folder(path: str | os.PathLike[str], *, deep: bool = False) -> dict[str, Any]:
    """Checks that a sealed folder is whole.

    Args:
        path: The artifact.
        deep: Whether to compare the fingerprint of each file, not only its size. Defaults to False.

    Returns:
        The manifest: `fingerprint`, `files`, `metadata`.

    Raises:
        TidemillError: `incomplete-artifact`.
    """
    manifest = read_manifest(path)
    if "files" not in manifest:
        raise incomplete_error(path, f"a {MANIFEST} without files")
    for file in manifest["files"]:
        check_file(Path(path), FileEntry(**file), deep=deep)
    return manifest


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the manifest of a sealed folder without checking the files.

    Raises:
        TidemillError: `incomplete-artifact` if the manifest is missing or is not one.
    """
    try:
        manifest = storage.read_json(Path(path) / MANIFEST)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise incomplete_error(path, f"no readable {MANIFEST}") from error
    if not isinstance(manifest, dict) or not {"fingerprint", "metadata"} <= set(manifest):
        raise incomplete_error(path, f"a {MANIFEST} of something else")
    return manifest


def check_files(path: str | os.PathLike[str]) -> None:
    """Checks the sizes of all files of a sealed folder or of a dataset.

    Raises:
        TidemillError: `incomplete-artifact`.
    """
    manifest = read_manifest(path)
    groups = [manifest, *manifest.get("splits", {}).values()]
    for file in [file for group in groups for file in group.get("files", [])]:
        check_file(Path(path), FileEntry(**file))


def check_file(root: Path, entry: FileEntry, *, deep: bool = False) -> None:
    """Checks the size of one file and, if `deep`, its bytes.

    Raises:
        TidemillError: `incomplete-artifact`.
    """
    path = root / entry.name
    size = path.stat().st_size if path.is_file() else None
    if size != entry.bytes:
        raise incomplete_error(path, "no such file" if size is None else f"{size} bytes, {entry.bytes} in the manifest")
    if deep and fingerprint.of_file(path) != entry.fingerprint:
        raise incomplete_error(path, "other bytes than the manifest lists")
