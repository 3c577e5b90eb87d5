"""Artifacts on disk: folders that a manifest, written last, makes whole.

A folder without `manifest.json`, or one whose files do not have the sizes that it says, is refused by whoever reads it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tidemill import fingerprint
from tidemill.errors import Code, TidemillError

MANIFEST = "manifest.json"
_REMEDY = "run the step that made it again"


@dataclass(frozen=True)
class FileEntry:
    """One file: its name below the artifact, rows (None where it holds no rows), bytes and content fingerprint."""

    name: str
    rows: int | None
    bytes: int
    fingerprint: str

    @classmethod
    def of(cls, root: Path, name: str, rows: int | None = None) -> FileEntry:
        """The entry of an existing file."""
        path = root / name
        return cls(name, rows, path.stat().st_size, fingerprint.of_file(path))


@contextlib.contextmanager
def write_folder(path: str | os.PathLike, metadata: dict | None = None) -> Iterator[Path]:
    """Writes an artifact as a whole: the block fills a temporary folder, which is then sealed and renamed to `path`.

    When the block raises, nothing is left.

    Args:
        path: Where the artifact will be. What is there is replaced.
        metadata: JSON-serialisable facts for the manifest. The dict may be filled inside the block.

    Yields:
        The folder to write to.
    """
    path = Path(path)
    refuse_file(path)
    partial = path.with_name(path.name + ".partial")
    remove_tree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        seal(partial, metadata)
        remove_tree(path)
        os.replace(partial, path)
    finally:
        remove_tree(partial)


def seal(folder: str | os.PathLike, metadata: dict | None = None) -> str:
    """Writes the manifest of a folder's files.

    Returns:
        The content fingerprint: of the files' names and bytes, not of the metadata.
    """
    root = Path(folder)
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    entries = [FileEntry.of(root, name) for name in names if name != MANIFEST]
    content = fingerprint.of_json([[e.name, e.fingerprint] for e in entries])
    manifest = {"format": 1, "fingerprint": content, "files": [asdict(e) for e in entries], "metadata": metadata or {}}
    write_json(root / MANIFEST, manifest)
    return content


def open_folder(path: str | os.PathLike, *, deep: bool = False) -> dict:
    """Checks that a sealed folder is whole.

    Args:
        path: The artifact.
        deep: Also compare the bytes' fingerprints, not the sizes alone. Defaults to False.

    Returns:
        The manifest: `fingerprint`, `files`, `metadata`.

    Raises:
        TidemillError: `incomplete-artifact`.
    """
    manifest = read_manifest(path)
    if "files" not in manifest:
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(path), f"a {MANIFEST} without files", _REMEDY)
    for file in manifest["files"]:
        check_file(Path(path), FileEntry(**file), deep=deep)
    return manifest


def read_manifest(path: str | os.PathLike) -> dict:
    """The manifest of a finished folder.

    Raises:
        TidemillError: `incomplete-artifact` where it is missing or no manifest.
    """
    file = Path(path) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(path), f"no readable {MANIFEST}", _REMEDY) from error
    if not isinstance(manifest, dict) or not {"fingerprint", "metadata"} <= set(manifest):
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(path), f"a {MANIFEST} of something else", _REMEDY)
    return manifest


def check_files(path: str | os.PathLike) -> None:
    """Checks that the files of a sealed folder or of a dataset have the sizes that its manifest says.

    Raises:
        TidemillError: `incomplete-artifact`.
    """
    manifest = read_manifest(path)
    groups = [manifest, *manifest.get("splits", {}).values()]
    for file in [file for group in groups for file in group.get("files", [])]:
        check_file(Path(path), FileEntry(**file))


def check_file(root: Path, entry: FileEntry, *, deep: bool = False) -> None:
    """Checks one file of a manifest: that it is there with its size, and with `deep` its bytes.

    Raises:
        TidemillError: `incomplete-artifact`.
    """
    path = root / entry.name
    size = path.stat().st_size if path.is_file() else None
    if size != entry.bytes:
        got = "no such file" if size is None else f"{size} bytes where the manifest says {entry.bytes}"
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(path), got, _REMEDY)
    if deep and fingerprint.of_file(path) != entry.fingerprint:
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(path), "other bytes than the manifest says", _REMEDY)


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes JSON under a temporary name and renames it."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def refuse_file(path: Path) -> None:
    """Checks, before the work, that no file and no symbolic link is where a folder is to be written.

    Raises:
        FileExistsError: one is.
    """
    if path.is_symlink() or path.is_file():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def remove_tree(path: Path) -> None:
    """Removes a folder with what is in it; nothing happens where there is none."""
    if path.is_dir():
        shutil.rmtree(path)
