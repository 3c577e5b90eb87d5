"""Files by URI: local paths, `gs://` objects and `pkg://package/path`, files that an installed package brings.

Local paths may be written plainly or as `file://`. `gs://` goes through gcsfs, which honours `STORAGE_EMULATOR_HOST`.
A `pkg://` file is found without importing the package, so that a package with heavy imports costs nothing.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import posixpath
import shutil
import uuid
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlparse

import fsspec

from tidemill.artifacts.artifact import MANIFEST, remove_tree
from tidemill.errors import Code, TidemillError

_GLOB_CHARS = "*?["
_SCHEMES = ("file", "gs", "pkg")


@dataclass(frozen=True)
class FileInfo:
    """A file: its URI, its size, and what changes when its bytes do.

    The version is `md5:…` or `crc32c:…` for objects that the store knows a checksum of, else `generation:…`; for local
    files `stat:…`, which is made of the modification time and the inode and costs nothing to ask.
    """

    uri: str
    bytes: int
    version: str


def join(uri: str, *parts: str) -> str:
    """The URI of something below a folder."""
    return "/".join([uri.rstrip("/") or "/", *(part.strip("/") for part in parts)]).replace("//", "/", uri == "/")


def local_path(uri: str | os.PathLike) -> Path | None:
    """The path behind a URI that lies on this machine (plain, `file://` or `pkg://`); None for an object store.

    Raises:
        TidemillError: `missing-package` when the package of a `pkg://` URI is not installed, `invalid-value` when the
            scheme is none of the known ones.
    """
    uri = os.fspath(uri)
    if "://" not in uri:
        return Path(uri)
    scheme, rest = uri.split("://", 1)
    if scheme not in _SCHEMES:
        want = "write a path, gs://bucket/object or pkg://package/path"
        raise TidemillError(Code.INVALID_VALUE, uri, f"the scheme {scheme!r}", want)
    if scheme == "file":
        return Path(unquote(urlparse(uri).path))
    if scheme == "pkg":
        package, _, inner = rest.partition("/")
        return _package_folder(package) / inner
    return None


def exists(uri: str) -> bool:
    """Whether a file, or a folder with something in it, is there."""
    if (path := local_path(uri)) is not None:
        return path.exists()
    return _gs().exists(uri)


def list_files(uri: str) -> list[FileInfo]:
    """The files that a URI names, sorted by URI.

    Args:
        uri: A file, or a glob with `*`, `?`, `[]` and `**`. A local file whose own name holds such characters is taken
            literally where it exists.

    Returns:
        Empty where nothing matches. Folders are not listed.
    """
    if (path := local_path(uri)) is not None:
        return _list_local(uri, path)
    found = _gs().glob(uri, detail=True) if any(c in uri for c in _GLOB_CHARS) else _gs_info(uri)
    infos = [_object_info(i) for i in found.values() if i["type"] == "file" and not i["name"].endswith("/")]
    return sorted(infos, key=lambda info: info.uri)


def list_folders(uri: str) -> list[str]:
    """Names of the folders directly below a folder, sorted. Empty where there is no such folder."""
    if (path := local_path(uri)) is not None:
        return sorted(p.name for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    try:
        entries = _gs().ls(uri, detail=True)
    except FileNotFoundError:
        return []
    return sorted(posixpath.basename(e["name"].rstrip("/")) for e in entries if e["type"] == "directory")


@contextlib.contextmanager
def open_file(uri: str) -> Iterator[BinaryIO]:
    """Opens a file for reading bytes; seekable.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if (path := local_path(uri)) is not None:
        with path.open("rb") as file:
            yield file
    else:
        with _gs().open(uri, "rb", block_size=16 << 20) as file:
            yield file


def read_text(uri: str) -> str:
    """The file's text, UTF-8.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if (path := local_path(uri)) is not None:
        return path.read_text(encoding="utf-8")
    return _gs().cat_file(uri).decode("utf-8")


def write_text(uri: str, text: str) -> None:
    """Writes a file as a whole, UTF-8: a reader sees the old text or the new one. Makes the folders above it."""
    path = local_path(uri)
    if path is None:
        _gs().pipe_file(uri, text.encode("utf-8"))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def create_text(uri: str, text: str) -> None:
    """Writes a file that must not exist yet, UTF-8: of several writers at once exactly one succeeds.

    Raises:
        FileExistsError: the file is there.
    """
    if (path := local_path(uri)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    else:
        _gs().pipe_file(uri, text.encode("utf-8"), mode="create")


def remove_folder(uri: str, first: str | None = None) -> None:
    """Removes a folder with all files below it; nothing happens where there is none.

    Args:
        uri: The folder.
        first: Name of the file that says that the folder is whole: in an object store it goes before the others.
    """
    if (path := local_path(uri)) is not None:
        remove_tree(path)
        return
    names = _names_below(uri)
    for part in ([n for n in names if n == first], [n for n in names if n != first]):
        if part:
            _gs().rm([join(uri, name) for name in part])


def download_file(uri: str, path: str | os.PathLike) -> None:
    """Copies a file here, in pieces.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with open_file(uri) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, 4 << 20)


