"""Checks of the query and of its result: columns, labels, key, splits and features without values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.artifacts.examples import SPLITS
from tidemill.artifacts.labels import label_error
from tidemill.duckdb_session import columns_of, plain_name, quote
from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.experiment.source import Split
from tidemill.steps.ingest import IngestSpec

RESERVED_PREFIX = "tidemill_"
"""Prefix of the column names that ingest uses itself."""
ROW_NUMBER = "file_row_number"
"""The column that DuckDB adds to a Parquet file's own for its row numbers."""

_SAMPLED_TEXTS = 5
_SCAN = "SEQ_SCAN"
_UNEVEN = 0.02
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")


def check_columns(columns: list[str], spec: IngestSpec) -> None:
    """Checks the names of the result's columns: no duplicates, no reserved names, and all that the spec needs.

    Raises:
        TidemillError: `sql-error` or `missing-column`.
    """
    lowered = [c.lower() for c in columns]
    counts = Counter(lowered)
    if double := next((c for c in columns if counts[c.lower()] > 1), None):
        got, want = f"two columns called {double!r}", "rename one of them with AS"
        raise TidemillError(Code.SQL_ERROR, "source.sql", got, want)
    if reserved := next((c for c in lowered if c.startswith(RESERVED_PREFIX) or c == ROW_NUMBER), None):
        want = f"rename it with AS; {ROW_NUMBER} and names that start with {RESERVED_PREFIX} are reserved"
        raise TidemillError(Code.SQL_ERROR, "source.sql", f"a column called {reserved!r}", want)
    needed = [("label" if len(spec.labels) == 1 else "labels", label) for label in spec.labels]
    needed += [("key", column) for column in spec.key]
    if spec.stage == "train" and spec.split.column is not None:
        needed.append(("split.column", spec.split.column))
    if spec.stage == "train" and spec.split.span is not None:
        needed.append(("split.span", spec.split.span))
    where = "features, evaluation.slices" if spec.stage == "train" else "predict.columns"
    needed += [(where, column) for column in spec.columns or ()]
    for where, column in needed:
        if column not in columns:
            got = f"{column!r}, which the query does not return"
            raise TidemillError(Code.MISSING_COLUMN, where, got, suggest_name(column, columns))


def check_size(rows: int, spec: IngestSpec) -> None:
    """Checks the number of good rows of the query's result.

    Raises:
        TidemillError: `empty-input` or `over-budget`.
    """
    if rows == 0 and spec.stage == "train":
        raise TidemillError(Code.EMPTY_INPUT, "source.sql", "no rows", "check the files and the query's conditions")
    limit = spec.source.max_rows
    if limit is not None and rows > limit:
        details = {"rows": rows, "max_rows": limit}
        got, want = f"{rows:,} rows, more than {limit:,}", "raise max_rows or narrow the query"
        raise TidemillError(Code.OVER_BUDGET, "source.max_rows", got, want, details)


def check_features(types: dict[str, str], spec: IngestSpec) -> None:
    """Checks that no feature has binary values.

    Raises:
        TidemillError: `feature-type`.
    """
    for column in spec.columns or ():
        if types[column] == "BLOB":
            where, got = "features, evaluation.slices", f"{column!r} with binary values that are not UTF-8 text"
            want = f"make text of it in the query, such as hex({plain_name(column)}), or leave it out"
            raise TidemillError(Code.FEATURE_TYPE, where, got, want, {"column": column})


def sample_texts(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[str], columns: Sequence[str]
) -> dict[str, list[str]]:
    """Returns distinct texts of columns, without running the query: those of the tables' text columns of the same name.

    Texts that are not numbers come first.

    Args:
        connection: The database.
        tables: The names of the source's tables.
        columns: Columns of the query's result.
    """
    texts: dict[str, list[str]] = {}
    for table in tables if columns else ():
        types = columns_of(connection, f"main.{quote(table)}")
        for column in [c for c in columns if types.get(c) == "VARCHAR"]:
            query = f"""SELECT DISTINCT {quote(column)} AS text, TRY_CAST(text AS DOUBLE) IS NOT NULL AS is_number
                FROM main.{quote(table)} WHERE text IS NOT NULL ORDER BY is_number, text LIMIT {_SAMPLED_TEXTS}"""
            texts.setdefault(column, []).extend(text for text, _ in connection.execute(query).fetchall())
    return texts


