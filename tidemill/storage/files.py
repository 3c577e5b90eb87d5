"""Single files by URI: list, read and write them.

`write_text`, `write_json` and `writing` are atomic: a reader sees the old content or the new content, never a part of
it. `gs://` goes through gcsfs, which honors `STORAGE_EMULATOR_HOST`.
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
import posixpath
import shutil
import uuid
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from tidemill.storage.uris import local_path, with_scheme_of

_GLOB_CHARS = "*?["
_BLOCK_BYTES = 16 << 20
_UPLOAD_BYTES = 32 << 20
_COPY_BYTES = 4 << 20


@dataclass(frozen=True)
class FileInfo:
    """A file's URI, its size and its content version.

    The version changes when the bytes change. It is `md5:…` or `crc32c:…` for an object with a stored checksum, else
    `generation:…`. For a local file it is `stat:…`, made of the times of modification and of change and the inode, so
    nothing is read. Programs can set the time of modification, but not that of change.
    """

    uri: str
    bytes: int
    version: str


def exists(uri: str) -> bool:
    """Returns whether a file or a non-empty folder exists."""
    if (path := local_path(uri)) is not None:
        return path.exists()
    return google().exists(uri)


def list_files(uri: str) -> list[FileInfo]:
    """Lists the files that a URI names, sorted by URI.

    Args:
        uri: A file, or a glob with `*`, `?`, `[]` and `**`. If a local file of exactly this name exists, its special
            characters are taken literally.

    Returns:
        The files without folders; empty if nothing matches.
    """
    if (path := local_path(uri)) is not None:
        return _list_local(uri, path)
    is_glob = any(c in uri for c in _GLOB_CHARS)
    objects = cast(dict[str, dict[str, Any]], google().glob(uri, detail=True)) if is_glob else _object(uri)
    infos = [_object_info(i) for i in objects.values() if i["type"] == "file" and not i["name"].endswith("/")]
    return sorted(infos, key=lambda info: info.uri)


def list_folders(uri: str) -> list[str]:
    """Returns the sorted names of the folders directly below a folder; empty if the folder does not exist."""
    if (path := local_path(uri)) is not None:
        return sorted(p.name for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    try:
        entries = google().ls(uri, detail=True)
    except FileNotFoundError:
        return []
    return sorted(posixpath.basename(e["name"].rstrip("/")) for e in entries if e["type"] == "directory")


@contextlib.contextmanager
def open_file(uri: str) -> Iterator[BinaryIO]:
    """Opens a file for reading bytes. The stream is seekable.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    if (path := local_path(uri)) is not None:
        with path.open("rb") as file:
            yield file
    else:
        with google().open(uri, "rb", block_size=_BLOCK_BYTES) as file:
            yield cast(BinaryIO, file)


def read_text(uri: str | os.PathLike[str]) -> str:
    """Returns the UTF-8 text of a file.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    if (path := local_path(uri)) is not None:
        return path.read_text(encoding="utf-8")
    return cast(bytes, google().cat_file(os.fspath(uri))).decode("utf-8")


def read_json(uri: str | os.PathLike[str]) -> Any:
    """Returns the value of a JSON file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not JSON.
    """
    return json.loads(read_text(uri))


def write_text(uri: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 file atomically. Creates the folders above it."""
    if (path := local_path(uri)) is None:
        google().pipe_file(os.fspath(uri), text.encode("utf-8"))
        return
    with _replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def json_text(value: object) -> str:
    """Returns a value as the JSON text that `write_json` writes."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def write_json(uri: str | os.PathLike[str], value: object) -> None:
    """Writes a JSON file atomically, indented by one space. Creates the folders above it."""
    write_text(uri, json_text(value))


def create_text(uri: str, text: str) -> None:
    """Creates a UTF-8 file. If several writers call this at once, exactly one succeeds.

    Raises:
        FileExistsError: The file exists.
    """
    if (path := local_path(uri)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    else:
        google().pipe_file(uri, text.encode("utf-8"), mode="create")


@contextlib.contextmanager
def writing(uri: str) -> Iterator[BinaryIO]:
    """Opens a file for writing bytes, which are uploaded while they are written. Creates the folders above it.

    The file appears when the block ends. If the block raises, nothing is left.

    Raises:
        OSError: The file cannot be written. The error names the file.
    """
    if (path := local_path(uri)) is None:
        file: Any = google().open(uri, "wb", block_size=_UPLOAD_BYTES)
        try:
            yield file
            file.close()
        finally:
            # After an error, gcsfs must not complete the upload when the object is deleted. The store forgets it.
            file.closed = True
        return
    try:
        with _replacing(path) as partial, partial.open("wb") as stream:
            yield stream
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copies a local file atomically. Creates the folders above the target."""
    with _replacing(Path(target)) as partial:
        shutil.copyfile(source, partial)


def download_file(uri: str, path: str | os.PathLike[str]) -> None:
    """Copies a file to a local path, 4 MiB at a time.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    with open_file(uri) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, _COPY_BYTES)


class _OncePerMessage(logging.Filter):
    """A filter that lets each message through once. gcsfs repeats some of its warnings for every file."""

    def __init__(self):
        super().__init__()
        self._messages: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in self._messages
        self._messages.add(message)
        return is_new


_once_per_message = _OncePerMessage()


def google() -> fsspec.AbstractFileSystem:
    """Returns gcsfs without its cache of listings, because other processes write to the same buckets."""
    logging.getLogger("gcsfs").addFilter(_once_per_message)
    return fsspec.filesystem("gs", use_listings_cache=False)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _list_local(uri: str, path: Path) -> list[FileInfo]:
    if path.is_file():
        return [_stat_info(uri, path)]
    text = str(path)
    if not any(c in text for c in _GLOB_CHARS):
        return []
    paths = sorted({Path(p) for p in glob.glob(text, recursive=True)})
    return [_stat_info(with_scheme_of(uri, p), p) for p in paths if p.is_file()]


def _stat_info(uri: str, path: Path) -> FileInfo:
    stat = path.stat()
    return FileInfo(uri, stat.st_size, f"stat:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}")


def _object(uri: str) -> dict[str, dict[str, Any]]:
    try:
        return {uri: google().info(uri)}
    except FileNotFoundError:
        return {}


def _object_info(info: dict[str, Any]) -> FileInfo:
    if checksum := info.get("md5Hash"):
        version = f"md5:{b64decode(checksum).hex()}"
    elif checksum := info.get("crc32c"):
        version = f"crc32c:{checksum}"
    else:
        version = f"generation:{info['generation']}"
    return FileInfo(f"gs://{info['name']}", int(info["size"]), version)
