"""The analyzer cache: accumulators of each file of train, so that an analysis over more files reads only the new ones.

A cache entry is a folder. Its name is a hash of everything that its content depends on: the file's content, how the
content becomes tensors, the graph from there to the reduction, the reduction, and the versions of the libraries and of
this package. An entry is written under a temporary name and renamed. Its manifest holds a hash of each file, so
incomplete or damaged entries are ignored. Entries may be removed at any time.

A local root holds the entries in `ROOT/analyzer_cache/<file>/`. On an object store each run writes one archive per file
with its new entries, `ROOT/analyzer_cache/<file>/<random>.tar`. Archives are never changed, and only those of the files
of a run are fetched.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from tidemill import fingerprint, storage
from tidemill.distributions import installed_version

_MANIFEST = "manifest.json"
_FORMAT = 1
_TEMPORARY = "tmp-"
_STALE_S = 24 * 3600.0
_PACKAGES = ("tensorflow", "tensorflow-transform", "tfx-bsl", "numpy", "pyarrow", "duckdb")


class AnalyzerCache:
    """A folder of cache entries. Several processes may use it at the same time.

    Args:
        folder: The folder, which is created if it does not exist.
    """

    def __init__(self, folder: str | os.PathLike):
        self._root = Path(folder)
        self._root.mkdir(parents=True, exist_ok=True)
        for left in self._root.glob(f"{_TEMPORARY}*"):
            # Left by a process that was killed; a live process takes less time than this.
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left)

    def load(self, key: str, read: Callable[[Path], None]) -> bool:
        """Reads an entry.

        Args:
            key: The entry's name.
            read: Called with the entry's folder if the entry exists and is complete.

        Returns:
            Whether the entry was read.
        """
        entry = self._entry(key)
        if not _is_whole(entry):
            return False
        try:
            read(entry)
        except OSError:
            # Another process may have removed the entry.
            return False
        return True

    def save(self, key: str, write: Callable[[Path], None]) -> None:
        """Writes an entry. Replaces an entry that is not complete.

        Args:
            key: The entry's name.
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
            # Fails if another process was faster; its entry is as good.
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
    """Returns the name of an entry.

    Args:
        file: Identifies the file's content. Its entries share a folder, see `file_folder`.
        rows: How the content becomes tensors: `RowSource.fingerprint`.
        graph: How the reduction's tensors are computed from the inputs, including known results of earlier analyzers.
        operation: What the reduction does, as JSON.
        before: For an entry of several files together, the values of `file` for the earlier ones. Defaults to none.
    """
    text = json.dumps([_FORMAT, _versions(), [*before, file], rows, graph, operation], sort_keys=True)
    return f"{file_folder(file)}/{hashlib.sha256(text.encode()).hexdigest()}"


def file_folder(file: str) -> str:
    """Returns the name of the folder with a file's entries."""
    return fingerprint.of_json(file)


@functools.cache
def _versions() -> dict[str, str]:
    """Returns the versions of the packages that compute an entry, and a fingerprint of this package's code."""
    root = Path(__file__).parent
    code = fingerprint.of_json(
        [[p.relative_to(root).as_posix(), fingerprint.of_file(p)] for p in sorted(root.rglob("*.py"))]
    )
    return {"transform": code} | {name: installed_version(name) for name in _PACKAGES}


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
    """Opens the analyzer cache of some files as a local folder. Entries added in the block are kept, even if it raises.

    Args:
        root: URI of the run's root folder.
        files: The files' content fingerprints.
    """
    uri = storage.join(root, "analyzer_cache")
    if (local := storage.local_path(uri)) is not None:
        local.mkdir(parents=True, exist_ok=True)
        yield local
        return
    names = sorted({file_folder(file) for file in files})
    with tempfile.TemporaryDirectory(prefix="tidemill-analyzer-cache-") as temporary:
        folder = Path(temporary)
        for name in names:
            _fetch_archives(storage.join(uri, name), folder / name)
        known = _entries(folder)
        try:
            yield folder
        finally:
            for name in names:
                if new := sorted(_entries(folder / name) - known):
                    _upload_archive(new, storage.join(uri, name))


def _entries(folder: Path) -> set[Path]:
    """Returns the entries' folders at or below a folder."""
    return {path.parent for path in folder.rglob("*") if path.is_file()}


def _fetch_archives(uri: str, folder: Path) -> None:
    for archive in storage.list_files(storage.join(uri, "*.tar")):
        with storage.open_file(archive.uri) as file, tarfile.open(fileobj=file) as entries:
            for entry in filter(tarfile.TarInfo.isfile, entries):
                # The name of an entry's folder and of a file in it. Python 3.11.2, as in Debian, has no extraction
                # filters.
                parent, name = PurePosixPath(entry.name).parts
                if parent in ("/", "..") or name == "..":
                    raise ValueError(f"{archive.uri} holds {entry.name!r}, which is not a file of an entry")
                (folder / parent).mkdir(parents=True, exist_ok=True)
                if (content := entries.extractfile(entry)) is not None:
                    (folder / parent / name).write_bytes(content.read())


def _upload_archive(entries: Sequence[Path], uri: str) -> None:
    with tempfile.TemporaryDirectory(prefix="tidemill-analyzer-cache-") as folder:
        with tarfile.open(Path(folder) / f"{uuid.uuid4().hex}.tar", "w") as archive:
            for entry in entries:
                archive.add(entry, entry.name)
        storage.upload_folder(folder, uri)
