"""Types that the rows to score get from the published model, and columns without which it cannot score them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import duckdb

from tidemill.artifacts.model_columns import InputColumn, ModelColumns
from tidemill.duckdb_session import quote
from tidemill.errors import Code, TidemillError, suggest_name

_TARGETS = {"int64": "BIGINT", "float32": "DOUBLE", "string": "VARCHAR"}
_INTEGER = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)")
_NUMBER = re.compile(r"FLOAT|DOUBLE|DECIMAL.*")
_TEXT = ("VARCHAR", "BLOB")


def check_inputs(columns: Sequence[str], inputs: Sequence[InputColumn]) -> None:
    """Checks that the query returns each raw column of the model.

    Raises:
        TidemillError: `missing-column`, with all missing columns.
    """
    missing = [each.name for each in inputs if each.name not in columns]
    if missing:
        got = f"no {', '.join(map(repr, missing))}, which the published model takes"
        want = suggest_name(missing[0], columns) if len(missing) == 1 else "return all columns that the model takes"
        raise TidemillError(Code.MISSING_COLUMN, "predict.source", got, want)


def targets(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: Mapping[str, str], model: ModelColumns
) -> dict[str, str]:
    """Returns the types that columns of the query's result must be converted to, because the model takes another type.

    A column without any value gets the model's type. An integer becomes text, and a number or a text becomes an integer
    or a number where all of its digits stay; values for which this fails are malformed.

    Args:
        connection: The database.
        relation: The table or view with the rows.
        columns: Its columns with their DuckDB types.
        model: The columns of the published model.

    Returns:
        DuckDB types by column, without the columns that the model takes as they are.

    Raises:
        TidemillError: `feature-type` for a type whose values the model would read as others.
    """
    differing = [each for each in model.inputs if not _is_taken(columns[each.name], each)]
    if not differing:
        return {}
    counts = ", ".join(_count(quote(each.name), columns[each.name]) for each in differing)
    values = connection.execute(f"SELECT {counts} FROM {relation}").fetchall()[0]
    types = {}
    for each, present in zip(differing, values, strict=True):
        kind = columns[each.name]
        if present and not _is_convertible(kind, each):
            known = model.source.result.get(each.name, kind)
            if known == kind:  # The model was published before the types of a given schema were recorded.
                known = (
                    "a list" if each.is_list else {"string": "text", "int64": "an integer"}.get(each.dtype, "a number")
                )
            got = f"a column of type {kind}, which was {known} in training"
            want = "cast it in the query, or declare its type in `columns` of its table"
            raise TidemillError(Code.FEATURE_TYPE, each.name, got, want)
        types[each.name] = _TARGETS[each.dtype] + "[]" * each.is_list
    return types


def unreadable(columns: Mapping[str, str], inputs: Sequence[InputColumn]) -> list[InputColumn]:
    """Returns the inputs whose column has a type that the model reads only if no row has a value.

    Args:
        columns: The columns of the query's result with their DuckDB types.
        inputs: The columns that the model takes, which are among `columns`.
    """
    return [e for e in inputs if not _is_taken(columns[e.name], e) and not _is_convertible(columns[e.name], e)]


def _is_taken(kind: str, column: InputColumn) -> bool:
    """Returns whether the transform graph takes a DuckDB type as this column, with the same values."""
    if column.is_list or kind.endswith("]"):
        return column.is_list and kind.endswith("]")
    if column.dtype == "string":
        return kind in _TEXT
    whole = bool(_INTEGER.fullmatch(kind)) or kind == "BOOLEAN"
    return whole or (column.dtype == "float32" and bool(_NUMBER.fullmatch(kind)))


def _is_convertible(kind: str, column: InputColumn) -> bool:
    if column.is_list or kind.endswith("]"):
        return False
    if column.dtype == "string":
        return bool(_INTEGER.fullmatch(kind))
    return bool(_NUMBER.fullmatch(kind)) or kind == "VARCHAR"


def _count(quoted: str, kind: str) -> str:
    """Returns an expression for the number of values. NaN is no value."""
    return f"count({quoted}) FILTER (NOT isnan({quoted}))" if kind in ("FLOAT", "DOUBLE") else f"count({quoted})"
