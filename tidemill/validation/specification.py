"""Contradictions within a given schema: anomalies that TFDV reports without looking at the data."""

from __future__ import annotations

from collections.abc import Iterator

from tensorflow_metadata.proto.v0 import schema_pb2

Contradiction = tuple[str, str, str]
"""An anomaly's type, short text and description."""

_INT, _FLOAT, _BYTES = schema_pb2.INT, schema_pb2.FLOAT, schema_pb2.BYTES
_TYPES = {
    "domain": (_BYTES, _INT, _FLOAT),
    "string_domain": (_BYTES,),
    "bool_domain": (_INT, _BYTES, _FLOAT),
    "int_domain": (_INT, _BYTES),
    "float_domain": (_FLOAT, _BYTES),
    "natural_language_domain": (_BYTES, _INT),
    "image_domain": (_BYTES,),
    "struct_domain": (schema_pb2.STRUCT,),
    "mid_domain": (_BYTES,),
    "url_domain": (_BYTES,),
    "time_domain": (_INT, _BYTES),
}
"""The types that a domain may have. TFDV does not know the other domains."""
_INVALID = "INVALID_SCHEMA_SPECIFICATION"
_SHORT = "invalid schema"


def contradictions(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> Iterator[Contradiction]:
    """Yields what is wrong with a feature of a given schema."""
    if not feature.type:
        yield "FEATURE_MISSING_TYPE", "no type", "the schema gives no type; write BYTES, INT, FLOAT or STRUCT"
    if not 0 <= feature.presence.min_fraction <= 1:
        text = f"presence.min_fraction is {feature.presence.min_fraction:g}, and must be between 0 and 1"
        yield _INVALID, _SHORT, text
    counts = list(feature.value_counts.value_count)
    if feature.HasField("value_count"):
        counts.append(feature.value_count)
    for count in counts:
        if count.min < 0:
            yield _INVALID, _SHORT, f"the minimum of values is {count.min}, and must not be negative"
        if count.HasField("max") and count.max < count.min:
            yield _INVALID, _SHORT, f"the maximum of values, {count.max}, is less than the minimum, {count.min}"
    if any(dim.size <= 0 for dim in feature.shape.dim):
        yield _INVALID, _SHORT, "each dimension of the shape must have a positive size"
    yield from _domain(feature, schema)


def _domain(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> Iterator[Contradiction]:
    kind = feature.WhichOneof("domain_info")
    is_text_domain = kind == "string_domain" or (
        kind == "domain" and feature.domain in {domain.name for domain in schema.string_domain}
    )
    if feature.HasField("distribution_constraints") and not is_text_domain:
        yield _INVALID, _SHORT, "distribution_constraints need a string domain"
    if kind is None:
        return
    if kind not in _TYPES:
        yield "INVALID_DOMAIN_SPECIFICATION", "invalid domain", f"{kind} is not a domain that can be checked"
        return
    allowed = _BYTES if is_text_domain else None
    if feature.type and feature.type not in ((allowed,) if allowed else _TYPES[kind]):
        name = schema_pb2.FeatureType.Name(feature.type)
        yield "DOMAIN_INVALID_FOR_TYPE", "invalid domain", f"{kind} does not fit the type {name}"
    if kind == "domain":
        shared = {domain.name for domain in [*schema.string_domain, *schema.int_domain, *schema.float_domain]}
        if feature.domain not in shared:
            text = f"the schema does not define the domain {feature.domain!r}"
            yield "INVALID_DOMAIN_SPECIFICATION", "unknown domain", text
    if kind == "string_domain" or is_text_domain:
        yield from _string_domain(feature, schema)
    if kind == "bool_domain":
        yield from _bool_domain(feature)


def _string_domain(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> Iterator[Contradiction]:
    own = feature.HasField("string_domain")
    domain = feature.string_domain if own else next(d for d in schema.string_domain if d.name == feature.domain)
    double = sorted({value for value in domain.value if list(domain.value).count(value) > 1})
    if double:
        yield "INVALID_DOMAIN_SPECIFICATION", "invalid domain", f"the string domain has the value {double[0]!r} twice"


def _bool_domain(feature: schema_pb2.Feature) -> Iterator[Contradiction]:
    domain = feature.bool_domain
    named = [name for name in ("true_value", "false_value") if domain.HasField(name)]
    if feature.type in (_INT, _FLOAT) and named:
        text = f"{' and '.join(named)} of bool_domain need the type BYTES"
        yield "BOOL_TYPE_INVALID_CONFIG", "invalid domain", text
    if feature.type == _BYTES and not named:
        text = "bool_domain of the type BYTES needs true_value or false_value"
        yield "BOOL_TYPE_INVALID_CONFIG", "invalid domain", text
    if len(named) == 2 and domain.true_value == domain.false_value:
        text = f"true_value and false_value of bool_domain are both {domain.true_value!r}"
        yield "INVALID_DOMAIN_SPECIFICATION", "invalid domain", text
