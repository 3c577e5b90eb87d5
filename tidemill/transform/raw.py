"""Raw columns as a transform graph takes them, and the sentinels of missing values.

A graph takes three dtypes, `int64`, `float32` and `string`. A row of a column holds one value or a list of values. In a
dense tensor, the dtype's sentinel stands for a missing value. The same rule applies when reading: sentinels, and floats
that are not finite, are missing values in the analysis, in the transform and in serving. Missing values are removed
from lists, and a missing list is an empty list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import Code, TidemillError

RAW_DTYPES = ("int64", "float32", "string")
SENTINELS: dict[str, int | float | bytes] = {"int64": -(2**63), "float32": float("nan"), "string": b"\x00"}
"""The value that stands for a missing value in a dense tensor, by dtype."""
_ARROW = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.large_binary()}


PreprocessingFn = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Takes raw columns by name, each a sparse tensor `[batch, 1]` or, for lists, `[batch, longest]`, and returns output
tensors by name. Must be picklable."""


@dataclass(frozen=True)
class RawColumn:
    """A raw column: its name, its dtype (one of `RAW_DTYPES`), and whether each row holds a list of values."""

    name: str
    dtype: str
    is_list: bool = False


def raw_dtype(type_: pa.DataType) -> str | None:
    """Returns the dtype that a column of an Arrow type has in a transform graph.

    Returns:
        `int64` for integers and booleans, `float32` for floats and decimals, `string` for strings, binaries and columns
        that are only null; for a dictionary, the dtype of its values. None for types that TFT cannot take as one value
        per row (times, lists).
    """
    if pa.types.is_dictionary(type_):
        return raw_dtype(type_.value_type)
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        return "int64"
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "float32"
    if _is_text(type_) or pa.types.is_null(type_):
        return "string"
    return None


def is_list(type_: pa.DataType) -> bool:
    """Returns whether an Arrow type is a list, of any length or of a fixed length."""
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def raw_column(field: pa.Field) -> RawColumn | None:
    """Returns the raw column of an Arrow field; None if TFT cannot take it (times, structs, lists of lists)."""
    lists = is_list(field.type)
    dtype = raw_dtype(field.type.value_type if lists else field.type)
    return None if dtype is None else RawColumn(field.name, dtype, lists)


def raw_columns(schema: pa.Schema, names: Sequence[str] | None = None, exclude: Sequence[str] = ()) -> list[RawColumn]:
    """Returns the raw columns of an Arrow schema.

    Args:
        schema: The examples' schema.
        names: Columns to take, in this order. Defaults to all that TFT can take, in the schema's order.
        exclude: Columns to leave out if `names` is None; ignored otherwise. Defaults to none.

    Raises:
        TidemillError: `missing-column`, or `feature-type` if a column in `names` has a type that TFT cannot take.
    """
    if names is None:
        possible = [raw_column(field) for field in schema if field.name not in exclude]
        return [column for column in possible if column is not None]
    columns = []
    for name in names:
        if name not in schema.names:
            have = ", ".join(schema.names)
            raise TidemillError(
                Code.MISSING_COLUMN, name, f"no such column among {have}", "name a column of the examples"
            )
        column = raw_column(schema.field(name))
        if column is None:
            want = "a number, a string or a boolean, or a list of them"
            if pa.types.is_temporal(schema.field(name).type):
                # Always in quotes: which names are keywords is known to DuckDB, on which this step does not depend.
                at = '"' + name.replace('"', '""') + '"'
                if schema.field(name).type == pa.timestamp("ns", "UTC"):  # for which DuckDB has no such functions
                    at += "::TIMESTAMPTZ"
                want += f"; the query makes one of a time: dayofweek({at}), hour({at}) or epoch({at})"
            raise _type_error(name, schema.field(name).type, want)
        columns.append(column)
    return columns


def to_dense(batch: pa.RecordBatch, columns: Sequence[RawColumn]) -> dict[str, np.ndarray]:
    """Returns columns of a record batch as dense arrays.

    Args:
        batch: Rows; may hold more columns.
        columns: The columns to take. An integer column is accepted as `float32`, and a float column without fractions
            as `int64`.

    Returns:
        By name, an array `[rows]` of int64, float32 or object (bytes), with sentinels for missing values; for a list
        `[rows, longest]`, where `longest` is at least 1 and shorter lists are padded with sentinels.

    Raises:
        TidemillError: `missing-column` or `feature-type`.
    """
    dense = {}
    for column in columns:
        array = typed(batch, column)
        dense[column.name] = _padded(array, column.dtype) if column.is_list else _dense(array, column.dtype)
    return dense


def to_lists(batch: pa.RecordBatch, columns: Sequence[RawColumn]) -> pa.RecordBatch:
    """Returns columns of a record batch as lists of values, as tfx_bsl represents them.

    A scalar becomes a list of zero or one value.

    Returns:
        A record batch of `large_list` columns of int64, float32 or large_binary, in the order of `columns`.

    Raises:
        TidemillError: `missing-column` or `feature-type`.
    """
    arrays = [typed(batch, column) for column in columns]
    lists = [a if column.is_list else _lists(a) for a, column in zip(arrays, columns, strict=True)]
    return pa.RecordBatch.from_arrays(lists, schema=list_schema(columns))


def list_schema(columns: Sequence[RawColumn]) -> pa.Schema:
    """Returns the Arrow schema of the result of `to_lists`."""
    return pa.schema([(column.name, pa.large_list(_ARROW[column.dtype])) for column in columns])


