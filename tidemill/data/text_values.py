"""Values that are read from text: SQL expressions for what a text is, and for its value in a DuckDB type.

One rule holds for every type: **a text becomes a value only if nothing of it is lost.** DuckDB's own casts do lose
something: they drop the offset, the AM or PM and any word after a time, cut the time off a DATE, round fractions to
HUGEINT and DECIMAL, and read `1_000` and `0x1F` as integers. So a cast is used only where a pattern proves that the
text is of a form that DuckDB understands as a whole.

Times are instants in UTC: `2024-10-27T02:30:00+02:00` is 00:30, and a time without an offset is UTC itself. NaN is a
missing value in every numeric type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tidemill.duckdb_session import literal

_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
INTEGERS = frozenset([*_SIGNED, *(f"U{kind}" for kind in _SIGNED)])
"""DuckDB's integer types."""
_FLOATS = ("FLOAT", "DOUBLE")
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_FRACTIONS = {"TIMESTAMP": 6, "TIMESTAMP WITH TIME ZONE": 6, "TIMESTAMP_NS": 9, "TIMESTAMP_MS": 3, "TIMESTAMP_S": 0}
"""Digits of a second's fraction that each type of instants holds."""

_NAN = r"(?i)\s*[+-]?nan\s*"
_INFINITY = r"(?i)\s*[+-]?inf(inity)?\s*"
_WHOLE = r"\s*[+-]?[0-9]+(\.0*)?\s*"
_EXPONENT = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+\s*"
_DAY = r"[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}"
_CLOCK = r"[0-9]{1,2}:[0-9]{1,2}"
_LONE_DAY = rf"\s*{_DAY}\s*"
_TIME_OF_DAY = rf"\s*{_CLOCK}(:[0-9]{{1,2}}(\.[0-9]{{1,6}}0*)?)?\s*"
_OFFSET = r"[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?"

_SMALL_INT = r"\s*[+-]?(0|[1-9][0-9]{0,14})\s*"
_LONG_INT = r"\s*[+-]?[1-9][0-9]{15,18}\s*"
_LEADING_ZERO = r"\s*[+-]?0[0-9]+(\.[0-9]*)?\s*"
_LONG_NUMBER = r"\s*[+-]?[0-9]{16,}(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*"
_NUMBER = r"(?i)\s*[+-]?(([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(e[+-]?[0-9]+)?|inf|infinity)\s*"


@dataclass(frozen=True)
class TextStyle:
    """How numbers and times are written in a file. The default is that of Python and ISO 8601.

    Attributes:
        decimal: Character before the fraction.
        thousands: Character between groups of three digits. None if there is none.
        date_format: Format of dates for `strptime`. None for ISO 8601.
        instant_format: Format of instants for `strptime`. None for ISO 8601.
    """

    decimal: str = "."
    thousands: str | None = None
    date_format: str | None = None
    instant_format: str | None = None

    def plain_number_sql(self, text: str) -> str:
        """Returns an expression for a text in which numbers are written as in Python. Other texts do not become
        numbers: with a decimal comma, `1.5` becomes `?`."""
        if self.decimal == "." and self.thousands is None:
            return text
        point, whole = re.escape(self.decimal), "[0-9]+"
        if self.thousands is not None:
            whole = rf"([0-9]+|[0-9]{{1,3}}({re.escape(self.thousands)}[0-9]{{3}})+)"
        pattern = rf"\s*[+-]?({whole}({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?\s*"
        plain = text if self.thousands is None else f"replace({text}, {literal(self.thousands)}, '')"
        return f"""CASE WHEN {_matches(text, pattern)} THEN replace({plain}, {literal(self.decimal)}, '.')
            WHEN regexp_matches({text}, '^\\s*[+-]?[.0-9]') AND {_matches(text, _NUMBER)} THEN '?' ELSE {text} END"""


ISO = TextStyle()
"""The style of files without options."""


class TextKind(IntEnum):
    """What a text looks like."""

    INT = 0
    """An integer that a DOUBLE holds exactly."""
    LONG = 1
    """An integer of 64 bits that a DOUBLE would round."""
    PADDED = 2
    """A number with leading zeros, which are part of a code and not of a quantity."""
    NUMBER = 3
    """A number with a fraction or an exponent, or an infinity."""
    NAN = 4
    DATE = 5
    TIME = 6
    BOOL = 7
    TEXT = 8


