"""Contradictions between one column of a split and its feature in the schema, by TFDV's rules and names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tidemill.given_schema import schema_text
from tidemill.validation import schema as schemas
from tidemill.validation import statistics
from tidemill.validation.columns import ExampleColumn
from tidemill.validation.domain_counts import DomainCounts, OutOfDomain, TextNumbers
from tidemill.validation.specification import Contradiction
from tidemill.validation.statistics import SplitStatistics

_Types = statistics_pb2.FeatureNameStatistics
_UNMEASURED = ("coverage", "sequence_length_constraints")


def contradictions(
    feature: schema_pb2.Feature, schema: schema_pb2.Schema, column: ExampleColumn, split: SplitStatistics
) -> Iterator[Contradiction]:
    """Yields what a split contradicts. Integers satisfy the type FLOAT.

    Args:
        feature: The feature of the schema.
        schema: The schema, for its shared domains.
        column: The column of the examples.
        split: A split with rows.
    """
    stats = split.features[column.name]
    common = statistics.common(stats)
    required = feature.presence.min_count > 0 or feature.presence.min_fraction > 0
    if not common.num_non_missing and required:
        yield "FEATURE_TYPE_NOT_PRESENT", "no value", "no row has a value, and the schema requires the column"
        return
    yield from _presence(feature, common)
    if not common.num_non_missing:
        return
    yield from _value_counts(feature, common)
    actual = schemas.TYPES[column.type]
    widened = actual == schema_pb2.INT and feature.type == schema_pb2.FLOAT
    if feature.type not in (schema_pb2.TYPE_UNKNOWN, actual) and not widened:
        want, got = schema_pb2.FeatureType.Name(feature.type), _Types.Type.Name(column.type)
        yield "UNEXPECTED_DATA_TYPE", "wrong type", f"the schema says {want}, and the data is {got}"
        return
    yield from _domain(feature, schema, column, split)
    if feature.HasField("unique_constraints"):
        yield from _unique(feature.unique_constraints, column, stats)


def limits(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> tuple[float | None, float | None]:
    """Returns the smallest and the largest number that a feature's own or shared domain allows. None: no limit."""
    kind = feature.WhichOneof("domain_info")
    if kind in ("int_domain", "float_domain"):
        domain = getattr(feature, kind)
    elif kind == "domain":
        shared = [d for d in [*schema.int_domain, *schema.float_domain] if d.name == feature.domain]
        if not shared:
            return None, None
        domain = shared[0]
    else:
        return None, None
    return (domain.min if domain.HasField("min") else None, domain.max if domain.HasField("max") else None)


def _presence(feature: schema_pb2.Feature, common: statistics_pb2.CommonStatistics) -> Iterator[Contradiction]:
    present, presence = common.num_non_missing, feature.presence
    rows = present + common.num_missing
    if present < presence.min_count:
        text = f"{present:,} rows have a value, and the schema requires at least {presence.min_count:,}"
        yield "FEATURE_TYPE_LOW_NUMBER_PRESENT", "too few values", text
    if rows and present / rows < presence.min_fraction:
        share, wanted = percent(present / rows), percent(presence.min_fraction)
        text = f"{share} of the rows have a value, and the schema requires {wanted}"
        yield "FEATURE_TYPE_LOW_FRACTION_PRESENT", "too many values missing", text


def _value_counts(feature: schema_pb2.Feature, common: statistics_pb2.CommonStatistics) -> Iterator[Contradiction]:
    """Yields contradictions in the number of values of a row."""
    nested = list(common.presence_and_valency_stats)
    levels: list[tuple[int, int, int]] = [(s.min_num_values, s.max_num_values, s.num_missing) for s in nested]
    levels = levels or [(common.min_num_values, common.max_num_values, common.num_missing)]
    expected = list(feature.value_counts.value_count)
    if feature.HasField("value_count"):
        expected = [feature.value_count]
    if expected and len(expected) != len(levels):
        text = f"the schema describes {_levels(len(expected))}, and the data has {_levels(len(levels))}"
        yield "VALUE_NESTEDNESS_MISMATCH", "wrong nesting", text
        expected = []
    for count, (low, high, _) in zip(expected, levels, strict=False):
        if count.HasField("min") and low < count.min:
            text = f"a row has {_values(low)}, and the schema requires at least {count.min:,}"
            yield "FEATURE_TYPE_LOW_NUMBER_VALUES", "too few values in a row", text
        if count.HasField("max") and high > count.max:
            text = f"a row has {_values(high)}, and the schema allows at most {count.max:,}"
            yield "FEATURE_TYPE_HIGH_NUMBER_VALUES", "too many values in a row", text
    shape = schema_text.shape_of(feature)
    if shape is not None:
        yield from _shape(shape, levels)
    if feature.float_domain.is_embedding:
        yield from _embedding(feature.float_domain, levels)


