"""The types of a given schema, applied to the query's result: no value changes in silence."""

from __future__ import annotations

import math

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.data.projection import project

_NUMBERS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53, 2**53 + 1, 0, 7]))
_FRACTIONS = st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-100, 100).map(float), st.just(math.nan))
_TEXTS = st.one_of(st.none(), st.sampled_from(["", "1", "-7", "1.5", "x", "9007199254740993", "nan", " 3 "]))
_KINDS = {"BIGINT": (_NUMBERS, pa.int64()), "DOUBLE": (_FRACTIONS, pa.float64()), "VARCHAR": (_TEXTS, pa.string())}
_TARGETS = {"INT": (int, "BIGINT"), "FLOAT": (float, "DOUBLE"), "BYTES": (str, "VARCHAR")}


def applied(column: pa.Array, target: str) -> list[tuple[object, bool]]:
    """Returns each value after the cast to a schema's type, and whether its row is malformed."""
    connection = duckdb.connect()
    connection.register("rows", pa.table({"x": column}))
    kind = connection.execute("SELECT column_type FROM (DESCRIBE rows)").fetchall()[0][0]
    made = project({"x": kind}, f'feature {{ name: "x" type: {target} }}')
    return connection.execute(
        f"SELECT {made.columns['x']}, coalesce({made.malformed or 'false'}, false) FROM rows"
    ).fetchall()


def expected(value: object, target: str) -> tuple[object, bool]:
    """Returns what Python makes of a value: the value of the type, or that it is malformed."""
    if value is None:
        return None, False
    if target == "BYTES":
        return (value if isinstance(value, str) else None), False
    try:
        number = float(value)
    except ValueError:
        return None, True
    if math.isnan(number):
        return None, False
    if target == "FLOAT":
        return number, False
    whole = int(value) if isinstance(value, int) or (isinstance(value, str) and "." not in value) else number
    return int(number) if whole == number and isinstance(whole, float) else whole, number != math.floor(number)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from([*_KINDS]), target=st.sampled_from([*_TARGETS]), levels=st.integers(0, 2))
def test_a_cast_keeps_each_value_or_makes_its_row_malformed(data, kind, target, levels):
    values, arrow = _KINDS[kind]
    for _ in range(levels):
        values, arrow = st.one_of(st.none(), st.lists(values, max_size=3)), pa.list_(arrow)
    rows = data.draw(st.lists(values, min_size=1, max_size=6))

    def check(value: object, made: object, level: int) -> bool:
        if level:
            assert (value is None) == (made is None)
            parts = [check(v, m, level - 1) for v, m in zip(value or [], made or [], strict=True)]
            return any(parts)
        wanted, malformed = expected(value, target)
        if not malformed and not (target == "BYTES" and not isinstance(value, str)):
            assert made == wanted
        return malformed

    for value, (made, malformed) in zip(rows, applied(pa.array(rows, arrow), target), strict=True):
        assert check(value, made, levels) == malformed


@pytest.mark.parametrize(
    ("column", "target"),
    [
        (pa.array([0, None], pa.timestamp("us")), "INT"),
        (pa.array([0, None], pa.date32()), "FLOAT"),
        (pa.array([b"\xff\x00", None]), "BYTES"),
        (pa.array([{"a": 1}, None]), "BYTES"),
        (pa.array([[0], None], pa.list_(pa.timestamp("us"))), "INT"),
    ],
)
def test_types_without_such_values_stay_for_validate_to_report(column, target):
    assert [(made, bad) for made, bad in applied(column, target)] == [(v, False) for v in column.to_pylist()]
