"""What the rows of a file were reduced to, kept on disk, so that an analysis over more files reads only the new ones.

An entry is a folder whose name says all that its content depends on: the file's content, how it becomes tensors, the
graph from there to the reduction, the reduction, and the versions of what computes them. It is written under another
name and renamed, and its manifest holds a hash of each of its files: half an entry, or a damaged one, is not used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import tidemill.transform
from tidemill import fingerprint, storage

_MANIFEST = "manifest.json"
_FORMAT = 1
_TEMPORARY = "tmp-"
_STALE_S = 24 * 3600.0
_PACKAGES = ("tensorflow", "tensorflow-transform", "tfx-bsl", "numpy", "pyarrow", "duckdb")


class AnalyzerCache:
    """A folder of entries. Several processes may use it at a time.

    Args:
        folder: Where the entries are; made where it does not exist.
    """

    def __init__(self, folder: str | os.PathLike):
        self._root = Path(folder)
        self._root.mkdir(parents=True, exist_ok=True)
        for left in self._root.glob(f"{_TEMPORARY}*"):
            # What a process that was killed has left; one that is at work is faster.
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left)

    def load(self, key: str, read: Callable[[Path], None]) -> bool:
        """Reads an entry.

        Args:
            key: Its name.
            read: Called with its folder, if it is there and whole.

        Returns:
            Whether it was read.
        """
        entry = self._entry(key)
        if not _is_whole(entry):
            return False
        try:
            read(entry)
        except OSError:
            # Another process may remove entries.
            return False
        return True

    def save(self, key: str, write: Callable[[Path], None]) -> None:
        """Writes an entry, in place of one that is not whole.

        Args:
            key: Its name.
            write: Called with an empty folder to write files to.
        """
        entry = self._entry(key)
        with self._temporary() as folder:
            write(folder)
            manifest = {path.name: _digest(path) for path in sorted(folder.iterdir())}
            (folder / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
            entry.parent.mkdir(exist_ok=True)
            if entry.exists() and not _is_whole(entry):
                shutil.rmtree(entry)
            # Fails where another process was faster, whose entry is as good.
            with contextlib.suppress(OSError):
                os.rename(folder, entry)

    def _entry(self, key: str) -> Path:
        return self._root / key

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        folder = self._root / f"{_TEMPORARY}{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def entry_key(file: str, rows: str, graph: str, operation: object, before: Sequence[str] = ()) -> str:
    """The name of an entry.

    Args:
        file: What identifies the file's content. Its entries share a folder, see `file_folder`.
        rows: How the content becomes tensors: `RowSource.fingerprint`.
        graph: How the reduction's tensors come from these, known results of earlier analyzers included.
        operation: What the reduction does, as JSON.
        before: The same as `file` of files before it, where the entry is of all of them together. Defaults to none.
    """
    text = json.dumps([_FORMAT, _versions(), [*before, file], rows, graph, operation], sort_keys=True)
    return f"{file_folder(file)}/{hashlib.sha256(text.encode()).hexdigest()}"


def file_folder(file: str) -> str:
    """The name of the folder with a file's entries."""
    return fingerprint.of_json(file)


@functools.cache
def _versions() -> dict[str, str]:
    """Of the packages that compute an entry, and of this one's code."""
    root = Path(tidemill.transform.__file__).parent
    code = fingerprint.of_json(
        [[p.relative_to(root).as_posix(), fingerprint.of_file(p)] for p in sorted(root.rglob("*.py"))]
    )
    return {"transform": code} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _is_whole(entry: Path) -> bool:
    try:
        manifest = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
        return isinstance(manifest, dict) and all(_digest(entry / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def open_analyzer_cache(root: str, files: Sequence[str]) -> Iterator[Path]:
    """A local folder with what is kept of some files. What is added to it in the block is kept, also when it raises.

    Args:
        root: URI of the folder where Tidemill keeps things.
        files: The files' content fingerprints.
    """
    uri = storage.join(root, "analyzer_cache")
    if (local := storage.local_path(uri)) is not None:
        local.mkdir(parents=True, exist_ok=True)
        yield local
        return
    names = sorted({file_folder(file) for file in files})
    with tempfile.TemporaryDirectory(prefix="tidemill-analyzer_cache-") as temporary:
        folder = Path(temporary)
        for name in names:
            _fetch(storage.join(uri, name), folder / name)
        known = _entries(folder)
        try:
            yield folder
        finally:
            for name in names:
                if new := sorted(_entries(folder / name) - known):
                    _keep(new, storage.join(uri, name))


def _entries(folder: Path) -> set[Path]:
    """The entries' folders at or below a folder, which hold files alone."""
    return {path.parent for path in folder.rglob("*") if path.is_file()}


def _fetch(uri: str, folder: Path) -> None:
    for archive in storage.list_files(storage.join(uri, "*.tar")):
        with storage.open_file(archive.uri) as file, tarfile.open(fileobj=file) as entries:
            for entry in filter(tarfile.TarInfo.isfile, entries):
                # An entry's folder and a file in it. Python 3.11.2, as Debian has it, knows no extraction filters.
                parent, name = PurePosixPath(entry.name).parts
                if parent in ("/", "..") or name == "..":
                    raise ValueError(f"{archive.uri} holds {entry.name!r}, which is no entry's file")
                (folder / parent).mkdir(parents=True, exist_ok=True)
                (folder / parent / name).write_bytes(entries.extractfile(entry).read())


def _keep(entries: Sequence[Path], uri: str) -> None:
    with tempfile.TemporaryDirectory(prefix="tidemill-analyzer_cache-") as folder:
        with tarfile.open(Path(folder) / f"{uuid.uuid4().hex}.tar", "w") as archive:
            for entry in entries:
                archive.add(entry, entry.name)
        storage.upload_folder(folder, uri)