def kind_sql(text: str, style: TextStyle = ISO) -> str:
    """Returns an expression for the `TextKind` of a text; null for null.

    Cheap tests come first, because most values match one of them.

    Args:
        text: Expression of a VARCHAR.
        style: How numbers and times are written. Numbers are plain already (`TextStyle.plain_number_sql`).
    """
    integer = f"TRY_CAST({text} AS BIGINT)"
    formats = ""
    for kind, written in (("DATE", style.date_format), ("TIMESTAMP", style.instant_format)):
        if written is not None:
            is_it = f"{exact_sql(text, kind, style)} IS NOT NULL"
            formats += f" WHEN {is_it} THEN {TextKind.DATE if kind == 'DATE' else TextKind.TIME:d}"
    return f"""CASE WHEN {text} IS NULL THEN NULL{formats}
        WHEN {_matches(text, _SMALL_INT)} THEN {TextKind.INT:d}
        WHEN {_matches(text, _LONG_INT)} AND {integer} IS NOT NULL THEN
            CASE WHEN {integer}::DOUBLE::HUGEINT = {integer} THEN {TextKind.INT:d} ELSE {TextKind.LONG:d} END
        WHEN {_matches(text, _LEADING_ZERO)} THEN {TextKind.PADDED:d}
        WHEN {_matches(text, _NUMBER)} AND NOT {_matches(text, _LONG_NUMBER)} THEN {TextKind.NUMBER:d}
        WHEN {text}[5] = '-' AND {text}[8] = '-' THEN
            CASE WHEN length({text}) = 10 AND {exact_sql(text, "DATE", style)} IS NOT NULL THEN {TextKind.DATE:d}
                WHEN length({text}) > 10 AND {exact_sql(text, "TIMESTAMP", style)} IS NOT NULL THEN {TextKind.TIME:d}
                ELSE {TextKind.TEXT:d} END
        WHEN length({text}) < 6 AND lower({text}) IN ('true', 'false') THEN {TextKind.BOOL:d}
        WHEN {_matches(text, _NAN)} THEN {TextKind.NAN:d}
        ELSE {TextKind.TEXT:d} END"""


def exact_sql(text: str, kind: str, style: TextStyle = ISO) -> str:
    """Returns an expression for the exact value of a text in a type; null if the type would lose any of it.

    DOUBLE and FLOAT are the exception: they hold the number that is nearest to the decimal digits.

    Args:
        text: Expression of a VARCHAR.
        kind: A DuckDB type as DuckDB writes it, such as `DECIMAL(9,2)`.
        style: How times are written. Numbers are plain already (`TextStyle.plain_number_sql`).
    """
    if kind == "VARCHAR":
        return text
    if kind == "DATE" and style.date_format is not None:
        day = f"CAST(try_strptime({text}, {literal(style.date_format)}) AS TIMESTAMP)"
        return f"CASE WHEN CAST({day} AS TIME) = TIME '00:00:00' THEN CAST({day} AS DATE) END"
    if kind in _FRACTIONS and style.instant_format is not None:
        return _without_loss(f"CAST(try_strptime({text}, {literal(style.instant_format)}) AS TIMESTAMP)", kind)
    if kind in INTEGERS:
        return _integer(text, kind)
    if kind in _FLOATS:
        number = f"TRY_CAST({text} AS {kind})"
        return f"""CASE WHEN isfinite({number}) THEN CASE WHEN contains({text}, '_') THEN NULL ELSE {number} END
            WHEN {_matches(text, _INFINITY)} THEN {number} END"""
    if match := _DECIMAL.fullmatch(kind):
        return _guarded(text, _decimal(int(match[2])), kind)
    if kind == "DATE":
        instant = instant_sql(text)
        return f"""CASE WHEN {_matches(text, _LONE_DAY)} THEN TRY_CAST({text} AS DATE)
            WHEN CAST({instant} AS TIME) = TIME '00:00:00' THEN CAST({instant} AS DATE) END"""
    if kind in _FRACTIONS:
        return instant_sql(text, kind)
    if kind == "TIME":
        return _guarded(text, _TIME_OF_DAY, kind)
    return f"TRY_CAST({text} AS {kind})"


def malformed_sql(text: str, value: str, kind: str) -> str:
    """Returns a condition for texts that have no exact value in a type. NaN has one in numeric types: it is missing.

    Args:
        text: Expression of a VARCHAR.
        value: The expression `exact_sql(text, kind)`, or a column that holds it.
        kind: The DuckDB type.
    """
    missing = f" AND NOT {_matches(text, _NAN)}" if is_numeric(kind) else ""
    return f"({value} IS NULL AND {text} IS NOT NULL{missing})"


def exact_cast(value: str, kind: str, target: str) -> tuple[str, str]:
    """Returns expressions that cast values of any type: the exact value or null, and whether a value was lost.

    A cast is exact if casting back gives the value again. FLOAT and DOUBLE hold the nearest number instead.

    Args:
        value: Expression of the values.
        kind: Their DuckDB type.
        target: The type to cast to.

    Returns:
        The expression of the values in `target`, and a condition for those that it does not hold; "false" if it holds
        all.
    """
    if kind == target:
        return value, "false"
    if kind == "VARCHAR":
        exact = exact_sql(value, target)
        return exact, malformed_sql(value, exact, target)
    cast = f"TRY_CAST({value} AS {target})"
    if target in _FLOATS:
        return cast, f"({value} IS NOT NULL AND {cast} IS NULL)"
    return cast, f"({value} IS NOT NULL AND TRY_CAST({cast} AS {kind}) IS DISTINCT FROM {value})"


