"""Source records: the files of a source with their content versions, so that a run can be repeated."""

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
from tidemill.data import source_files
from tidemill.data.source_files import SourceFile
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Source
from tidemill.section import Section

_RACY_S = 2.0
"""Age in seconds below which a file's hash is not kept: the file may change again within one tick of the clock."""
_MAX_HASHES = 50_000


class SourceRecord(Section):
    """The source record: all input files of a run.

    It is kept at `ROOT/sources/<fingerprint>.json`, so that the run can be recomputed.
    """

    fingerprint: str
    files: list[SourceFile]


def record(source: Source) -> SourceRecord:
    """Lists the source's files and fingerprints their content.

    The record's fingerprint covers the tables' names and the files' formats, partition values and bytes, but not their
    URIs and their order. Hashes of local files are cached by path, size, inode, and the times of modification
    and of change.

    Returns:
        The files, sorted by table and URI. A zip file always carries its member (`a.zip#b.csv`).

    Raises:
        TidemillError: `missing-file` for a URI that matches no file, `over-budget` if the files exceed `max_bytes`
            (before any file is read), `invalid-value` for an unknown file name ending or an archive of several files,
            `unreadable-file` for a damaged archive, `missing-package` for a `pkg://` URI.
    """
    listed = [(name, uri, info) for name, table in source.tables.items() for uri, info in _expand(name, table.uri)]
    total = sum(info.bytes for _, _, info in listed)
    if source.max_bytes is not None and total > source.max_bytes:
        got = f"{total:,} bytes in {len(listed)} files, more than {source.max_bytes:,}"
        details = {"bytes": total, "max_bytes": source.max_bytes, "files": len(listed)}
        raise TidemillError(Code.OVER_BUDGET, "source.max_bytes", got, "raise max_bytes or name fewer files", details)
    files = []
    for table, uri, info in listed:
        if source_files.compression(info.uri) == ".zip":
            uri = _with_member(table, uri)
        source_files.file_format(table, source.tables[table].format, uri)
        files.append(SourceFile(table=table, uri=uri, bytes=info.bytes, version=version(info)))
    files.sort(key=lambda f: (f.table, f.uri))
    return SourceRecord(fingerprint=_fingerprint(files), files=files)


def save_record(root: str, record: SourceRecord) -> None:
    """Writes a record to `root/sources/<fingerprint>.json`. Replaces an older record of the same content."""
    storage.write_text(_record_uri(root, record.fingerprint), record.model_dump_json(indent=1) + "\n")


def load_record(root: str, fingerprint: str) -> SourceRecord:
    """Reads the record with this fingerprint.

    Raises:
        TidemillError: `missing-file` if `root` has no such record.
    """
    uri = _record_uri(root, fingerprint)
    try:
        return SourceRecord.model_validate_json(storage.read_text(uri))
    except FileNotFoundError as error:
        want = "run the plan step with the same root"
        raise TidemillError(Code.MISSING_FILE, uri, "no source record there", want) from error


def check_unchanged(file: SourceFile) -> None:
    """Checks that a recorded file has not changed.

    Raises:
        TidemillError: `source-changed` if the file has changed or is gone.
    """
    archive, _ = source_files.split_member(file.uri)
    infos = storage.list_files(archive)
    if not infos:
        got = "a file that is gone"
    elif infos[0].bytes != file.bytes:
        got = f"{infos[0].bytes:,} bytes instead of the recorded {file.bytes:,}"
    elif version(infos[0]) != file.version:
        got = "content that differs from the record"
    else:
        return
    raise TidemillError(Code.SOURCE_CHANGED, f"{file.table}: {file.uri}", got, "plan the run again", {"uri": file.uri})


def version(info: storage.FileInfo) -> str:
    """Returns a file's content version: the store's checksum or generation, or `md5:…` for local files."""
    path = storage.local_path(info.uri)
    if path is None:
        return info.version
    key = f"{path.absolute()}|{info.bytes}|{info.version}"
    hashes = _read_hashes()
    if key not in hashes:
        with path.open("rb") as file:
            hashes[key] = "md5:" + hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        stat = path.stat()
        if time.time() - max(stat.st_mtime, stat.st_ctime) > _RACY_S:
            _write_hashes(hashes)
    return hashes[key]


