"""Counts of the values outside a schema's domains, for domains that statistics do not cover.

All counts are exact: they come from the table `counts` of a column's distinct values (`statistics.compute`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import duckdb
from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill.duckdb_session import literal

_INTEGER = r"\s*[+-]?[0-9]+\s*"
_LISTED = 5
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM")
"""How files of JPEG, PNG, GIF and BMP begin, the formats that TensorFlow decodes."""


@dataclass(frozen=True)
class OutOfDomain:
    """The values of a column outside its string domain.

    Attributes:
        rows: Number of rows with such a value. For lists, the number of values.
        values: The most frequent of these values, at most five.
    """

    rows: int
    values: list[str]


@dataclass(frozen=True)
class TextNumbers:
    """Numbers that are written as text.

    Attributes:
        other: Number of rows whose text is no such number.
        example: One of these texts.
        low: The smallest number, NaN excepted. None: no number.
        high: The largest number.
        nan: Number of rows with NaN.
    """

    other: int
    example: str | None
    low: float | None
    high: float | None
    nan: int


@dataclass(frozen=True)
class DomainRequests:
    """What to count for a schema, by column.

    Attributes:
        strings: The allowed texts of each column with a string domain, or with a bool domain on text.
        numbers: The columns of text or of categories with an int or a float domain, and integers with a bool domain.
        binary: The columns of numbers with a bool domain.
        images: The columns with an image domain.
    """

    strings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numbers: Mapping[str, Literal["int", "float"]] = field(default_factory=dict)
    binary: Collection[str] = frozenset()
    images: Collection[str] = frozenset()


@dataclass(frozen=True)
class DomainCounts:
    """The counts of one split.

    Attributes:
        outside: For each column in `DomainRequests.strings`, the values outside the domain.
        numbers: For each column in `DomainRequests.numbers`, its numbers.
        not_binary: For each label and each column in `DomainRequests.binary`, the rows with a value other than 0 and 1.
        image_share: For each column in `DomainRequests.images` that has values, the share of supported images.
    """

    outside: dict[str, OutOfDomain] = field(default_factory=dict)
    numbers: dict[str, TextNumbers] = field(default_factory=dict)
    not_binary: dict[str, int] = field(default_factory=dict)
    image_share: dict[str, float] = field(default_factory=dict)


def requests(schema: schema_pb2.Schema) -> DomainRequests:
    """Returns what a schema asks to count."""
    numbers: dict[str, Literal["int", "float"]] = {}
    for feature in schema.feature:
        whole = ("int_domain", "bool_domain") if feature.type == schema_pb2.INT else ("int_domain",)
        if feature.type in (schema_pb2.BYTES, schema_pb2.INT) and feature.WhichOneof("domain_info") in whole:
            numbers[feature.name] = "int"
        elif feature.type == schema_pb2.BYTES and feature.HasField("float_domain"):
            numbers[feature.name] = "float"
    return DomainRequests(
        strings=string_domains(schema),
        numbers=numbers,
        binary=frozenset(f.name for f in schema.feature if f.HasField("bool_domain")),
        images=frozenset(f.name for f in schema.feature if f.HasField("image_domain")),
    )


def string_domains(schema: schema_pb2.Schema) -> dict[str, list[str]]:
    """Returns the allowed values of each column that has a string domain, or a bool domain on text."""
    shared = {domain.name: list(domain.value) for domain in schema.string_domain}
    domains: dict[str, list[str]] = {}
    for feature in schema.feature:
        if feature.WhichOneof("domain_info") == "string_domain":
            domains[feature.name] = list(feature.string_domain.value)
        elif feature.HasField("bool_domain") and feature.type == schema_pb2.BYTES:
            domain = feature.bool_domain
            values = {"true_value": domain.true_value, "false_value": domain.false_value}
            domains[feature.name] = [value for name, value in values.items() if domain.HasField(name)]
        elif feature.domain in shared:
            domains[feature.name] = shared[feature.domain]
    return domains


def count(
    connection: duckdb.DuckDBPyConnection, column: str, view: str, asked: DomainRequests, result: DomainCounts
) -> None:
    """Adds the counts of one column that has values.

    Args:
        connection: A database with the table `counts` (v, n) of the column.
        column: The column's name.
        view: The column's view.
        asked: What to count.
        result: Gets the counts.
    """
    if view == "category" and column in asked.strings:
        result.outside[column] = _outside(connection, asked.strings[column])
    if view == "category" and column in asked.numbers:
        result.numbers[column] = _numbers(connection, whole=asked.numbers[column] == "int")
    if view in ("category", "bytes") and column in asked.images:
        blob = "v" if view == "bytes" else "encode(v)"
        starts = " OR ".join(f"starts_with(hex({blob}), {literal(start.hex().upper())})" for start in _IMAGES)
        share = f"(sum(n) FILTER ({starts}) / sum(n))::DOUBLE"
        result.image_share[column] = _row(connection, f"SELECT coalesce({share}, 0) FROM counts")[0]


def _outside(connection: duckdb.DuckDBPyConnection, domain: Sequence[str]) -> OutOfDomain:
    connection.execute("CREATE OR REPLACE TEMP TABLE domain AS SELECT unnest($1::VARCHAR[]) AS v", [list(domain)])
    outside = "FROM counts WHERE v NOT IN (SELECT v FROM domain)"
    (rows,) = _row(connection, f"SELECT coalesce(sum(n), 0)::BIGINT {outside}")
    values = connection.execute(f"SELECT v {outside} ORDER BY n DESC, v LIMIT {_LISTED}").fetchall()
    return OutOfDomain(rows, [v for (v,) in values])


def _numbers(connection: duckdb.DuckDBPyConnection, *, whole: bool) -> TextNumbers:
    integer = f"CASE WHEN regexp_full_match(v, {literal(_INTEGER)}) THEN TRY_CAST(trim(v) AS BIGINT) END"
    number = integer if whole else "TRY_CAST(trim(v) AS DOUBLE)"
    nan = "false" if whole else "isnan(x)"
    return TextNumbers(
        *_row(
            connection,
            f"""SELECT coalesce(sum(n) FILTER (x IS NULL), 0)::BIGINT, min(v) FILTER (x IS NULL),
                min(x) FILTER (NOT {nan}), max(x) FILTER (NOT {nan}), coalesce(sum(n) FILTER ({nan}), 0)::BIGINT
            FROM (SELECT v, n, {number} AS x FROM counts)""",
        )
    )


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    (row,) = connection.execute(query).fetchall()  # fetchone would leave the result open
    return row
