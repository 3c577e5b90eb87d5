"""The predictions artifact: Parquet shards, and the manifest `_SUCCESS`, written last.

part-00000-of-00004.parquet …
_SUCCESS
"""

from __future__ import annotations

import re
from typing import Any, TypedDict

from tidemill import storage

SUCCESS = "_SUCCESS"
_OWN_FILE = re.compile(r"_SUCCESS|part-\d+-of-\d+\.parquet")


class ModelReference(TypedDict):
    """The published version that scored the rows."""

    uri: str
    experiment: str
    fingerprint: str


class PredictionsManifest(TypedDict):
    """The content of `_SUCCESS`."""

    format: int
    rows: int
    columns: dict[str, str]
    """Arrow types as text, by column."""
    inputs: str
    """Fingerprint of the spec, the examples and the model."""
    uri: str
    """URI of the predictions."""
    examples: str
    """Fingerprint of the examples."""
    model: ModelReference
    fingerprint: str
    """Fingerprint of the content."""
    files: list[dict[str, Any]]
    """One `FileEntry` for each shard, in row order."""


def shard_name(shard: int, shards: int) -> str:
    """Returns the file name of a shard; `shard` starts at 0."""
    return f"part-{shard:05d}-of-{shards:05d}.parquet"


def is_own_file(name: str) -> bool:
    """Returns whether predictions have files of this name."""
    return _OWN_FILE.fullmatch(name) is not None


def read(uri: str) -> PredictionsManifest | None:
    """Returns the manifest of predictions whose shards all have the listed sizes; None otherwise."""
    target = storage.join(uri, SUCCESS)
    if not storage.exists(target):
        return None
    manifest: PredictionsManifest = storage.read_json(target)
    sizes = {storage.name_of(f.uri): f.bytes for f in storage.list_files(storage.join(uri, "*.parquet"))}
    return manifest if sizes == {f["name"]: f["bytes"] for f in manifest["files"]} else None