def is_label_type(kind: str) -> bool:
    """Returns whether a DuckDB type is boolean or a number."""
    return kind == "BOOLEAN" or kind.removeprefix("U").startswith(_NUMBERS)


def check_label_type(label: str, kind: str, values: Sequence[str] = ()) -> None:
    """Checks that a label's DuckDB type is boolean or a number.

    Args:
        label: The label's column.
        kind: The column's DuckDB type.
        values: Some of its values, for the error. Defaults to none.

    Raises:
        TidemillError: `label-type`.
    """
    if not is_label_type(kind):
        examples = f", with values such as {', '.join(map(repr, values))}" if values else ""
        raise label_error(Code.LABEL_TYPE, label, f"a column of type {kind}{examples}")


def check_label(connection: duckdb.DuckDBPyConnection, relation: str, label: str, kind: str) -> None:
    """Checks that a label is 0 and 1, or false and true, without nulls, and that both values occur.

    Args:
        connection: The database.
        relation: The table or view with the result.
        label: The label's column.
        kind: The column's DuckDB type.

    Raises:
        TidemillError: `label-null`, `label-type` or `label-one-class`.
    """
    column = quote(label)
    counts = f"SELECT {column}::VARCHAR AS value, count(*) AS n FROM {relation} GROUP BY ALL"
    values = connection.execute(f"{counts} ORDER BY n DESC, value LIMIT 5").fetchall()
    test = f"{column} IS NULL" + (f" OR isnan({column})" if kind in ("FLOAT", "DOUBLE") else "")
    nulls = connection.execute(f"SELECT count(*) FROM {relation} WHERE {test}").fetchall()[0][0]
    if nulls:
        raise label_error(Code.LABEL_NULL, label, f"{nulls:,} nulls", details={"nulls": nulls})
    check_label_type(label, kind, [value for value, _ in values[:3]])
    if kind != "BOOLEAN" and (other := [v for v, _ in values if float(v) not in (0.0, 1.0)]):
        raise label_error(Code.LABEL_TYPE, label, f"the value {other[0]}")
    if len(values) == 1:
        raise label_error(Code.LABEL_ONE_CLASS, label, f"the single value {values[0][0]} in all rows")


def check_key(connection: duckdb.DuckDBPyConnection, relation: str, key: list[str]) -> None:
    """Checks that the key columns identify each row: no nulls and no duplicates.

    Raises:
        TidemillError: `duplicate-key`.
    """
    if not key:
        return
    where = f"key {', '.join(key)}"
    nulls = connection.execute(
        f"SELECT count(*) FROM {relation} WHERE {' OR '.join(f'{quote(c)} IS NULL' for c in key)}"
    ).fetchall()[0][0]
    if nulls:
        want = "leave out these rows in the query, or choose key columns without nulls"
        raise TidemillError(Code.DUPLICATE_KEY, where, f"{nulls:,} rows with a null", want, {"nulls": nulls})
    names = ", ".join(quote(c) for c in key)
    # Not by an alias: in GROUP BY and HAVING, a column of that name goes first.
    double = f"SELECT {names}, count(*) FROM {relation} GROUP BY {names} HAVING count(*) > 1"
    count, surplus = connection.execute(f"SELECT count(*), sum(#{len(key) + 1}) FROM ({double})").fetchall()[0]
    if count:
        *values, rows = connection.execute(f"{double} ORDER BY ALL LIMIT 1").fetchall()[0]
        got = f"{count:,} values that occur more than once, such as {', '.join(map(str, values))} in {rows} rows"
        want = "add a column that distinguishes the rows, or make the query return each key once"
        raise TidemillError(Code.DUPLICATE_KEY, where, got, want, {"values": count, "rows": int(surplus)})


