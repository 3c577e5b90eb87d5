"""What a text is worth in each type, against readings by Python and pandas: exact, or no value at all."""

import contextlib
import datetime as dt
from decimal import Decimal, InvalidOperation

import duckdb
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidemill.data.text_values import ISO, TextKind, TextStyle, exact_sql, kind_sql, malformed_sql

UTC = dt.UTC


@pytest.fixture(scope="module")
def database():
    with contextlib.closing(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def evaluate(database, texts, *expressions):
    """Returns the values of expressions over the text `t`, one tuple for each text."""
    query = f"SELECT {', '.join(expressions)} FROM (SELECT unnest(?::VARCHAR[]) AS t)"
    return database.execute(query, [list(texts)]).fetchall()


def exact(database, texts, kind, style=ISO):
    value = exact_sql("t", kind, style)
    return evaluate(database, texts, value, malformed_sql("t", value, kind))


CASES = [
    ("2024-10-27T02:30:00+02:00", "TIMESTAMP", dt.datetime(2024, 10, 27, 0, 30)),
    ("2024-10-27T02:30:00+01:00", "TIMESTAMP", dt.datetime(2024, 10, 27, 1, 30)),
    ("2024-10-27T02:30:00Z", "TIMESTAMP", dt.datetime(2024, 10, 27, 2, 30)),
    ("2024-10-27 02:30 -0330", "TIMESTAMP", dt.datetime(2024, 10, 27, 6)),
    ("2024-10-27 02:30:00 UTC", "TIMESTAMP_S", dt.datetime(2024, 10, 27, 2, 30)),
    ("2024-01-01 02:15:00 PM", "TIMESTAMP", dt.datetime(2024, 1, 1, 14, 15)),
    ("2024-01-01 12:15 am", "TIMESTAMP", dt.datetime(2024, 1, 1, 0, 15)),
    ("2024-01-01 12:15 PM", "TIMESTAMP", dt.datetime(2024, 1, 1, 12, 15)),
    ("2024-01-01 13:15 PM", "TIMESTAMP", None),
    ("2024-01-01 02:15:00 later", "TIMESTAMP", None),
    ("2024-01-01 02:15:00 Europe/Berlin", "TIMESTAMP", None),
    ("2024-01-01 02:15:00.1234567", "TIMESTAMP", None),
    ("2024-01-01 02:15:00.120", "TIMESTAMP", dt.datetime(2024, 1, 1, 2, 15, 0, 120_000)),
    ("2024-01-01 02:15:00.120", "TIMESTAMP_S", None),
    ("2024-01-01 23:50:00", "DATE", None),
    ("2024-01-01 00:00:00", "DATE", dt.date(2024, 1, 1)),
    ("2024/1/5", "DATE", dt.date(2024, 1, 5)),
    ("infinity", "DATE", None),
    ("epoch", "TIMESTAMP", None),
    ("12:30:15", "TIME", dt.time(12, 30, 15)),
    ("12:30 PM", "TIME", None),
    ("0.5", "HUGEINT", None),
    ("0.5", "UHUGEINT", None),
    ("12345678901234567890123", "HUGEINT", 12345678901234567890123),
    ("1_000", "BIGINT", None),
    ("0x1F", "BIGINT", None),
    ("15e-1", "BIGINT", None),
    ("1e3", "BIGINT", 1000),
    ("7.000", "BIGINT", 7),
    ("1.005", "DECIMAL(9,2)", None),
    ("1.500", "DECIMAL(9,2)", Decimal("1.50")),
    ("1e400", "DOUBLE", None),
    ("1_0.5", "DOUBLE", None),
    ("-Infinity", "DOUBLE", float("-inf")),
]


@pytest.mark.parametrize(("text", "kind", "value"), CASES)
def test_converts_a_text_exactly_or_not_at_all(database, text, kind, value):
    ((found, malformed),) = exact(database, [text], kind)
    assert found == value
    assert malformed == (value is None)


@pytest.mark.parametrize("kind", ["BIGINT", "DOUBLE", "FLOAT", "DECIMAL(9,2)", "HUGEINT"])
def test_nan_is_missing_in_numeric_types(database, kind):
    assert exact(database, ["nan", " NaN", "-nan"], kind) == [(None, False)] * 3


CLOCKS = ["%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%I:%M:%S.%f%p"]
RESTS = st.sampled_from(
    ["", "Z", " UTC", "+02:00", "-0330", "+14", "+02:00 ", " CET", " PM", "x", " +", "+25:00", ".5"]
)


@given(
    instants=st.lists(st.datetimes(dt.datetime(1800, 1, 1), dt.datetime(2200, 1, 1)), min_size=1, max_size=20),
    clock=st.sampled_from(CLOCKS),
    separator=st.sampled_from([" ", "T"]),
    rest=RESTS,
)
@settings(max_examples=40, deadline=None)
def test_instants_are_what_pandas_reads(database, instants, clock, separator, rest):
    texts = [instant.strftime(f"%Y-%m-%d{separator}{clock}") + rest for instant in instants]
    for text, (found, malformed) in zip(texts, exact(database, texts, "TIMESTAMP"), strict=True):
        assert malformed == (found is None)
        if found is not None:
            assert found == pd.to_datetime(text, utc=True).to_pydatetime().replace(tzinfo=None), text
    understood = rest in ("", "Z", " UTC", "+02:00", "-0330", "+14", "+02:00 ") and not ("%p" in clock and rest)
    if understood:
        assert not any(malformed for _, malformed in exact(database, texts, "TIMESTAMP"))


NUMBERS = st.one_of(
    st.from_regex(r"\A[+-]?[0-9]{0,25}(\.[0-9]{0,12})?([eE][+-]?[0-9]{1,2})?\Z"),
    st.sampled_from(["1_0", "0x10", "1,5", "1 2", "--1", "5%", "٣", "1e", "nan", "inf", ".", ""]),
    st.integers(-(10**20), 10**20).map(str),
)


def as_decimal(text):
    """Python's reading of a number. It also takes underscores and digits of other scripts, which are no number here."""
    if not text.isascii() or "_" in text:
        return None
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


@given(texts=st.lists(NUMBERS, min_size=1, max_size=30))
@example(texts=["2000000.0000000001E0"])
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("kind", ["TINYINT", "BIGINT", "UBIGINT", "HUGEINT", "DECIMAL(12,3)"])
def test_numbers_keep_all_their_digits(database, texts, kind):
    for text, (found, _) in zip(texts, exact(database, texts, kind), strict=True):
        value = as_decimal(text)
        if found is not None:
            assert value == Decimal(found), text
        elif value is not None and kind == "BIGINT" and "e" not in text.lower():
            assert value % 1 != 0 or not -(2**63) <= value < 2**63, text


@given(texts=st.lists(NUMBERS, min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_floats_are_the_nearest_numbers(database, texts):
    for text, (found, _) in zip(texts, exact(database, texts, "DOUBLE"), strict=True):
        if found is not None and text not in ("inf", "nan"):
            assert as_decimal(text) is not None, text
            assert found == float(text), text


KINDS = {
    TextKind.INT: ["5", "-12", "0", "9007199254740992"],
    TextKind.LONG: ["9007199254740993", "9223372036854775807"],
    TextKind.PADDED: ["007", "00", "01.5"],
    TextKind.NUMBER: ["0.5", "1e3", "inf"],
    TextKind.NAN: ["nan"],
    TextKind.DATE: ["2024-02-29"],
    TextKind.TIME: ["2024-02-29 10:00 PM"],
    TextKind.BOOL: ["True"],
    TextKind.TEXT: ["9223372036854775808", "12345678901234567.0", "2023-02-29", "2024-02-29 10:00 noon", "yes"],
}


def test_tells_the_kinds_of_texts_apart(database):
    for kind, texts in KINDS.items():
        assert {TextKind(found) for (found,) in evaluate(database, texts, kind_sql("t"))} == {kind}


STYLES = [
    (TextStyle(decimal=",", thousands="."), {"1.234,50": 1234.5, "0,5": 0.5, "1.5": None, "12": 12.0, "1.23,4": None}),
    (TextStyle(thousands=","), {"1,234.50": 1234.5, "12,34": None, "1,234,567": 1234567.0, "-7": -7.0, "1,2345": None}),
    (TextStyle(decimal=",", thousands=" "), {"1 234,5": 1234.5, "1.5": None, "inf": float("inf"), "nan": None}),
    (TextStyle(decimal=","), {"1,5e3": 1500.0, "1,5,5": None, "-,5": -0.5}),
]


@pytest.mark.parametrize(("style", "values"), STYLES)
def test_reads_numbers_in_the_declared_style(database, style, values):
    plain = style.plain_number_sql("t")
    found = evaluate(database, values, exact_sql(f"({plain})", "DOUBLE"))
    assert [value for (value,) in found] == list(values.values())


@given(number=st.floats(-1e12, 1e12, allow_nan=False).map(lambda x: round(x, 3)))
@settings(max_examples=40, deadline=None)
def test_a_german_number_is_the_same_number(database, number):
    german = f"{number:,.3f}".translate(str.maketrans(",.", ".,"))
    plain = TextStyle(decimal=",", thousands=".").plain_number_sql("t")
    ((found,),) = evaluate(database, [german], exact_sql(f"({plain})", "DOUBLE"))
    assert found == float(f"{number:.3f}")


def test_reads_times_in_the_declared_format(database):
    style = TextStyle(date_format="%d/%m/%Y", instant_format="%d/%m/%Y %H:%M %z")
    assert exact(database, ["01/02/2024", "2024-02-01", "31/02/2024", "01/02/2024 x"], "DATE", style) == [
        (dt.date(2024, 2, 1), False), (None, True), (None, True), (None, True),
    ]  # fmt: skip
    assert exact(database, ["01/02/2024 10:00 +02:00"], "TIMESTAMP", style)[0][0] == dt.datetime(2024, 2, 1, 8)
    kinds = evaluate(database, ["01/02/2024", "01/02/2024 10:00 +02:00", "2024-02-01"], kind_sql("t", style))
    assert [kind for (kind,) in kinds] == [TextKind.DATE, TextKind.TIME, TextKind.TEXT]