def upload_folder(local: str | os.PathLike, uri: str) -> None:
    """Copies a folder to a URI, the manifest last, so that whoever reads it knows when it is whole.

    What lies there and is not in the folder stays.
    """
    root = Path(local)
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    for name in sorted(names, key=lambda n: n == MANIFEST):
        target = join(uri, name)
        if (path := local_path(target)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, path)
        else:
            _gs().put_file(str(root / name), target)


def download_folder(uri: str, local: str | os.PathLike) -> None:
    """Copies all files below a URI into a new local folder, which appears when it is whole.

    Raises:
        FileNotFoundError: nothing lies below the URI.
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
        remove_tree(partial)


def publish_folder(local: str | os.PathLike, uri: str) -> None:
    """Copies a sealed folder to a place where nothing was, as a whole.

    Locally the copy is renamed into place. In an object store the manifest goes last, on the condition that none is
    there; remains of a publication that was killed before its manifest are removed first. Two publications of different
    folders to one `gs://` URI at the same moment meet at the manifest only: give each version a URI of its own.

    Raises:
        FileExistsError: a whole folder is already there.
        TidemillError: `incomplete-artifact` when `local` has no manifest.
    """
    source = Path(local)
    if not (source / MANIFEST).is_file():
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(source), f"no {MANIFEST}", "run the step that made it again")
    if exists(join(uri, MANIFEST)):
        raise FileExistsError(uri)
    if (target := local_path(uri)) is None:
        _publish_objects(source, uri)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        shutil.copytree(source, partial)
        remove_tree(target)
        _rename_new(partial, target)
    finally:
        remove_tree(partial)


def _publish_objects(source: Path, uri: str) -> None:
    fs = _gs()
    if remains := _names_below(uri):
        fs.rm([join(uri, name) for name in remains])
    for path in sorted(p for p in source.rglob("*") if p.is_file() and p != source / MANIFEST):
        fs.put_file(str(path), join(uri, path.relative_to(source).as_posix()))
    fs.pipe_file(join(uri, MANIFEST), (source / MANIFEST).read_bytes(), mode="create")


def _names_below(uri: str) -> list[str]:
    """Names of all files below a folder, relative to it, the manifest last."""
    if (path := local_path(uri)) is not None:
        names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
    else:
        prefix = uri.removeprefix("gs://").rstrip("/") + "/"
        names = [name.removeprefix(prefix) for name in _gs().find(uri)]
    return sorted((n for n in names if n), key=lambda n: (n == MANIFEST, n))


def _rename_new(partial: Path, target: Path) -> None:
    try:
        os.rename(partial, target)
    except OSError as error:
        if target.exists():
            raise FileExistsError(str(target)) from error
        raise


def _list_local(uri: str, path: Path) -> list[FileInfo]:
    if path.is_file():
        return [_stat_info(uri, path)]
    text = str(path)
    if not any(c in text for c in _GLOB_CHARS):
        return []
    paths = sorted({Path(p) for p in glob.glob(text, recursive=True)})
    return [_stat_info(_uri_like(uri, p), p) for p in paths if p.is_file()]


def _stat_info(uri: str, path: Path) -> FileInfo:
    stat = path.stat()
    return FileInfo(uri, stat.st_size, f"stat:{stat.st_mtime_ns}:{stat.st_ino}")


def _uri_like(uri: str, path: Path) -> str:
    """A found file's URI in the scheme of the glob that found it."""
    if uri.startswith("pkg://"):
        package = uri.removeprefix("pkg://").partition("/")[0]
        return f"pkg://{package}/{path.relative_to(_package_folder(package)).as_posix()}"
    return path.as_uri() if uri.startswith("file://") else str(path)


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        got = f"the package {package!r}, which is not installed"
        raise TidemillError(Code.MISSING_PACKAGE, f"pkg://{package}", got, f"run pip install {package}")
    return Path(folders[0])


def _gs() -> fsspec.AbstractFileSystem:
    """gcsfs without its cache of listings: other processes write too."""
    return fsspec.filesystem("gs", use_listings_cache=False)


def _gs_info(uri: str) -> dict[str, dict]:
    try:
        return {uri: _gs().info(uri)}
    except FileNotFoundError:
        return {}


def _object_info(info: dict) -> FileInfo:
    if checksum := info.get("md5Hash"):
        version = f"md5:{b64decode(checksum).hex()}"
    elif checksum := info.get("crc32c"):
        version = f"crc32c:{checksum}"
    else:
        version = f"generation:{info['generation']}"
    return FileInfo(f"gs://{info['name']}", int(info["size"]), version)