def _expand(table: str, uris: str | list[str]) -> list[tuple[str, storage.FileInfo]]:
    """Lists each file of a table once: its URI, with the archive's member, and its size and version."""
    listed: dict[str, storage.FileInfo] = {}
    for uri in [uris] if isinstance(uris, str) else uris:
        archive, member = source_files.split_member(uri)
        infos = storage.list_files(archive)
        if not infos:
            raise TidemillError(Code.MISSING_FILE, f"source.tables.{table}", *no_match(archive))
        for info in infos:
            listed[info.uri if member is None else f"{info.uri}#{member}"] = info
    return list(listed.items())


def no_match(uri: str) -> tuple[str, str]:
    """Returns what was received and what to do, for a URI that names no file."""
    path = storage.local_path(uri)
    if "~" in uri.split("/"):
        return f"{uri!r}, which matches no file", "write the path in full; ~ is not replaced"
    if path is not None and path.is_dir():
        return f"{uri!r}, which is a folder", f"name its files, such as {uri.rstrip('/')}/**/*.parquet"
    if path is not None and path.parent.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
        if near:
            return f"{uri!r}, which matches no file", f"did you mean {near[0]!r}"
    return f"{uri!r}, which matches no file", "name an existing file, or a glob that matches one"


def _with_member(table: str, uri: str) -> str:
    with open_archive(table, uri) as archive:
        return f"{source_files.split_member(uri)[0]}#{_member(archive, table, uri)}"


@contextlib.contextmanager
def open_archive(table: str, uri: str) -> Iterator[zipfile.ZipFile]:
    """Opens the zip file of a URI, with or without a member.

    Raises:
        TidemillError: `unreadable-file` if the file is not a zip file, or if the block reads damaged bytes.
    """
    try:
        with storage.open_file(source_files.split_member(uri)[0]) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        want = "replace it with an intact file"
        raise TidemillError(Code.UNREADABLE_FILE, f"{table}: {uri}", f"a damaged zip file ({error})", want) from error


def _member(archive: zipfile.ZipFile, table: str, uri: str) -> str:
    """Returns the member that a URI names, or the only member."""
    names = [i.filename for i in archive.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
    _, member = source_files.split_member(uri)
    if member is None and len(names) == 1:
        return names[0]
    if member is None:
        got = f"an archive of {len(names)} files ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
        raise TidemillError(Code.INVALID_VALUE, f"source.tables.{table}", got, f"choose one: {uri}#member")
    if member not in names:
        near = difflib.get_close_matches(member, names, n=1)
        want = f"did you mean {near[0]!r}" if near else f"choose one of {', '.join(names[:5])}"
        got = f"{uri!r}, which the archive does not contain"
        raise TidemillError(Code.MISSING_FILE, f"source.tables.{table}", got, want)
    return member


def _fingerprint(files: list[SourceFile]) -> str:
    """Fingerprints the files. Of a file's base name only the format counts."""
    parts = []
    for file in files:
        archive, member = source_files.split_member(file.uri)
        kind = [source_files.format_from_name(member or archive), source_files.compression(archive), member]
        parts.append([file.table, kind, source_files.partition_values(file.uri), file.bytes, file.version])
    return fingerprint.of_json(sorted(parts, key=json.dumps))


def _record_uri(root: str, fingerprint: str) -> str:
    return storage.join(root, "sources", f"{fingerprint}.json")


def _hashes_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tidemill" / "fingerprints.json"


def _read_hashes() -> dict[str, str]:
    try:
        hashes = json.loads(_hashes_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return hashes if isinstance(hashes, dict) else {}


def _write_hashes(hashes: dict[str, str]) -> None:
    """Caches hashes. If the cache folder cannot be written, files are hashed again each time."""
    newest = dict(list(hashes.items())[-_MAX_HASHES:])
    with contextlib.suppress(OSError):
        storage.write_text(str(_hashes_path()), json.dumps(newest))
