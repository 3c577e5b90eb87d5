"""Examples on disk: Parquet shards for each split, and a manifest.

    {train,valid,test}/part-00000.parquet …
    manifest.json

The manifest is written last. A folder without a manifest is not a dataset, and a dataset is refused if a file does not
have the size that the manifest lists.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill import fingerprint, storage
from tidemill.artifacts.artifact import MANIFEST, FileEntry, check_file, incomplete_error, read_manifest
from tidemill.artifacts.shard_file import ByteBudget, ShardFile

SPLITS = ("train", "valid", "test")
ROW_GROUP_ROWS = 1 << 16
SHARD_ROWS = 1 << 20
COMPRESSION = "zstd"
_BYTES_IN_FLIGHT = 256 << 20
_FILES_IN_FLIGHT = 4
NULL_WORDS = "null_words"
"""The entry of the metadata with the share of the rows of a text column that are a default null word, by table, column
and word. Only shares of at least 1 %."""
MALFORMED = "malformed"
"""The entry of the metadata with the number of malformed rows that were left out, by table. Without tables that have
none."""


def numbers_writer(path: str | os.PathLike[str], schema: pa.Schema) -> pq.ParquetWriter:
    """Returns a Parquet writer for four-byte numbers that training reads once an epoch.

    It splits values into byte streams, which takes half as long as building dictionaries, and compresses with LZ4:
    files are read in a third less time than with zstd, and are 1.4 times as large.
    """
    return pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False, use_byte_stream_split=True)


@dataclass(frozen=True)
class SplitEntry:
    """One split of a manifest: its size, its fingerprint and its shards in row order."""

    rows: int
    bytes: int
    fingerprint: str
    files: tuple[FileEntry, ...]


class Dataset:
    """A whole dataset, opened for reading.

    Args:
        path: The dataset's folder.

    Attributes:
        columns: Arrow types as text, by column.
        fingerprint: Of the content: columns and rows.
        metadata: Further facts of the step that wrote the dataset.
        splits: Manifest entries by split.

    Raises:
        TidemillError: `incomplete-artifact` if the manifest or a shard is missing, or a shard has another size.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        manifest = read_manifest(self.path)
        if not {"columns", "splits"} <= set(manifest):
            raise incomplete_error(self.path, "an artifact without splits")
        self.columns: dict[str, str] = manifest["columns"]
        self.fingerprint: str = manifest["fingerprint"]
        self.metadata: dict[str, Any] = manifest["metadata"]
        self.splits: dict[str, SplitEntry] = {
            name: SplitEntry(s["rows"], s["bytes"], s["fingerprint"], tuple(FileEntry(**f) for f in s["files"]))
            for name, s in manifest["splits"].items()
        }
        for split in self.splits.values():
            for entry in split.files:
                check_file(self.path, entry)

    def files(self, split: str) -> list[Path]:
        """Returns the shards of a split in row order; empty if the dataset does not have the split."""
        entry = self.splits.get(split)
        return [self.path / f.name for f in entry.files] if entry else []

    def rows(self, split: str) -> int:
        """Returns the number of rows of a split; 0 if the dataset does not have it."""
        entry = self.splits.get(split)
        return entry.rows if entry else 0

    def schema(self) -> pa.Schema:
        """Returns the Arrow schema that all shards share.

        Raises:
            TidemillError: `incomplete-artifact` if the dataset has no shard or the first shard is damaged.
        """
        for split in self.splits:
            for path in self.files(split):
                with self._reading():
                    return pq.read_schema(path)
        raise incomplete_error(self.path, "a dataset without shards")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Calls `check_bytes` if Arrow fails to read a shard inside the block."""
        try:
            yield
        except (pa.ArrowException, OSError):
            self.check_bytes()
            raise

    def check_bytes(self) -> None:
        """Reads all shards and checks that their bytes match the manifest.

        Opening a dataset checks only sizes. This finds the damaged file after a read has failed.

        Raises:
            TidemillError: `incomplete-artifact`.
        """
        for split in self.splits.values():
            for entry in split.files:
                check_file(self.path, entry, deep=True)

    def batches(
        self, split: str, columns: Sequence[str] | None = None, batch_rows: int = ROW_GROUP_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Streams a split in row order.

        Args:
            split: The split's name.
            columns: Columns to read, in this order. Defaults to all.
            batch_rows: Maximum number of rows of a batch; the last batch of a shard may have fewer. Defaults to 65,536.

        Yields:
            Record batches of 1 to `batch_rows` rows.

        Raises:
            TidemillError: `incomplete-artifact` if a shard is damaged.
        """
        names = None if columns is None else list(columns)
        for path in self.files(split):
            with self._reading(), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=batch_rows, columns=names, use_threads=True):
                    if batch.num_rows:
                        yield batch if names is None else batch.select(names)

    def read(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns a split as one table in memory.

        Args:
            split: The split's name.
            columns: Columns to read, in this order. Defaults to all.
        """
        names = None if columns is None else list(columns)
        schema = self.schema()
        if names is not None:
            schema = pa.schema([schema.field(name) for name in names])
        return pa.Table.from_batches(list(self.batches(split, names)), schema=schema)


class DatasetWriter:
    """Writer of a dataset, used as a context manager.

    Leaving the block writes the manifest and renames the folder to `path`. If the block raises, nothing is left. Rows
    keep the order in which they are written. Shards are written on threads, up to 256 MiB behind the caller.

    Args:
        path: Where the dataset will be. A dataset that is already there is replaced.
        schema: The Arrow schema of all splits.
        splits: Names of the splits. Each of them exists in the dataset, also without rows.
        metadata: JSON-serializable facts for the manifest, not part of the content fingerprint. They are read when the
            block ends. Defaults to none.
        row_group_rows: Rows of a row group. Defaults to 65,536.
        shard_rows: Rows after which a new shard starts. Defaults to 1,048,576.

    Example:
        >>> with DatasetWriter(path, schema, ("train", "test")) as writer:
        ...     writer.write("train", table)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: pa.Schema,
        splits: Sequence[str] = SPLITS,
        metadata: dict[str, Any] | None = None,
        row_group_rows: int = ROW_GROUP_ROWS,
        shard_rows: int = SHARD_ROWS,
    ):
        self.path = Path(path)
        self.schema = schema.remove_metadata()
        self.metadata = {} if metadata is None else metadata
        self._row_group_rows = row_group_rows
        self._shard_rows = shard_rows
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._shards: dict[str, _ShardWriter] = {}
        self._splits = tuple(splits)
        self._budget = ByteBudget(_BYTES_IN_FLIGHT)

    def __enter__(self) -> DatasetWriter:
        storage.refuse_file(self.path)
        storage.remove_folder(self._partial)
        for split in self._splits:
            (self._partial / split).mkdir(parents=True)
            self._shards[split] = _ShardWriter(self, self._partial, split)
        return self

    def write(self, split: str, data: pa.Table | pa.RecordBatch) -> None:
        """Appends rows to a split. Columns are selected by name and cast to the schema."""
        self._shards[split].write(data)

    def cut(self, split: str) -> None:
        """Starts a new shard: later rows of the split do not go to the shard of earlier rows."""
        self._shards[split].cut()

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            for shard in self._shards.values():
                shard.abort()
            storage.remove_folder(self._partial)
            return
        try:
            entries = {name: shard.finish() for name, shard in self._shards.items()}
        except BaseException:
            for shard in self._shards.values():
                shard.abort()
            storage.remove_folder(self._partial)
            raise
        manifest = _manifest(self.schema, entries, self.metadata)
        storage.write_json(self._partial / MANIFEST, manifest)
        storage.remove_folder(self.path)
        os.replace(self._partial, self.path)