def _shape(shape: Sequence[int], levels: Sequence[tuple[int, int, int]]) -> Iterator[Contradiction]:
    if missing := sum(count for _, _, count in levels):
        text = f"{missing:,} values are missing, and the shape {list(shape)} requires all"
        yield "INVALID_FEATURE_SHAPE", "wrong shape", text
    elif any(low != high for low, high, _ in levels):
        low, high = next((low, high) for low, high, _ in levels if low != high)
        text = f"rows have {low:,} to {high:,} values, and the shape {list(shape)} requires an equal number"
        yield "INVALID_FEATURE_SHAPE", "wrong shape", text
    elif (size := int(np.prod([low for low, _, _ in levels]))) != int(np.prod(shape)):
        text = f"each row has {_values(size)}, and the shape {list(shape)} requires {int(np.prod(shape)):,}"
        yield "INVALID_FEATURE_SHAPE", "wrong shape", text


def _embedding(domain: schema_pb2.FloatDomain, levels: Sequence[tuple[int, int, int]]) -> Iterator[Contradiction]:
    low, high, _ = levels[-1]
    if low != high or (domain.HasField("embedding_dim") and low != domain.embedding_dim):
        wanted = f"{domain.embedding_dim:,} values" if domain.HasField("embedding_dim") else "an equal number of values"
        got = f"{low:,} to {high:,} values" if low != high else _values(low)
        yield "EMBEDDING_SHAPE_INVALID", "wrong shape", f"rows have {got}, and an embedding requires {wanted}"


def _domain(
    feature: schema_pb2.Feature, schema: schema_pb2.Schema, column: ExampleColumn, split: SplitStatistics
) -> Iterator[Contradiction]:
    counts, stats = split.domains, split.features[column.name]
    kind = feature.WhichOneof("domain_info")
    if column.type == _Types.BYTES and kind not in (None, "natural_language_domain", "image_domain", "url_domain"):
        yield "DOMAIN_INVALID_FOR_TYPE", "invalid domain", f"{kind} does not fit binary values"
    if feature.HasField("bool_domain"):
        yield from _bool_domain(column, counts, split.ranges.get(column.name))
    elif column.name in counts.outside:
        yield from _string_domain(feature, counts.outside[column.name], statistics.common(stats).tot_num_values)
    if column.view == "number":
        yield from _range(feature, schema, column, split)
        yield from _not_finite(feature, split.nan.get(column.name, 0), split.infinite.get(column.name, 0))
    if column.name in counts.numbers and kind in ("int_domain", "float_domain"):
        yield from _text_numbers(feature, counts.numbers[column.name])
    if feature.HasField("image_domain"):
        yield from _images(feature.image_domain, stats, counts.image_share.get(column.name))
    language = feature.natural_language_domain
    if language.token_constraints or any(language.HasField(name) for name in _UNMEASURED):
        text = "the constraints of natural_language_domain need statistics of tokens, which are not computed"
        yield "STATS_NOT_AVAILABLE", "not computed", text


def _bool_domain(
    column: ExampleColumn, counts: DomainCounts, ends: tuple[float, float] | None
) -> Iterator[Contradiction]:
    if column.name in counts.outside:
        outside = counts.outside[column.name]
        if outside.rows:
            text = f"{outside.rows:,} rows are neither true_value nor false_value, such as {outside.values[0]!r}"
            yield "BOOL_TYPE_UNEXPECTED_STRING", "not boolean", text
        return
    if column.name in counts.numbers:
        numbers = counts.numbers[column.name]
        ends = (numbers.low or 0.0, numbers.high or 0.0)
        bad = not 0 <= ends[0] <= ends[1] <= 1
    else:
        bad = counts.not_binary.get(column.name, 0) > 0
    if bad and ends is not None:
        text = f"some values are neither 0 nor 1; they range from {ends[0]:g} to {ends[1]:g}"
        kind = "BOOL_TYPE_SMALL_INT" if ends[0] < 0 else "BOOL_TYPE_BIG_INT"
        yield "BOOL_TYPE_UNEXPECTED_FLOAT" if column.is_float else kind, "not boolean", text


def _range(
    feature: schema_pb2.Feature, schema: schema_pb2.Schema, column: ExampleColumn, split: SplitStatistics
) -> Iterator[Contradiction]:
    """Yields numbers beyond the limits. Infinities are beyond every limit on their side."""
    low, high = limits(feature, schema)
    if column.name not in split.ranges:
        return
    smallest, largest = split.ranges[column.name]
    prefix, kind = ("FLOAT_TYPE", "FLOAT") if column.is_float else ("INT_TYPE", "INT")
    if isinstance(low, float) or isinstance(high, float):
        # The limits of a float domain have 32 bits: 0.1 in the schema is not the double 0.1.
        smallest, largest = float(np.float32(smallest)), float(np.float32(largest))
    if low is not None and smallest < low:
        yield f"{prefix}_SMALL_{kind}", "values too small", f"the smallest value is {smallest:g}, below {low:g}"
    if high is not None and largest > high:
        yield f"{prefix}_BIG_{kind}", "values too large", f"the largest value is {largest:g}, above {high:g}"


