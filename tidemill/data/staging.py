"""Staging: downloads and uncompresses source files, so that DuckDB can read them.

DuckDB does not uncompress them itself, because it reads a truncated zstd stream without an error and ignores the
checksum of a gzip stream.
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from pathlib import Path

import pyarrow as pa

from tidemill import storage
from tidemill.data import source_files
from tidemill.data.source_files import SourceFile
from tidemill.data.source_record import open_archive
from tidemill.errors import Code, TidemillError

_CHUNK = 4 << 20
_GLOB_CHARS = "*?["


class StagingFolder:
    """A folder with downloaded and uncompressed source files.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._count = 0
        self._fetched: dict[str, Path] = {}

    def fetch(self, file: SourceFile) -> Path:
        """Returns a local path to the file's uncompressed bytes: the file itself if it is local and not compressed.

        Raises:
            TidemillError: `unreadable-file` if a compressed file is truncated or its checksum does not match.
        """
        if (known := self._fetched.get(file.uri)) is not None and known.exists():
            return known
        path = self._fetched[file.uri] = self._fetch(file)
        return path

    def _fetch(self, file: SourceFile) -> Path:
        uri, member = source_files.split_member(file.uri)
        path = storage.local_path(uri)
        name = uri.rsplit("/", 1)[-1]
        if member is not None:
            path, name = self._unzip(file, member), member
        elif path is None:
            path = self.new_file(name)
            storage.download_file(uri, path)
        while source_files.compression(name) is not None:
            path, name = self._unpack(file, path, name), name.rsplit(".", 1)[0]
        if any(c in str(path) for c in _GLOB_CHARS):
            link = self.new_file("file")
            os.symlink(path.absolute(), link)
            path = link
        return path.absolute()

    def drop(self, path: Path) -> None:
        """Removes a file that `fetch` created. Does nothing for a source file itself."""
        if path.parent == self._folder.absolute():
            path.unlink()

    def new_file(self, name: str) -> Path:
        """Returns the path of a file that does not exist yet, with the ending of `name`."""
        self._count += 1
        ending = "".join(Path(name).suffixes[-1:])
        return self._folder / f"{self._count:06d}{ending}"

    def _unzip(self, file: SourceFile, member: str) -> Path:
        path = self.new_file("member")
        with (
            open_archive(file.table, file.uri) as archive,
            _unreadable(file),
            archive.open(member) as source,
            path.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, _CHUNK)
        return path

    def _unpack(self, file: SourceFile, path: Path, name: str) -> Path:
        plain = self.new_file("plain")
        with _unreadable(file), plain.open("wb") as target:
            if source_files.compression(name) == ".gz":
                with gzip.open(path) as source:
                    shutil.copyfileobj(source, target, _CHUNK)
            elif source_files.compression(name) == ".zst":
                with pa.OSFile(str(path)) as packed, pa.CompressedInputStream(packed, "zstd") as source:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)
            else:
                want = "compress the file once, or name a member that is not an archive"
                raise TidemillError(Code.UNSUPPORTED, f"{file.table}: {file.uri}", "an archive in an archive", want)
        self.drop(path)
        return plain


class _unreadable:
    """Converts errors of decompressors to `unreadable-file`. Errors of the operating system pass."""

    def __init__(self, file: SourceFile):
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        broken = isinstance(error, gzip.BadGzipFile | EOFError | zlib.error)
        if broken or (isinstance(error, OSError) and error.errno is None):
            where, want = f"{self._file.table}: {self._file.uri}", "replace it with an intact file"
            raise TidemillError(Code.UNREADABLE_FILE, where, f"a damaged compressed file ({error})", want) from error
