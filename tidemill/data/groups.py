"""A table's files, put together into those that one scan can read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tidemill.data import formats
from tidemill.steps.ingest import SourceFile

Staged = list[tuple[Path, SourceFile]]
"""Files with the local paths where their plain bytes are."""


@dataclass(frozen=True)
class Group:
    """Files with the same columns in the same order, below the same partition."""

    columns: tuple[str, ...]
    partition: tuple[tuple[str, str | None], ...]
    """Values that the folders' names give, without those of columns that the files have themselves."""
    files: tuple[tuple[Path, SourceFile], ...]

    @property
    def paths(self) -> list[str]:
        return [str(path) for path, _ in self.files]

    @property
    def uris(self) -> dict[str, str]:
        """The source URI of each path."""
        return {str(path): file.uri for path, file in self.files}


def group(staged: Iterable[tuple[Path, SourceFile]], columns: Iterable[tuple[str, ...]]) -> list[Group]:
    """Groups neighbouring files.

    Args:
        staged: Files with their paths.
        columns: Each file's columns.
    """

    def likeness(member: tuple) -> tuple:
        (_, file), names = member
        return names, tuple((k, v) for k, v in formats.partitions(file.uri).items() if k not in names)

    grouped = itertools.groupby(zip(staged, columns, strict=True), key=likeness)
    return [Group(names, partition, tuple(file for file, _ in members)) for (names, partition), members in grouped]
