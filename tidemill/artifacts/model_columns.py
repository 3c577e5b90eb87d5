"""The columns that a published model was trained on, so that prediction reads a day's files as training read its own.

`raw_columns.json` lists the inputs of the model: see `tidemill.artifacts.model`. `source_columns.json`, next to it, has
the types of all columns of the query's result and of the tables, as ingest found them in training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tidemill import storage
from tidemill.artifacts.model import INPUTS
from tidemill.section import Section

SOURCE_COLUMNS = "assets.extra/source_columns.json"
"""File below the SavedModel. Models of earlier versions do not have it."""
METADATA = "source_columns"
"""The entry of the examples' metadata with the same content."""


class InputColumn(Section):
    """A raw column that the model takes."""

    name: str
    dtype: str
    """`int64`, `float32` or `string`."""
    is_list: bool = False


class TableColumns(Section):
    """The columns of one table of the source."""

    types: dict[str, str]
    """DuckDB types by column, declared and inferred."""
    optional: list[str] = []  # noqa: RUF012 - pydantic copies defaults
    """The columns of JSON objects that were missing or null in some rows."""
    null: list[str] | dict[str, list[str]] | None = None
    """The texts that mean a missing value. None for formats without such texts."""


class SourceColumns(Section):
    """The columns of the query's result and of the tables."""

    result: dict[str, str] = {}  # noqa: RUF012
    """DuckDB types by column of the query's result."""
    tables: dict[str, TableColumns] = {}  # noqa: RUF012
    """The tables by the name that the query uses."""


class ModelColumns(Section):
    """What a published model knows about the rows that it scores."""

    inputs: list[InputColumn]
    source: SourceColumns = SourceColumns()

    def table(self, name: str, tables: int, sql: str | None) -> TableColumns | None:
        """Returns what the model knows about a table of the rows to score.

        A table is recognized by its name; if there is only one table now and in training, it is the same whatever its
        name. Without a query, the table's columns are those of the result, also if training had a query.

        Args:
            name: The table's name.
            tables: Number of tables now.
            sql: The query over the rows to score.
        """
        known = self.source.tables
        only = next(iter(known.values())) if len(known) == tables == 1 else None
        found = known.get(name, only)
        if sql is None and self.source.result:
            found = found or TableColumns(types={})
            return found.model_copy(update={"types": found.types | self.source.result})
        return found


def read(uri: str) -> ModelColumns:
    """Reads the columns of a published version."""
    listed: list[dict[str, Any]] = storage.read_json(storage.join(uri, INPUTS))
    inputs = [{key: each[key] for key in ("name", "dtype", "is_list") if key in each} for each in listed]
    source: dict[str, Any] = {}
    if storage.exists(path := storage.join(uri, SOURCE_COLUMNS)):
        source = storage.read_json(path)
    return ModelColumns.model_validate({"inputs": inputs, "source": source})


def write(saved_model: Path, metadata: dict[str, Any]) -> None:
    """Writes `source_columns.json` below a SavedModel.

    Args:
        saved_model: The SavedModel's folder, with `assets.extra`.
        metadata: Metadata of the examples that the model was trained on.
    """
    if METADATA in metadata:
        text = json.dumps(metadata[METADATA], indent=1, ensure_ascii=False)
        (saved_model / SOURCE_COLUMNS).write_text(text + "\n", encoding="utf-8")
