"""What runs keep of each file of train at `ROOT/spans`, for `analysis.spans`.

On this machine that is a folder as the analysis uses it. An object store has instead an archive for each file of train
and each run that found something new in it: `ROOT/spans/<file>/<random>.tar`. Only archives of files that a run
reads are fetched, and archives are never changed. All may be removed at any time.
"""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tidemill import storage
from tidemill.transform.analysis.spans import file_folder


@contextlib.contextmanager
def open_spans(root: str, files: Sequence[str]) -> Iterator[Path]:
    """A local folder with what is kept of some files. What is added to it in the block is kept, also when it raises.

    Args:
        root: URI of the folder where Tidemill keeps things.
        files: The files' content fingerprints.
    """
    uri = storage.join(root, "spans")
    if (local := storage.local_path(uri)) is not None:
        local.mkdir(parents=True, exist_ok=True)
        yield local
        return
    names = sorted({file_folder(file) for file in files})
    with tempfile.TemporaryDirectory(prefix="tidemill-spans-") as temporary:
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
    with tempfile.TemporaryDirectory(prefix="tidemill-spans-") as folder:
        with tarfile.open(Path(folder) / f"{uuid.uuid4().hex}.tar", "w") as archive:
            for entry in entries:
                archive.add(entry, entry.name)
        storage.upload_folder(folder, uri)
