"""The raw input of a run: which files it is made of, and what they hold, recorded so that the run can be repeated."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tidemill import fingerprint, storage
from tidemill.data import formats
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Source
from tidemill.steps.ingest import SourceFile, SourceRecord

_RACY_S = 2.0
"""A file changed this recently may change again within one tick of the clock, so its hash is not remembered."""
_MEMO_ENTRIES = 50_000


def record(source: Source) -> SourceRecord:
    """Finds the source's files and fingerprints what they hold.

    The record's fingerprint is of the tables' names and of their files' formats, partition values and bytes; neither of
    the URIs nor of the files' order. Hashes of local files are remembered by path, size, time and inode.

    Returns:
        The files, sorted by table and URI; a zip file with its member (`a.zip#b.csv`) also where that is the only one.

    Raises:
        TidemillError: `missing-file` for a URI that names nothing, `over-budget` when the files together exceed
            `max_bytes` (nothing is read then), `invalid-value` for an ending that does not tell the format or an
            archive of several files, `unreadable-file` for a broken archive, `missing-package` for a `pkg://` URI.
    """
    found = [(name, uri, info) for name, table in source.tables.items() for uri, info in _expand(name, table.uri)]
    total = sum(info.bytes for _, _, info in found)
    if source.max_bytes is not None and total > source.max_bytes:
        got = f"{total:,} bytes in {len(found)} files, more than {source.max_bytes:,}"
        details = {"bytes": total, "max_bytes": source.max_bytes, "files": len(found)}
        raise TidemillError(Code.OVER_BUDGET, "source.max_bytes", got, "raise max_bytes or name fewer files", details)
    files = []
    for table, uri, info in found:
        if formats.compression(info.uri) == ".zip":
            uri = _with_member(table, uri)
        formats.of_file(table, source.tables[table].format, uri)
        files.append(SourceFile(table=table, uri=uri, bytes=info.bytes, version=version(info)))
    files.sort(key=lambda f: (f.table, f.uri))
    return SourceRecord(fingerprint=_fingerprint(files), files=files)


def save_record(root: str, record: SourceRecord) -> None:
    """Keeps a record at `root/sources/<fingerprint>.json`; an older record of the same content is replaced."""
    storage.write_text(_record_uri(root, record.fingerprint), record.model_dump_json(indent=1) + "\n")


def load_record(root: str, fingerprint: str) -> SourceRecord:
    """The record with this fingerprint.

    Raises:
        TidemillError: `missing-file` when `root` has no such record.
    """
    uri = _record_uri(root, fingerprint)
    try:
        return SourceRecord.model_validate_json(storage.read_text(uri))
    except FileNotFoundError as error:
        want = "run the plan step with the same root"
        raise TidemillError(Code.MISSING_FILE, uri, "no source record there", want) from error


def check_unchanged(file: SourceFile) -> None:
    """Checks that a recorded file still holds what it held.

    Raises:
        TidemillError: `source-changed`; also when the file is gone.
    """
    archive, _ = formats.split_member(file.uri)
    infos = storage.list_files(archive)
    if not infos:
        got = "a file that is gone"
    elif infos[0].bytes != file.bytes:
        got = f"{infos[0].bytes:,} bytes where {file.bytes:,} were recorded"
    elif version(infos[0]) != file.version:
        got = "other bytes than were recorded"
    else:
        return
    raise TidemillError(Code.SOURCE_CHANGED, f"{file.table}: {file.uri}", got, "plan the run again", {"uri": file.uri})


def version(info: storage.FileInfo) -> str:
    """What changes when the file's bytes do: the store's checksum or generation, for local files `md5:…`."""
    path = storage.local_path(info.uri)
    if path is None:
        return info.version
    key = f"{path.absolute()}|{info.bytes}|{info.version}"
    memo = _read_memo()
    if key not in memo:
        with path.open("rb") as file:
            memo[key] = "md5:" + hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if time.time() - path.stat().st_mtime > _RACY_S:
            _write_memo(memo)
    return memo[key]


def _expand(table: str, uris: str | list[str]) -> list[tuple[str, storage.FileInfo]]:
    """Each file of a table once: its URI with the archive's member, and its facts."""
    found: dict[str, storage.FileInfo] = {}
    for uri in [uris] if isinstance(uris, str) else uris:
        archive, member = formats.split_member(uri)
        infos = storage.list_files(archive)
        if not infos:
            raise TidemillError(Code.MISSING_FILE, f"source.tables.{table}", *_nothing_found(archive))
        for info in infos:
            found[info.uri if member is None else f"{info.uri}#{member}"] = info
    return list(found.items())


