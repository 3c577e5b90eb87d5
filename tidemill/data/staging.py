"""Brings a source file to where DuckDB can read it: a plain, whole, local file.

Compressed text is unpacked here and not by DuckDB, which reads a truncated zstd stream without an error and does not
check the checksum of a gzip stream.
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from pathlib import Path

import pyarrow as pa

from tidemill import storage
from tidemill.data import formats, sources
from tidemill.errors import Code, TidemillError
from tidemill.steps.ingest import SourceFile

_CHUNK = 4 << 20
_GLOB_CHARS = "*?["


class Stage:
    """Files brought near, in a folder of their own.

    Args:
        folder: An empty folder for what has to be downloaded or unpacked.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._count = 0

    def fetch(self, file: SourceFile) -> Path:
        """A local path with the file's plain bytes: the file itself where it is local and not compressed.

        Raises:
            TidemillError: `unreadable-file` when a compressed file is truncated or its checksum does not match.
        """
        uri, member = formats.split_member(file.uri)
        path = storage.local_path(uri)
        name = uri.rsplit("/", 1)[-1]
        if member is not None:
            path, name = self._unzip(file, member), member
        elif path is None:
            path = self._new(name)
            storage.download_file(uri, path)
        while formats.compression(name) is not None:
            path, name = self._unpack(file, path, name), name.rsplit(".", 1)[0]
        if any(c in str(path) for c in _GLOB_CHARS):
            link = self._new("file")
            os.symlink(path.absolute(), link)
            path = link
        return path.absolute()

    def drop(self, path: Path) -> None:
        """Removes what `fetch` made; a source file itself stays."""
        if path.parent == self._folder.absolute():
            path.unlink()

    def _new(self, name: str) -> Path:
        self._count += 1
        ending = "".join(Path(name).suffixes[-1:])
        return self._folder / f"{self._count:06d}{ending}"

    def _unzip(self, file: SourceFile, member: str) -> Path:
        path = self._new("member")
        with (
            sources.open_archive(file.table, file.uri) as archive,
            _unreadable(file),
            archive.open(member) as source,
            path.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, _CHUNK)
        return path

    def _unpack(self, file: SourceFile, path: Path, name: str) -> Path:
        plain = self._new("plain")
        with _unreadable(file), plain.open("wb") as target:
            if formats.compression(name) == ".gz":
                with gzip.open(path) as source:
                    shutil.copyfileobj(source, target, _CHUNK)
            elif formats.compression(name) == ".zst":
                with pa.OSFile(str(path)) as packed, pa.CompressedInputStream(packed, "zstd") as source:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)
            else:
                want = "pack the file once, or name a member that is not itself an archive"
                raise TidemillError(Code.UNSUPPORTED, f"{file.table}: {file.uri}", "an archive in an archive", want)
        self.drop(path)
        return plain


class _unreadable:
    """Turns what decompressors raise into `unreadable-file`; errors of the operating system pass."""

    def __init__(self, file: SourceFile):
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        broken = isinstance(error, gzip.BadGzipFile | EOFError | zlib.error)
        if broken or (isinstance(error, OSError) and error.errno is None):
            where, want = f"{self._file.table}: {self._file.uri}", "replace the file by a whole one"
            raise TidemillError(Code.UNREADABLE_FILE, where, f"a broken compressed file ({error})", want) from error