class _ShardWriter:
    """Writer of the shards of one split. Each shard is written on a thread of its own."""

    def __init__(self, owner: DatasetWriter, root: Path, split: str):
        self._owner, self._root, self._split = owner, root, split
        self._file: ShardFile | None = None
        self._files: list[ShardFile] = []
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._shard_rows = 0

    def write(self, data: pa.Table | pa.RecordBatch) -> None:
        table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
        table = table.select(self._owner.schema.names).cast(self._owner.schema)
        self._pending.append(table)
        self._pending_rows += table.num_rows
        while self._pending_rows >= self._owner._row_group_rows:
            self._flush(self._owner._row_group_rows)

    def _flush(self, rows: int) -> None:
        table = pa.concat_tables(self._pending)
        head, rest = table.slice(0, rows), table.slice(rows)
        self._pending, self._pending_rows = ([rest] if rest.num_rows else []), rest.num_rows
        if self._file is None:
            if len(self._files) >= _FILES_IN_FLIGHT:
                self._files[-_FILES_IN_FLIGHT].wait()
            owner, name = self._owner, f"{self._split}/part-{len(self._files):05d}.parquet"
            self._file = ShardFile(self._root, name, owner.schema, owner._row_group_rows, owner._budget)
            self._files.append(self._file)
        self._file.write(head)
        self._shard_rows += head.num_rows
        if self._shard_rows >= self._owner._shard_rows:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._shard_rows = None, 0

    def cut(self) -> None:
        if self._pending_rows:
            self._flush(self._pending_rows)
        self._close_shard()

    def finish(self) -> list[FileEntry]:
        if self._pending_rows or not self._files:
            self._pending = self._pending or [self._owner.schema.empty_table()]
            self._flush(self._pending_rows)
        self._close_shard()
        return [file.entry() for file in self._files]

    def abort(self) -> None:
        self._close_shard()
        for file in self._files:
            file.wait()


def finish_dataset(
    path: str | os.PathLike[str],
    schema: pa.Schema,
    splits: dict[str, list[str]],
    metadata: dict[str, Any] | None = None,
) -> str:
    """Writes the manifest of a folder of Parquet shards that another engine (DuckDB, Beam) has written.

    Args:
        path: The folder.
        schema: The Arrow schema of all shards.
        splits: Names of the shards of each split, below the folder, in row order.
        metadata: As for `DatasetWriter`.

    Returns:
        The content fingerprint of the dataset.
    """
    root = Path(path)
    entries = {}
    for split, names in splits.items():
        entries[split] = [FileEntry.of(root, n, rows=pq.read_metadata(root / n).num_rows) for n in names]
    manifest = _manifest(schema, entries, metadata or {})
    storage.write_json(root / MANIFEST, manifest)
    return manifest["fingerprint"]


def _manifest(schema: pa.Schema, entries: dict[str, list[FileEntry]], metadata: dict[str, Any]) -> dict[str, Any]:
    columns = {field.name: str(field.type) for field in schema}
    splits = {}
    for name, files in entries.items():
        splits[name] = {
            "rows": sum(f.rows or 0 for f in files),
            "bytes": sum(f.bytes for f in files),
            "fingerprint": fingerprint.of_json([f.fingerprint for f in files]),
            "files": [asdict(f) for f in files],
        }
    content = fingerprint.of_json([columns, {name: s["fingerprint"] for name, s in splits.items()}])
    return {"format": 1, "fingerprint": content, "columns": columns, "splits": splits, "metadata": metadata}
