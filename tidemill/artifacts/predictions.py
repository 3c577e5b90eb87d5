"""The predictions artifact: Parquet shards, and the manifest `_SUCCESS`, written last.

part-00000-of-00004-1f2e3d4c.parquet …    the last characters come from the content
_SUCCESS
"""

from __future__ import annotations

import re
from typing import Any, TypedDict

from tidemill import storage

SUCCESS = "_SUCCESS"
_OWN_FILE = re.compile(r"_SUCCESS|part-\d+-of-\d+(-[0-9a-f]+)?\.parquet")


class ModelReference(TypedDict):
    """The published version that scored the rows."""

    uri: str
    experiment: str
    fingerprint: str


class PredictionsManifest(TypedDict):
    """The content of `_SUCCESS`."""

    format: int
    rows: int
    malformed: dict[str, int]
    """Number of malformed rows that were left out, by table of the source."""
    columns: dict[str, str]
    """Arrow types as text, by column."""
    inputs: str
    """Fingerprint of the spec, the examples, the counts of malformed rows and the model."""
    uri: str
    """URI of the predictions."""
    examples: str
    """Fingerprint of the examples."""
    model: ModelReference
    fingerprint: str
    """Fingerprint of the content."""
    files: list[dict[str, Any]]
    """One `FileEntry` for each shard, in row order."""


def shard_name(shard: int, shards: int, fingerprint: str) -> str:
    """Returns the file name of a shard. Files of one name have the same content, whichever run writes them.

    Args:
        shard: Its number, from 0.
        shards: How many there are.
        fingerprint: Fingerprint of the file.
    """
    return f"part-{shard:05d}-of-{shards:05d}-{fingerprint[:8]}.parquet"


def is_own_file(name: str) -> bool:
    """Returns whether predictions have files of this name."""
    return _OWN_FILE.fullmatch(name) is not None


def read(uri: str) -> PredictionsManifest | None:
    """Returns the manifest of predictions whose shards all have the listed sizes; None otherwise."""
    try:
        manifest: PredictionsManifest = storage.read_json(storage.join(uri, SUCCESS))
    except FileNotFoundError:
        return None
    sizes = {storage.name_of(f.uri): f.bytes for f in storage.list_files(storage.join(uri, "*.parquet"))}
    return manifest if sizes == {f["name"]: f["bytes"] for f in manifest["files"]} else None