def check_in_one_scan(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    params: Mapping[str, object],
    columns: Mapping[str, str],
    spec: IngestSpec,
) -> list[str]:
    """Checks labels and key if one scan of one table gives their values, and nothing else of the query has to run.

    Args:
        connection: The database with the tables.
        query: The query.
        params: The values of its parameters.
        columns: The columns of its result with their DuckDB types.
        spec: The step's spec.

    Returns:
        What could not be checked: one phrase each.

    Raises:
        TidemillError: As `check_label` and `check_key`.
    """
    names = list(dict.fromkeys([*spec.labels, *spec.key]))
    if not names:
        return []
    values = f"SELECT {', '.join(map(quote, names))} FROM ({query})"
    if not _is_one_scan(connection, values, params):
        labels = [f"the values of label {label}" for label in spec.labels]
        return labels + [f"duplicates of key {', '.join(spec.key)}"] * bool(spec.key)
    connection.execute(f"CREATE TEMP TABLE tidemill_checked AS {values}", dict(params))
    for label in spec.labels:
        check_label(connection, "tidemill_checked", label, columns[label])
    check_key(connection, "tidemill_checked", spec.key)
    return []


def _is_one_scan(connection: duckdb.DuckDBPyConnection, query: str, params: Mapping[str, object]) -> bool:
    """Returns whether a query reads one table from start to end, without joins, groups, sorting or windows."""
    plan = json.loads(connection.execute(f"EXPLAIN (FORMAT json) {query}", dict(params)).fetchall()[-1][1])
    operators = list(_operators(plan))
    return operators.count(_SCAN) == 1 and set(operators) <= {_SCAN, "PROJECTION", "FILTER"}


def _operators(plan: list[dict[str, Any]]) -> Iterator[str]:
    for operator in plan:
        yield operator["name"].strip()
        yield from _operators(operator.get("children", []))


class SplitChecks:
    """Checks of the labels and the splits, counted while the rows are written.

    Labels are 0 and 1, or false and true, without nulls. Each split must have rows, and in those that
    `spec.both_classes` names each label both classes. In train, each needed column must have a value.

    Args:
        spec: The step's spec.
        largest_group: Returns a value of the split's column and its number of rows, the value with the most rows.
    """

    def __init__(self, spec: IngestSpec, largest_group: Callable[[str], tuple[object, int]]):
        self._spec = spec
        self._largest_group = largest_group
        self._rows: dict[str, int] = {}
        self._present: dict[str, int] = dict.fromkeys(spec.columns or (), 0)
        self._classes: dict[str, dict[str, Counter[float | None]]] = {label: {} for label in spec.labels}
        self._is_bool: dict[str, bool] = dict.fromkeys(spec.labels, False)

    def add(self, split: str, rows: pa.RecordBatch) -> None:
        """Counts rows of a split."""
        self._rows[split] = self._rows.get(split, 0) + rows.num_rows
        if split == "train":
            for column in self._present:
                values = rows.column(column)
                self._present[column] += len(values) - values.null_count
        for label, splits in self._classes.items():
            counts = splits.setdefault(split, Counter())
            self._is_bool[label] = pa.types.is_boolean(rows.schema.field(label).type)
            for each in pc.value_counts(rows.column(label)):
                value = each["values"].as_py()
                counts[None if value is None else float(value)] += each["counts"].as_py()

    def check(self) -> None:
        """Checks all rows that were added. Does nothing for the stage `predict`.

        Raises:
            TidemillError: `label-null`, `label-type`, `label-one-class`, `empty-split` or `feature-all-null`.
        """
        if self._spec.stage != "train":
            return
        for label, splits in self._classes.items():
            _check_values(label, sum(splits.values(), Counter()), self._is_bool[label])
        by, fractions = self._spec.split.by, self._spec.split.fractions
        for split in SPLITS:
            must_have_rows = split == "train" or by == "column" or getattr(fractions, split) > 0
            if must_have_rows and not self._rows.get(split):
                raise self._empty_split(split)
        for label, splits in self._classes.items():
            for split in self._spec.both_classes:
                if len(counts := splits.get(split, Counter())) == 1:
                    raise _one_class(label, split, splits, next(iter(counts)))
        if empty := [column for column, present in self._present.items() if present == 0]:
            got = f"no value in {self._rows['train']:,} rows of train for {', '.join(empty)}"
            want = "leave out these columns, or correct the query or the files' columns"
            raise TidemillError(Code.FEATURE_ALL_NULL, "features, evaluation.slices", got, want, {"columns": empty})

    def _empty_split(self, split: str) -> TidemillError:
        by, column = self._spec.split.by, self._spec.split.column
        counts = ", ".join(f"{name} {self._rows.get(name, 0):,}" for name in SPLITS)
        got = f"no rows for {split} of {sum(self._rows.values()):,} in total ({counts})"
        want = "give the split a larger fraction or more rows, or choose another split.by"
        if by in ("time", "hash") and column is not None:
            value, rows = self._largest_group(column)
            got += f"; rows of one {column!r} stay together, and {value} has {rows:,} of them"
            want = "use split.by: random, or a column with more distinct values"
        return TidemillError(Code.EMPTY_SPLIT, f"split by {by}", got, want, {"rows": self._rows})