def is_numeric(kind: str) -> bool:
    """Returns whether a DuckDB type is an integer, a float or a decimal."""
    return kind in INTEGERS or kind in _FLOATS or kind.startswith("DECIMAL")


def any_of(conditions: Sequence[str]) -> str:
    """Returns the disjunction of conditions, as a balanced tree: DuckDB limits the depth of an expression."""
    if not conditions:
        return "false"
    if len(conditions) == 1:
        return conditions[0]
    middle = len(conditions) // 2
    return f"({any_of(conditions[:middle])} OR {any_of(conditions[middle:])})"


def instant_sql(text: str, kind: str = "TIMESTAMP") -> str:
    """Returns an expression for an instant in UTC; null if any part of the text is not understood.

    A text is a day, or a day and a time of 24 hours or of 12 hours with AM or PM; then `Z`, `UTC`, `GMT`, an offset
    such as `+02:00`, or nothing, which means UTC.

    Args:
        text: Expression of a VARCHAR.
        kind: A type of `TIMESTAMP`. Texts with a finer fraction than it holds are null. Defaults to microseconds.
    """
    digits = _FRACTIONS[kind]
    fraction = rf"(?:\.[0-9]{{0,{digits}}}0*)?"
    clock = rf"{_CLOCK}(?::[0-9]{{1,2}}{fraction})?"
    bare = rf"{_DAY}(?:[T ]{clock})?"
    local = rf"\s*({_DAY})(?:[T ]\s?({clock})\s?(Z|z|UTC|GMT)?)?\s*"
    offset = rf"\s*({_DAY})[T ]\s?({clock})\s?({_OFFSET})\s*"
    clock_12 = rf"(?:0?[1-9]|1[0-2]):[0-9]{{1,2}}(?::[0-9]{{1,2}}{fraction})?"
    half_day = rf"\s*({_DAY})[T ]\s?({clock_12})\s?([AaPp])\.?[Mm]\.?\s*"
    plain = "TIMESTAMP_NS" if kind == "TIMESTAMP_NS" else "TIMESTAMP"

    def parsed(pattern: str, rewrite: str, into: str) -> str:
        return f"TRY_CAST(regexp_replace({text}, {literal(f'^{pattern}$')}, {literal(rewrite)}) AS {into})"

    noon = parsed(half_day, r"\1 \2", plain)
    without_offset = parsed(local, r"\1 \2", plain)
    with_offset = parsed(offset, r"\1 \2\3", "TIMESTAMPTZ")
    value = f"""CASE WHEN {_matches(text, bare)} THEN TRY_CAST({text} AS {plain})
        WHEN {_matches(text, local)} THEN {without_offset}
        WHEN {_matches(text, offset)} THEN CAST({with_offset} AS {plain})
        WHEN {_matches(text, half_day)} THEN {noon}
            + CASE WHEN hour({noon}) = 12 THEN INTERVAL '-12 hours' ELSE INTERVAL '0 hours' END
            + CASE WHEN regexp_matches({text}, '[Pp]') THEN INTERVAL '12 hours' ELSE INTERVAL '0 hours' END
        END"""
    return value if kind == plain else f"CAST({value} AS {kind})"


def _without_loss(instant: str, kind: str) -> str:
    if kind == "TIMESTAMP":
        return instant
    return f"CASE WHEN CAST(CAST({instant} AS {kind}) AS TIMESTAMP) = {instant} THEN CAST({instant} AS {kind}) END"


def _integer(text: str, kind: str) -> str:
    number = f"TRY_CAST({text} AS {kind})"
    # Numbers of at most 15 digits differ if their DOUBLEs differ, so that equal DOUBLEs prove equal numbers.
    digits = f"length(regexp_replace(split_part(lower({text}), 'e', 1), '[^0-9]', '', 'g'))"
    return f"""CASE WHEN {number}::VARCHAR = {text} OR {_matches(text, _WHOLE)} THEN {number}
        WHEN {_matches(text, _EXPONENT)} AND {digits} <= 15 AND abs({number}) < 1000000000000000
            AND TRY_CAST({text} AS DOUBLE) = {number}::DOUBLE THEN {number} END"""


def _decimal(scale: int) -> str:
    return rf"\s*[+-]?[0-9]*(\.[0-9]{{0,{scale}}}0*)?\s*"


def _guarded(text: str, pattern: str, kind: str) -> str:
    return f"CASE WHEN {_matches(text, pattern)} THEN TRY_CAST({text} AS {kind}) END"


def _matches(text: str, pattern: str) -> str:
    return f"regexp_full_match({text}, {literal(pattern)})"
