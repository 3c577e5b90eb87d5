"""Whole folders by URI: remove, upload, download and publish them.

A folder is whole when its manifest, `manifest.json`, exists. Every function here that writes a folder writes the
manifest last, and every function that removes one from an object store can remove its marker file first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path

from tidemill.storage.files import download_file, exists, google
from tidemill.storage.uris import join, local_path

MANIFEST = "manifest.json"


def refuse_file(path: Path) -> None:
    """Checks that a path is free for a folder: no file and no symbolic link is there.

    Raises:
        FileExistsError: There is one.
    """
    if path.is_symlink() or path.is_file():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def remove_folder(uri: str | os.PathLike[str], first: str | None = None, keep: Collection[str] = ()) -> None:
    """Removes a folder with all files below it. Does nothing if the folder does not exist.

    Args:
        uri: The folder.
        first: Name of the file that marks the folder as whole. In an object store it is removed before the others.
            Defaults to none.
        keep: Names of files that stay in an object store. Defaults to none.
    """
    if (path := local_path(uri)) is not None:
        if path.is_dir():
            shutil.rmtree(path)
        return
    uri = os.fspath(uri)
    names = [name for name in _names_below(uri) if name not in keep]
    for batch in ([n for n in names if n == first], [n for n in names if n != first]):
        if batch:
            with contextlib.suppress(FileNotFoundError):  # removed at the same time
                google().rm([join(uri, name) for name in batch])


def upload_folder(local: str | os.PathLike[str], uri: str) -> None:
    """Copies a local folder to a URI, the manifest last. Other files at the URI stay."""
    root = Path(local)
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    for name in sorted(names, key=lambda n: n == MANIFEST):
        target = join(uri, name)
        if (path := local_path(target)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, path)
        else:
            google().put_file(str(root / name), target)


def download_folder(uri: str, local: str | os.PathLike[str]) -> None:
    """Copies all files below a URI into a new local folder, which appears when it is whole.

    Raises:
        FileNotFoundError: There is no file below the URI.
        FileExistsError: `local` exists and is not empty.
    """
    target = Path(local)
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    try:
        names = _names_below(uri)
        if not names:
            raise FileNotFoundError(uri)
        for name in names:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            download_file(join(uri, name), partial / name)
        _rename_new(partial, target)
    finally:
        remove_folder(partial)


def publish_folder(local: str | os.PathLike[str], uri: str) -> None:
    """Copies a folder with a manifest to a URI where no whole folder exists yet.

    Files that a killed publication left there are removed first. On a local disk the copy is renamed into place. In an
    object store the manifest is created last, on the condition that none exists. Two publications to the same `gs://`
    URI at the same moment would mix their other files, so give each version a URI of its own.

    Raises:
        FileExistsError: A whole folder exists at the URI.
        FileNotFoundError: `local` has no manifest.
    """
    source = Path(local)
    if not (source / MANIFEST).is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source / MANIFEST))
    if exists(join(uri, MANIFEST)):
        raise FileExistsError(uri)
    if (target := local_path(uri)) is None:
        _publish_objects(source, uri)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        shutil.copytree(source, partial)
        remove_folder(target)
        _rename_new(partial, target)
    finally:
        remove_folder(partial)


def _publish_objects(source: Path, uri: str) -> None:
    remove_folder(uri)
    for path in sorted(p for p in source.rglob("*") if p.is_file() and p != source / MANIFEST):
        google().put_file(str(path), join(uri, path.relative_to(source).as_posix()))
    google().pipe_file(join(uri, MANIFEST), (source / MANIFEST).read_bytes(), mode="create")


def _names_below(uri: str) -> list[str]:
    """Returns the names of all files below a folder, relative to it, the manifest last."""
    if (path := local_path(uri)) is not None:
        names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
    else:
        prefix = uri.removeprefix("gs://").rstrip("/") + "/"
        names = [name.removeprefix(prefix) for name in google().find(uri)]
    return sorted((n for n in names if n), key=lambda n: (n == MANIFEST, n))


def _rename_new(partial: Path, target: Path) -> None:
    try:
        os.rename(partial, target)
    except OSError as error:
        if target.exists():
            raise FileExistsError(str(target)) from error
        raise