def uneven_split(split: Split, rows: Mapping[str, int]) -> str:
    """Returns a sentence if rows that stay together make the shares of the splits differ from the wanted ones.

    Args:
        split: The experiment's `split`.
        rows: Number of rows of each split.

    Returns:
        An empty text if no share differs by more than two percentage points, or no rows stay together.
    """
    total = sum(rows.values())
    wanted = {name: float(getattr(split.fractions, name)) for name in SPLITS}
    if split.by not in ("time", "hash") or split.column is None or not total:
        return ""
    got = {name: rows.get(name, 0) / total for name in SPLITS}
    if all(abs(got[name] - wanted[name]) <= max(_UNEVEN, 2 / total) for name in SPLITS):
        return ""
    shares = ", ".join(f"{name} has {got[name]:.1%} of the rows instead of {wanted[name]:.1%}" for name in SPLITS)
    return f"{shares}, because rows of one {split.column!r} stay together"


def _check_values(label: str, values: Counter[float | None], is_bool: bool) -> None:
    """Checks the values of a label in all splits, as `check_label` does."""
    if nulls := values.pop(None, 0):
        raise label_error(Code.LABEL_NULL, label, f"{nulls:,} nulls", details={"nulls": nulls})
    ranked = [value for value, _ in sorted(values.items(), key=lambda item: -item[1]) if value is not None]
    if other := [value for value in ranked if value not in (0.0, 1.0)]:
        raise label_error(Code.LABEL_TYPE, label, f"the value {_written(other[0])}")
    if len(ranked) == 1:
        value = str(ranked[0] == 1).lower() if is_bool else _written(ranked[0])
        raise label_error(Code.LABEL_ONE_CLASS, label, f"the single value {value} in all rows")


def _written(value: float) -> str:
    return str(int(value)) if value.is_integer() else str(value)


def _one_class(
    label: str, split: str, splits: Mapping[str, Counter[float | None]], value: float | None
) -> TidemillError:
    counts = [f"{name} {splits[name][1.0]:,} of {splits[name].total():,}" for name in SPLITS if name in splits]
    rows = splits[split].total()
    got = f"the single value {_written(value or 0.0)} in all {rows:,} rows; rows with 1: {', '.join(counts)}"
    details = {"split": split, "ones": {name: int(each[1.0]) for name, each in splits.items()}}
    return label_error(Code.LABEL_ONE_CLASS, label, got, split=split, details=details)