def _nothing_found(uri: str) -> tuple[str, str]:
    path = storage.local_path(uri)
    if path is not None and path.is_dir():
        return f"{uri!r}, which is a folder", f"name its files, for example {uri.rstrip('/')}/**/*.parquet"
    if path is not None and path.parent.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
        if near:
            return f"{uri!r}, which names no file", f"did you mean {near[0]!r}"
    return f"{uri!r}, which names no file", "name a file that exists, or a glob that matches one"


def _with_member(table: str, uri: str) -> str:
    with open_archive(table, uri) as archive:
        return f"{formats.split_member(uri)[0]}#{_member(archive, table, uri)}"


@contextlib.contextmanager
def open_archive(table: str, uri: str) -> Iterator[zipfile.ZipFile]:
    """Opens the zip file of a URI, whose member does not matter.

    Yields:
        A `zipfile.ZipFile`.

    Raises:
        TidemillError: `unreadable-file` when it is no zip file, or a member's bytes turn out to be broken.
    """
    try:
        with storage.open_file(formats.split_member(uri)[0]) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        want = "replace the file by a whole one"
        raise TidemillError(Code.UNREADABLE_FILE, f"{table}: {uri}", f"a broken zip file ({error})", want) from error


def _member(archive: zipfile.ZipFile, table: str, uri: str) -> str:
    """The member that a URI chooses, or the only one."""
    names = [i.filename for i in archive.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
    _, member = formats.split_member(uri)
    if member is None and len(names) == 1:
        return names[0]
    if member is None:
        got = f"an archive of {len(names)} files ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
        raise TidemillError(Code.INVALID_VALUE, f"source.tables.{table}", got, f"choose one: {uri}#member")
    if member not in names:
        near = difflib.get_close_matches(member, names, n=1)
        want = f"did you mean {near[0]!r}" if near else f"choose one of {', '.join(names[:5])}"
        got = f"{uri!r}, and the archive has no such file"
        raise TidemillError(Code.MISSING_FILE, f"source.tables.{table}", got, want)
    return member


def _fingerprint(files: list[SourceFile]) -> str:
    """A file's base name stays out, except for what it says about the format."""
    parts = []
    for file in files:
        archive, member = formats.split_member(file.uri)
        kind = [formats.of_name(member or archive), formats.compression(archive), member]
        parts.append([file.table, kind, formats.partitions(file.uri), file.bytes, file.version])
    return fingerprint.of_json(sorted(parts, key=json.dumps))


def _record_uri(root: str, fingerprint: str) -> str:
    return storage.join(root, "sources", f"{fingerprint}.json")


def _memo_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tidemill" / "fingerprints.json"


def _read_memo() -> dict[str, str]:
    try:
        memo = json.loads(_memo_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return memo if isinstance(memo, dict) else {}


def _write_memo(memo: dict[str, str]) -> None:
    """Remembers hashes where the cache folder can be written; elsewhere files are hashed each time."""
    newest = dict(list(memo.items())[-_MEMO_ENTRIES:])
    with contextlib.suppress(OSError):
        storage.write_text(str(_memo_path()), json.dumps(newest))
