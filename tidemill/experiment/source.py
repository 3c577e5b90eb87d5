"""The sections `source`, `split` and `validation`: where rows come from, how they are split, what they must satisfy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tidemill.experiment.csv_options import DEFAULT_NULLS, Csv
from tidemill.section import Bytes, Column, Fraction, Section, Seed

Format = Literal["auto", "csv", "tsv", "jsonl", "parquet"]


class Table(Section):
    """One table of the source: its files and how to read them."""

    uri: str | Annotated[list[str], Field(min_length=1)]
    """One or several paths, `gs://` URIs or `pkg://package/path` URIs (a file inside an installed Python package). The
    globs `*`, `?`, `[]` and `**` are allowed. Hive partitions (`day=2013-01-01/`) become columns; select some with a
    glob such as `day=2013-01-*`. `file.zip#member.csv` selects a member of a zip file, which is needed if the file has
    several members."""
    format: Format = "auto"
    """`auto` uses the file name's ending, without the ending of a compression (`.gz`, `.zip`, `.zst`)."""
    header: bool | None = None
    """Short for `csv.header`. Whether the first line of a CSV or TSV file has the column names. `false` requires
    `columns`. Defaults to true."""
    columns: dict[Column, str] | None = None
    """Column names with their DuckDB types (`label: TINYINT`). Without a header it lists all columns in the file's
    order; with a header it sets the types of the columns that it names. Defaults to inferred types."""
    delimiter: Annotated[str, Field(pattern=r'^[^"\r\n]$')] | None = None
    """Short for `csv.delim`. Field separator, one character. Defaults to a comma for `csv` and a tab for `tsv`."""
    null: list[str] | dict[Column, list[str]] | None = None
    """Short for `csv.nullstr`. The strings that mean a missing value in CSV and TSV files. Defaults to `["", "NA"]`."""
    csv: Csv | None = None
    """How CSV and TSV files are written. Defaults to RFC 4180: UTF-8, fields quoted with `"`, quotes doubled."""

    @model_validator(mode="after")
    def _headerless_needs_columns(self) -> Table:
        if not self.csv_options.header and not self.columns:
            raise ValueError("header: false needs columns, the names and types in the order of the file")
        return self

    @model_validator(mode="after")
    def _given_once(self) -> Table:
        given = self.csv or Csv()
        for short, name in (("delimiter", "delim"), ("header", "header"), ("null", "nullstr")):
            if getattr(self, short) is not None and getattr(given, name) is not None:
                raise ValueError(f"{short} and csv.{name} mean the same; keep one of them")
        return self

    @property
    def names_null_words(self) -> bool:
        """Whether the experiment names null words for this table."""
        return self.null is not None or (self.csv is not None and self.csv.nullstr is not None)

    @property
    def csv_options(self) -> Csv:
        """The options of CSV and TSV files, with the short forms merged and `header` and `nullstr` filled in."""
        given = self.csv or Csv()
        header = next((h for h in (self.header, given.header) if h is not None), True)
        words = next((n for n in (self.null, given.nullstr) if n is not None), list(DEFAULT_NULLS))
        return given.model_copy(
            update={"delim": self.delimiter or given.delim, "header": header, "nullstr": words},
        )


class Source(Section):
    """Tables and the query over them."""

    tables: Annotated[dict[Column, Table], Field(min_length=1)]
    """Tables by the name that the query uses. A string or a list of strings is short for `{uri: …}`."""
    sql: str | None = None
    """A SELECT over the tables in DuckDB's SQL, or the name of a `.sql` file next to the experiment file. Parameters
    are written `$name`. Defaults to all columns of the only table."""
    params: dict[str, str | int | float | bool | None] = {}
    """Values of the query's named parameters."""
    engine: Literal["duckdb", "bigquery"] = "duckdb"
    """Runs the query. `bigquery` is not in this version."""
    max_bytes: Bytes | None = None
    """Stops the run before reading if the input files are larger in total, as stored. Defaults to no limit."""
    max_rows: Annotated[int, Field(gt=0)] | None = None
    """Stops the run if the query returns more rows. Defaults to no limit."""
    max_bad_share: Fraction = 0.0
    """Largest tolerated share of malformed rows. They are written to the quarantine file."""

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
                raise ValueError(f"rename {other!r} or {name!r}, because SQL ignores the case of names")
        return tables

    @model_validator(mode="after")
    def _query_needed(self) -> Source:
        if self.sql is None and len(self.tables) > 1:
            raise ValueError("several tables need sql, a query that joins them")
        return self