def _not_finite(feature: schema_pb2.Feature, nan: int, infinite: int) -> Iterator[Contradiction]:
    if feature.float_domain.disallow_inf and infinite:
        yield "FLOAT_TYPE_HAS_INF", "infinite values", f"{infinite:,} values are infinite"
    if feature.float_domain.disallow_nan and nan:
        yield "FLOAT_TYPE_HAS_NAN", "NaN values", f"{nan:g} values are NaN"


def _text_numbers(feature: schema_pb2.Feature, numbers: TextNumbers) -> Iterator[Contradiction]:
    """Yields contradictions of numbers that are text."""
    whole = feature.HasField("int_domain")
    domain, prefix = (feature.int_domain, "INT_TYPE") if whole else (feature.float_domain, "FLOAT_TYPE")
    if numbers.other:
        kind = "INT_TYPE_NOT_INT_STRING" if whole else "FLOAT_TYPE_STRING_NOT_FLOAT"
        text = f"{numbers.other:,} rows are no {'integer' if whole else 'number'}, such as {numbers.example!r}"
        yield kind, "not a number", text
    suffix = prefix[:-5]
    if numbers.low is not None and domain.HasField("min") and numbers.low < domain.min:
        text = f"the smallest value is {numbers.low:g}, below {domain.min:g}"
        yield f"{prefix}_SMALL_{suffix}", "values too small", text
    if numbers.high is not None and domain.HasField("max") and numbers.high > domain.max:
        text = f"the largest value is {numbers.high:g}, above {domain.max:g}"
        yield f"{prefix}_BIG_{suffix}", "values too large", text
    if not whole and feature.float_domain.disallow_nan and numbers.nan:
        yield "FLOAT_TYPE_HAS_NAN", "NaN values", f"{numbers.nan:,} values are NaN"
    if not whole and feature.float_domain.disallow_inf and float("inf") in (numbers.high, -(numbers.low or 0.0)):
        yield "FLOAT_TYPE_HAS_INF", "infinite values", "some values are infinite"


def _images(
    domain: schema_pb2.ImageDomain, stats: statistics_pb2.FeatureNameStatistics, share: float | None
) -> Iterator[Contradiction]:
    if share is not None and share < domain.minimum_supported_image_fraction:
        text = f"{percent(share)} of the values are images that TensorFlow decodes, and the schema requires "
        yield "LOW_SUPPORTED_IMAGE_FRACTION", "not images", text + percent(domain.minimum_supported_image_fraction)
    largest = stats.bytes_stats.max_num_bytes_int
    if domain.HasField("max_image_byte_size") and largest > domain.max_image_byte_size:
        text = f"the largest image has {largest:,} bytes, above {domain.max_image_byte_size:,}"
        yield "MAX_IMAGE_BYTE_SIZE_EXCEEDED", "images too large", text


def _string_domain(feature: schema_pb2.Feature, outside: OutOfDomain, present: int) -> Iterator[Contradiction]:
    constraints = feature.distribution_constraints
    needed = constraints.min_domain_mass if feature.HasField("distribution_constraints") else 1.0
    inside = 1 - outside.rows / present
    if inside < needed:
        examples = ", ".join(repr(value) for value in outside.values)
        text = f"{outside.rows:,} rows ({percent(1 - inside)}) have values outside the domain, such as {examples}"
        yield "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "unexpected values", text


def _unique(
    constraints: schema_pb2.UniqueConstraints, column: ExampleColumn, stats: statistics_pb2.FeatureNameStatistics
) -> Iterator[Contradiction]:
    if column.view != "category":
        text = "unique_constraints need a column of text or of categories, whose distinct values are counted"
        yield "FEATURE_TYPE_NO_UNIQUE", "not counted", text
        return
    unique = stats.string_stats.unique
    if unique < constraints.min:
        yield "FEATURE_TYPE_LOW_UNIQUE", "too few values", f"{unique:,} distinct values, fewer than {constraints.min:,}"
    if constraints.HasField("max") and unique > constraints.max:
        text = f"{unique:,} distinct values, more than {constraints.max:,}"
        yield "FEATURE_TYPE_HIGH_UNIQUE", "too many values", text


def percent(share: float) -> str:
    """Returns a share as a percentage. Only a share of 1 is shown as 100 %, and only 0 as 0 %: 99.998 %."""
    text = f"{100 * share:.3g}"
    exact = text if float(text) not in (0.0, 100.0) or share in (0.0, 1.0) else f"{100 * share:.6g}"
    return f"{exact} %"


def _levels(count: int) -> str:
    return "one level of lists" if count == 1 else f"{count} levels of lists"


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count:,} values"
