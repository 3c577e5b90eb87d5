"""The text of a given schema: parsed, and refused if it has fields that Tidemill does not obey.

A given schema is obeyed or refused, never ignored in part. `field_table` lists what happens with each field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill.errors import Code, TidemillError

WHERE = "validation.schema"
_UNCHECKED_STAGES = (
    schema_pb2.PLANNED,
    schema_pb2.ALPHA,
    schema_pb2.DEPRECATED,
    schema_pb2.DEBUG_ONLY,
    schema_pb2.DISABLED,
)


def parse(text: str) -> schema_pb2.Schema:
    """Parses a schema from a text protocol buffer.

    Raises:
        TidemillError: `invalid-value` if the text does not parse, describes a column twice, or has a feature without a
            name; `unsupported` if it has a field that Tidemill does not obey.
    """
    try:
        schema = text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        want = "write a tensorflow_metadata Schema as text, such as the schema.pbtxt of an earlier run"
        raise TidemillError(Code.INVALID_VALUE, WHERE, f"a schema that does not parse ({error})", want) from error
    described = list(_with_children(schema.feature))
    names = [name for name, _ in described]
    if any(not feature.name for _, feature in described):
        raise TidemillError(Code.INVALID_VALUE, WHERE, "a feature without a name", "give each feature a name")
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise TidemillError(Code.INVALID_VALUE, WHERE, f"feature {double[0]!r} twice", "describe each column once")
    checked = [(name, feature) for name, feature in described if is_checked(feature)]
    if refused := list(dict.fromkeys([*_refused_of_schema(schema), *_refused_of_features(checked)])):
        want = "remove them from the schema, or check them in the query" if len(refused) > 1 else "remove it"
        got = f"{', '.join(refused)}, which Tidemill does not check"
        raise TidemillError(Code.UNSUPPORTED, WHERE, got, want, {"fields": refused})
    return schema


def flatten(schema: schema_pb2.Schema, environment: str | None) -> schema_pb2.Schema:
    """Returns a schema in which the features of structs are features of their own, with names such as `struct.field`.

    The fields of a struct that is not checked, or not expected in the environment, are left out.
    """
    flat = schema_pb2.Schema()
    flat.CopyFrom(schema)
    del flat.feature[:]
    left_out: list[str] = []
    for name, feature in _with_children(schema.feature):
        if any(name.startswith(f"{parent}.") for parent in left_out):
            continue
        if not is_checked(feature) or not in_environment(feature, schema, environment):
            left_out.append(name)
        copy = flat.feature.add()
        copy.CopyFrom(feature)
        copy.name = name
    return flat


def is_checked(feature: schema_pb2.Feature) -> bool:
    """Returns whether a feature's lifecycle stage is one of those that are validated."""
    return not feature.deprecated and feature.lifecycle_stage not in _UNCHECKED_STAGES


def environment(schema: schema_pb2.Schema, name: str) -> str | None:
    """Returns the environment in which the data is checked.

    Args:
        schema: The given schema.
        name: The experiment's `validation.environment`.

    Returns:
        `name`, or None if the schema names no environment. Then every feature is expected.

    Raises:
        TidemillError: `invalid-value` if the schema names environments, but not this one.
    """
    named = set(schema.default_environment)
    for _, feature in _with_children(schema.feature):
        named |= {*feature.in_environment, *feature.not_in_environment}
    if not named:
        return None
    if name not in named:
        got = f"{name!r}, where the schema names {', '.join(map(repr, sorted(named)))}"
        want = "name an environment of the schema, or add it to default_environment"
        raise TidemillError(Code.INVALID_VALUE, "validation.environment", got, want)
    return name


def in_environment(feature: schema_pb2.Feature, schema: schema_pb2.Schema, name: str | None) -> bool:
    """Returns whether a feature is expected in an environment, as TFDV decides it. None: no environment is chosen."""
    if name is None or name in feature.in_environment:
        return True
    return name not in feature.not_in_environment and name in schema.default_environment


def shape_of(feature: schema_pb2.Feature) -> Sequence[int] | None:
    """Returns the fixed shape of a row's values; None if the schema has none."""
    return [dim.size for dim in feature.shape.dim] if feature.HasField("shape") else None


def _refused_of_schema(schema: schema_pb2.Schema) -> Iterator[str]:
    for sparse in schema.sparse_feature:
        yield f"sparse_feature {sparse.name!r}"
    for weighted in schema.weighted_feature:
        yield f"weighted_feature {weighted.name!r}"
    if schema.represent_variable_length_as_ragged:
        yield "represent_variable_length_as_ragged"
    if schema.tensor_representation_group:
        yield "tensor_representation_group"
    if schema.dataset_constraints.HasField("num_examples_version_comparator"):
        yield "dataset_constraints.num_examples_version_comparator"


def _refused_of_features(features: Sequence[tuple[str, schema_pb2.Feature]]) -> Iterator[str]:
    for name, feature in features:
        for field in ("group_presence", "validation_derived_source", "sequence_metadata"):
            if feature.HasField(field):
                yield f"{field} of feature {name!r}"
        if feature.struct_domain.sparse_feature:
            yield f"sparse_feature in struct_domain of feature {name!r}"
        if feature.lifecycle_stage == schema_pb2.VALIDATION_DERIVED:
            yield f"lifecycle_stage VALIDATION_DERIVED of feature {name!r}"


def _with_children(
    features: Iterable[schema_pb2.Feature], prefix: str = ""
) -> Iterator[tuple[str, schema_pb2.Feature]]:
    """Yields all features with their names, those of a struct after it."""
    for feature in features:
        name = prefix + feature.name
        yield name, feature
        yield from _with_children(feature.struct_domain.feature, f"{name}.")
