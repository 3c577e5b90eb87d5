"""What a file's name says: its format, its compression, the member of an archive, the values of Hive partitions."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

from tidemill.errors import Code, TidemillError

_ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSIONS = (".gz", ".zip", ".zst")
_PARTITION = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def split_member(uri: str) -> tuple[str, str | None]:
    """`a.zip#b.csv` to `("a.zip", "b.csv")`; other URIs, where `#` is a character of the name, to `(uri, None)`."""
    archive, mark, member = uri.partition(".zip#")
    return (f"{archive}.zip", member) if mark else (uri, None)


def compression(name: str) -> str | None:
    """`.gz`, `.zip` or `.zst`, or None."""
    ending = posixpath.splitext(name)[1].lower()
    return ending if ending in _COMPRESSIONS else None


def of_name(name: str) -> str | None:
    """The format that a file name's ending means, compression apart; None where it means none."""
    while compression(name):
        name = posixpath.splitext(name)[0]
    return _ENDINGS.get(posixpath.splitext(name)[1].lower())


def of_file(table: str, declared: str, uri: str) -> str:
    """The format of a table's file: as declared, or with `auto` by its name.

    Raises:
        TidemillError: `invalid-value` when `auto` cannot tell.
    """
    if declared != "auto":
        return declared
    archive, member = split_member(uri)
    found = of_name(member or archive)
    if found is None:
        got = f"'auto', and the ending of {posixpath.basename(uri)!r} does not tell"
        where, want = f"source.tables.{table}.format", "write csv, tsv, jsonl or parquet"
        raise TidemillError(Code.INVALID_VALUE, where, got, want)
    return found


def partitions(uri: str) -> dict[str, str | None]:
    """The values that the `name=value` folders above a file give, in their order.

    Example:
        >>> partitions("gs://b/flights/year=2013/month=01/part-0.parquet")
        {'year': '2013', 'month': '01'}
    """
    folders = split_member(uri)[0].split("/")[:-1]
    matches = (_PARTITION.fullmatch(folder) for folder in folders)
    values = {m[1]: unquote(m[2]) for m in matches if m}
    return {name: None if value == _HIVE_NULL else value for name, value in values.items()}