def all_null(batches: Iterable[pa.RecordBatch], names: list[str]) -> list[str]:
    """Returns the columns without any value. Stops reading when each column has shown a value.

    Args:
        batches: Rows with at least these columns.
        names: The columns to check.
    """
    unseen = list(names)
    for batch in batches:
        unseen = [name for name in unseen if not _has_value(batch.column(name))]
        if not unseen:
            break
    return unseen


def typed(batch: pa.RecordBatch, column: RawColumn) -> pa.Array:
    """Returns one column in the Arrow type of its dtype, in which every missing value is null.

    Returns:
        An array `[rows]` of int64, float32 or large_binary, or a dictionary of large_binary; for a list column, a
        large_list of the former without nulls at either level.

    Raises:
        TidemillError: `missing-column` or `feature-type`.
    """
    index = batch.schema.get_field_index(column.name)
    if index < 0:
        have = ", ".join(batch.schema.names)
        raise TidemillError(
            Code.MISSING_COLUMN, column.name, f"no such column among {have}", "add a column of this name"
        )
    array = batch.column(index)
    return _typed_list(array, column) if column.is_list else _typed(array, column)


def _typed(array: pa.Array, column: RawColumn) -> pa.Array:
    if column.dtype == "string":
        return _typed_text(array, column.name)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if raw_dtype(array.type) == "string" and not pa.types.is_null(array.type):
        raise _type_error(column.name, array.type, "a number")
    return _typed_int(array, column.name) if column.dtype == "int64" else _typed_float(array, column.name)


def _typed_list(array: pa.Array, column: RawColumn) -> pa.Array:
    if pa.types.is_null(array.type):
        array = array.cast(pa.large_list(_ARROW[column.dtype]))
    if not is_list(array.type):
        raise _type_error(column.name, array.type, "a list")
    # Both skip values below a null and outside a slice.
    values, rows = _typed(array.flatten(), column), pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(
        np.bincount(rows[values.is_valid().to_numpy(zero_copy_only=False)], minlength=len(array)), out=offsets[1:]
    )
    return pa.LargeListArray.from_arrays(offsets, values.drop_null())


def _typed_int(array: pa.Array, name: str) -> pa.Array:
    try:
        array = array.cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _type_error(name, array.type, "integers between -2^63 and 2^63-1", str(error)) from error
    sentinel = SENTINELS["int64"]
    if len(array) > array.null_count and pc.min(array).as_py() == sentinel:
        array = pc.replace_with_mask(array, pc.fill_null(pc.equal(array, sentinel), False), pa.scalar(None, pa.int64()))
    return array


def _typed_float(array: pa.Array, name: str) -> pa.Array:
    if pa.types.is_boolean(array.type) or pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    try:
        array = array.cast(pa.float32(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _type_error(name, array.type, "a number", str(error)) from error
    finite = pc.fill_null(pc.is_finite(array), True)
    if not pc.all(finite, min_count=0).as_py():
        array = pc.if_else(finite, array, pa.scalar(None, pa.float32()))
    return array


def _typed_text(array: pa.Array, name: str) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        values = _typed_text(array.dictionary, name)
        return (
            pa.DictionaryArray.from_arrays(array.indices, values)
            if values.null_count == 0
            else _typed_text(array.dictionary_decode(), name)
        )
    if not (_is_text(array.type) or pa.types.is_null(array.type)):
        raise _type_error(name, array.type, "a string")
    array = array.cast(pa.large_binary())
    is_sentinel = pc.equal(array, SENTINELS["string"])
    if pc.any(is_sentinel, min_count=0).as_py():
        array = pc.if_else(pc.fill_null(is_sentinel, False), pa.scalar(None, pa.large_binary()), array)
    return array


def _dense(array: pa.Array, dtype: str) -> np.ndarray:
    if pa.types.is_dictionary(array.type):
        values = np.empty(len(array.dictionary) + 1, object)
        values[:-1] = array.dictionary.to_numpy(zero_copy_only=False)
        values[-1] = SENTINELS["string"]
        return values[array.indices.cast(pa.int64()).fill_null(len(values) - 1).to_numpy(zero_copy_only=False)]
    if array.null_count:
        array = array.fill_null(pa.scalar(SENTINELS[dtype], array.type))
    return array.to_numpy(zero_copy_only=False)


def _padded(lists: pa.LargeListArray, dtype: str) -> np.ndarray:
    lengths = np.diff(lists.offsets.to_numpy())
    longest = max(1, int(lengths.max(initial=0)))
    padded = np.empty((len(lists), longest), object if dtype == "string" else dtype)
    # np.full would strip the byte 0 from the end of the string.
    padded.fill(SENTINELS[dtype])
    padded[np.arange(longest) < lengths[:, None]] = lists.flatten().to_numpy(zero_copy_only=False)
    return padded


def _lists(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(array.is_valid().to_numpy(zero_copy_only=False), out=offsets[1:])
    return pa.LargeListArray.from_arrays(offsets, array.drop_null())


def _has_value(column: pa.Array) -> bool:
    if is_list(column.type):
        column = column.flatten()
    if pa.types.is_floating(column.type):
        return bool(pc.any(pc.is_finite(column)).as_py())
    return column.null_count < len(column)


def _is_text(type_: pa.DataType) -> bool:
    return any(
        is_a(type_)
        for is_a in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
            pa.types.is_fixed_size_binary,
        )
    )


def _type_error(name: str, type_: pa.DataType, want: str, why: str = "") -> TidemillError:
    got = f"a column of type {type_}" + (f" ({why})" if why else "")
    return TidemillError(Code.FEATURE_TYPE, name, got, f"use {want}")
