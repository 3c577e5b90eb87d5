"""`source`, `split` and `validation`: where rows come from, how they are divided, and what they must look like."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tidemill.section import Bytes, Column, Fraction, Section, Seed

Format = Literal["auto", "csv", "tsv", "jsonl", "parquet"]


class Table(Section):
    """One table of the source: its files and how to read them."""

    uri: str | Annotated[list[str], Field(min_length=1)]
    """A path, `gs://` or `pkg://package/path` URI, or several. May hold the globs `*`, `?`, `[]` and `**`; a date
    partition is written as a glob such as `day=2013-01-*`, and Hive partitions (`day=…/`) become columns. A member of a
    zip file is chosen with `file.zip#member.csv`; without it the archive must hold one file."""
    format: Format = "auto"
    """`auto` goes by the file name's ending, compression (`.gz`, `.zip`, `.zst`) apart."""
    header: bool = True
    """Whether the first line of a CSV or TSV file holds the column names. False needs `columns`."""
    columns: dict[Column, str] | None = None
    """Column names with their DuckDB types (`label: TINYINT`), in the order of the file. Optional with a header: then
    it only fixes the types of the columns that it names."""
    delimiter: Annotated[str, Field(pattern=r'^[^"\r\n]$')] | None = None
    """Field separator of `csv`, one character; defaults to a comma, and to a tab for `tsv`."""
    null: list[str] = ["", "NA"]
    """The strings that mean a missing value in CSV and TSV files."""

    @model_validator(mode="after")
    def _headerless_needs_columns(self) -> Table:
        if not self.header and not self.columns:
            raise ValueError("header: false needs columns, the names and types in the order of the file")
        return self


class Source(Section):
    """Tables and the query over them."""

    tables: Annotated[dict[Column, Table], Field(min_length=1)]
    """Tables by the name that the query uses. A bare string is short for `{uri: …}`."""
    sql: str | None = None
    """A SELECT over the tables, or the name of a `.sql` file beside the experiment file. Named parameters are written
    `$name`. Defaults to all columns of the only table."""
    params: dict[str, str | int | float | bool | None] = {}
    """Values of the query's named parameters."""
    engine: Literal["duckdb", "bigquery"] = "duckdb"
    """What runs the query. `bigquery` is not in this version."""
    max_bytes: Bytes | None = None
    """Refuse to read when the source files together are larger, as stored. Defaults to no limit."""
    max_rows: Annotated[int, Field(gt=0)] | None = None
    """Refuse a query that returns more rows. Defaults to no limit."""
    max_bad_share: Fraction = 0.0
    """Tolerated share of rows that do not parse. Such rows are written to the quarantine file."""

    @field_validator("tables", mode="before")
    @classmethod
    def _short_tables(cls, value: object) -> object:
        if isinstance(value, dict):
            return {k: {"uri": v} if isinstance(v, str | list) else v for k, v in value.items()}
        return value

    @field_validator("tables", mode="after")
    @classmethod
    def _distinct_tables(cls, tables: dict[str, Table]) -> dict[str, Table]:
        first: dict[str, str] = {}
        for name in tables:
            if (other := first.setdefault(name.lower(), name)) != name:
                raise ValueError(f"call {other!r} or {name!r} otherwise, because SQL does not tell them apart")
        return tables

    @model_validator(mode="after")
    def _query_needed(self) -> Source:
        if self.sql is None and len(self.tables) > 1:
            raise ValueError("several tables need sql, a query that joins them")
        return self


class Fractions(Section):
    """Shares of the rows that go to each split."""

    train: Annotated[float, Field(gt=0, le=1)] = 0.8
    valid: Annotated[float, Field(ge=0, le=1)] = 0.1
    test: Annotated[float, Field(ge=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _sum_is_one(self) -> Fractions:
        total = self.train + self.valid + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train, valid and test add up to {total:g}, and must add up to 1")
        return self


class Split(Section):
    """How rows are divided into train, valid and test. Independent of the order of files and rows."""

    by: Literal["hash", "random", "time", "column"] = "random"
    """`hash` keeps all rows with the same value of `column` (or of the key, or of all columns) in one split; `random`
    hashes the key, or the whole row where there is none, with the seed; `time` orders by `column`, oldest rows to
    train, and never parts rows of the same instant; `column` reads the split's name from `column`."""
    column: Column | None = None
    """The column that `time` and `column` need, and that `hash` may take instead of the key."""
    fractions: Fractions = Fractions()
    """Shares of the rows. Not used by `column`."""
    seed: Seed = 0
    """Seed of `hash` and `random`."""
    span: Column | None = None
    """A column, such as a day. Ingest writes separate files for each of its values, in their order. Files of old days
    then stay the same when rows of a new day arrive, and `compute.preprocess.analyzer_cache` analyzes only the new
    ones. Defaults to none."""

    @model_validator(mode="after")
    def _column_needed(self) -> Split:
        if self.by in ("time", "column") and self.column is None:
            raise ValueError(f"by: {self.by} needs column")
        return self


class Drift(Section):
    """When a difference of distributions stops the run. A threshold that is not given only reports."""

    numeric: Annotated[float, Field(gt=0, le=1)] | None = None
    """Largest Jensen-Shannon divergence (base 2, 0 to 1) of a numeric feature."""
    categorical: Annotated[float, Field(gt=0, le=1)] | None = None
    """Largest L-infinity distance of the value shares (0 to 1) of a categorical feature."""
    between: list[Literal["valid", "test", "previous"]] = ["valid", "test"]
    """What train is held against: other splits, or the train split of the model that is published now."""


class Leakage(Section):
    """The leakage gate: a feature that predicts the label implausibly well stops the run.

    Strength is the area under the ROC curve on held-out train rows. Two measures are held against the limit: a feature
    alone, and a feature together with one other where the two rank at most half as many pairs of rows wrongly as the
    better one alone."""

    max_strength: Annotated[float, Field(gt=0.5, le=1)] = 0.85
    """Largest strength of a feature alone or with one other. 1 switches the gate off."""
    allow: list[Column] = []
    """Features that are known before the label, however strong. They are neither judged nor paired."""


class Validation(Section):
    """What the examples must satisfy."""

    schema_: Annotated[str | None, Field(alias="schema")] = None
    """URI or path of a `schema.pbtxt` (tensorflow_metadata). Ingest takes the columns' types from it, and validate
    reports what contradicts it. Defaults to a schema inferred from the train split."""
    drift: Drift = Drift()
    leakage: Leakage = Leakage()