class Fractions(Section):
    """Shares of the rows in each split. They add up to 1."""

    train: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the split that models learn from."""
    valid: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the split for early stopping and for the choice among members."""
    test: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the split for metrics and gates."""

    @model_validator(mode="after")
    def _sum_is_one(self) -> Fractions:
        total = self.train + self.valid + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train, valid and test add up to {total:g}; they must add up to 1")
        return self


class Split(Section):
    """How rows are split into train, valid and test. The order of files and rows does not matter."""

    by: Literal["hash", "random", "time", "column"] = "random"
    """`random`: each row by the hash of its key, or of the whole row if there is no key. `hash`: all rows with the same
    value of `column` in one split; without `column`, the same key or row. `time`: ordered by `column`, the oldest rows
    in train; rows of one instant stay together. `column`: the split's name is read from `column`."""
    column: Column | None = None
    """The column that `time` and `column` require and `hash` may use."""
    fractions: Fractions = Fractions()
    """Shares of the rows. Ignored by `by: column`."""
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
    """The drift gate: how far a feature's distributions may differ before the run stops. Without a threshold the
    difference is only reported."""

    numeric: Annotated[float, Field(gt=0, le=1)] | None = None
    """Largest Jensen-Shannon divergence (base 2, 0 to 1) of a numeric feature."""
    categorical: Annotated[float, Field(gt=0, le=1)] | None = None
    """Largest L-infinity distance of the value shares (0 to 1) of a categorical feature."""
    columns: dict[Column, Annotated[float, Field(gt=0, le=1)]] = {}
    """Largest distances of single features, instead of `numeric` and `categorical`."""
    between: list[Literal["valid", "test", "previous"]] = ["valid", "test"]
    """What train is compared with: other splits, or the train split of the model that is published now (`previous`)."""


class Leakage(Section):
    """The leakage gate: a feature that predicts the label implausibly well stops the run.

    A feature's strength is the area under the ROC curve on held-out rows of train. A feature is judged by itself, and
    together with one other if the pair ranks at most half as many pairs of rows wrongly as the better of the two. Of
    more than 100 features, only the 100 that are the strongest by themselves are judged in pairs."""

    max_strength: Annotated[float, Field(gt=0.5, le=1)] = 0.85
    """Largest strength of a feature or a pair. 1 turns the gate off: nothing is measured."""
    sample_rows: Annotated[int, Field(ge=1000)] = 200_000
    """Number of rows of train that are measured. With more rows, a sample of about this size is drawn."""
    allow: list[Column] = []
    """Features that are known before the label, however strong. They are not judged."""


class Unseen(Section):
    """The gate for unseen values: which share of the rows of another split may have a value of a categorical feature
    that train does not contain. A model knows nothing of such a value, and gives it the id of all rare values. Missing
    values do not count. Without a threshold the shares are only reported."""

    max: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest share of the rows of valid and of test, for each categorical feature."""
    columns: dict[Column, Annotated[float, Field(ge=0, le=1)]] = {}
    """Largest shares of single features, instead of `max`."""


class Validation(Section):
    """What the examples must satisfy."""

    schema_: Annotated[str | None, Field(alias="schema")] = None
    """URI or path of a `schema.pbtxt` (tensorflow_metadata). `ingest` takes the columns' types from it, and `validate`
    stops the run if the data contradicts it. Defaults to a schema inferred from train."""
    environment: str = "TRAINING"
    """The environment of the given schema in which the examples are checked. Without environments in the schema, all of
    its features are expected."""
    drift: Drift = Drift()
    leakage: Leakage = Leakage()
    unseen: Unseen = Unseen()
    max_dropped_tokens: Fraction = 0.05
    """Largest share of the values of a categorical feature, in train, that a vocabulary drops because they contain a
    line break. Smaller shares are reported."""
