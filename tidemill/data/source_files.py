"""Source files: what their URIs say, and groups of files that one scan can read.

A URI contains a file's format, its compression, the member of an archive and the values of Hive partitions.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from tidemill.errors import Code, TidemillError
from tidemill.section import Section

_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_SHEETS = (".xlsx", ".xls", ".ods")
_COMPRESSIONS = (".gz", ".zip", ".zst")
_PARTITION = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_MEMBER = re.compile(r"(.*?\.zip)#(.*)", re.IGNORECASE | re.DOTALL)
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


class SourceFile(Section):
    """An input file as planning recorded it."""

    table: str
    """The table that the file belongs to."""
    uri: str
    """URI of the file, without glob characters. `pkg://` URIs and zip members keep their form."""
    bytes: int
    """Size as stored, in bytes."""
    version: str
    """The file's content version: a content fingerprint for local files, the generation for `gs://` objects."""


StagedFiles = list[tuple[Path, SourceFile]]
"""Source files, each with the local path of its uncompressed bytes."""


def split_member(uri: str) -> tuple[str, str | None]:
    """Splits the URI of a zip file's member.

    Returns:
        `("a.zip", "b.csv")` for `a.zip#b.csv`; `(uri, None)` for any other URI, in which `#` is part of the name.
    """
    match = _MEMBER.fullmatch(uri)
    return (match[1], match[2]) if match else (uri, None)


def compression(name: str) -> str | None:
    """Returns the compression that a file name ends with: `.gz`, `.zip` or `.zst`. None if there is none."""
    ending = posixpath.splitext(name)[1].lower()
    return ending if ending in _COMPRESSIONS else None


def format_from_name(name: str) -> str | None:
    """Returns the format of a file name's ending, without compression. None for an unknown ending."""
    while compression(name):
        name = posixpath.splitext(name)[0]
    return _FORMATS.get(posixpath.splitext(name)[1].lower())


def file_format(table: str, declared: str, uri: str) -> str:
    """Returns the format of a table's file: the declared one, or, with `auto`, the one of the file's name.

    Raises:
        TidemillError: `invalid-value` if the format is `auto` and the ending is unknown.
    """
    if declared != "auto":
        return declared
    archive, member = split_member(uri)
    detected = format_from_name(member or archive)
    if detected is None:
        got = f"'auto' for the unknown ending of {posixpath.basename(uri)!r}"
        where, want = f"source.tables.{table}.format", "write csv, tsv, jsonl or parquet"
        if posixpath.splitext(uri)[1].lower() in _SHEETS:
            want = "export the sheet as CSV, and name that file"
        raise TidemillError(Code.INVALID_VALUE, where, got, want)
    return detected


def partition_values(uri: str) -> dict[str, str | None]:
    """Returns the values of the `name=value` folders above a file, in their order.

    Example:
        >>> partition_values("gs://b/flights/year=2013/month=01/part-0.parquet")
        {'year': '2013', 'month': '01'}
    """
    folders = split_member(uri)[0].split("/")[:-1]
    matches = (_PARTITION.fullmatch(folder) for folder in folders)
    values = {m[1]: unquote(m[2]) for m in matches if m}
    return {name: None if value == _HIVE_NULL else value for name, value in values.items()}


@dataclass(frozen=True)
class FileGroup:
    """Files with the same columns in the same order and the same partition values.

    Attributes:
        columns: The files' columns.
        partition: The partition's values by column name, without columns that the files hold themselves.
        files: The files with their local paths.
    """

    columns: tuple[str, ...]
    partition: tuple[tuple[str, str | None], ...]
    files: tuple[tuple[Path, SourceFile], ...]

    @property
    def paths(self) -> list[str]:
        """The local paths of the files."""
        return [str(path) for path, _ in self.files]

    @property
    def uris(self) -> dict[str, str]:
        """The source URI of each local path."""
        return {str(path): file.uri for path, file in self.files}


def group_files(staged: StagedFiles, columns: Iterable[tuple[str, ...]]) -> list[FileGroup]:
    """Groups adjacent files that have the same columns and partition values.

    Args:
        staged: Files with their local paths.
        columns: The columns of each file.
    """

    def group_key(
        item: tuple[tuple[Path, SourceFile], tuple[str, ...]],
    ) -> tuple[tuple[str, ...], tuple[tuple[str, str | None], ...]]:
        (_, file), names = item
        return names, tuple((k, v) for k, v in partition_values(file.uri).items() if k not in names)

    grouped = itertools.groupby(zip(staged, columns, strict=True), key=group_key)
    return [FileGroup(names, partition, tuple(file for file, _ in items)) for (names, partition), items in grouped]
