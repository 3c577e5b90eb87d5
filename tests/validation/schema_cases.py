"""For each field of schema.proto: schemas that the data of `schema_tables` violates, and the types of the anomalies."""

from __future__ import annotations

REFUSED = "unsupported"
INVALID = "invalid-value"


def feature(name: str, kind: str, text: str = "") -> str:
    return f'feature {{ name: "{name}" type: {kind} {text} }} '


def _bool(name: str, kind: str, text: str = "") -> str:
    return feature(name, kind, f"bool_domain {{ {text} }}")


def _env(text: str) -> str:
    return 'default_environment: "TRAINING" default_environment: "SERVING" ' + text


def _skew(name: str, kind: str, text: str) -> str:
    return feature(name, kind, f"skew_comparator {{ {text} }}")


def _struct(fields: str, text: str = "") -> str:
    described = "" if 'name: "a"' in fields else feature("a", "INT")
    described += "" if 'name: "b"' in fields else feature("b", "STRUCT")
    return feature("struct", "STRUCT", f"struct_domain {{ {fields} {described} }} {text}")


_LOW_PRESENT = feature("gap", "BYTES", "presence { min_fraction: 0.6 }")
_FEW = feature("gap", "BYTES", "presence { min_count: 5 }")
_BAD_SHARE = feature("n", "INT", "presence { min_fraction: 1.5 }")
_MINIMUM = feature("tags", "BYTES", "value_count { min: 2 }")
_MAXIMUM = feature("tags", "BYTES", "value_count { max: 2 }")
_LEVELS = feature("nested", "INT", "value_count { min: 1 }")
_NEGATIVE = feature("tags", "BYTES", "value_count { min: -1 }")
_REVERSED = feature("tags", "BYTES", "value_count { min: 1 max: 0 }")
_SHAPE = feature("vec", "FLOAT", "shape { dim { size: 4 } }")
_NO_SIZE = feature("vec", "FLOAT", "shape { dim { size: 3 } dim { size: 0 } }")
_OUTSIDE = feature("s", "BYTES", 'string_domain { value: "a" }')
_OUTSIDE_TYPES = {"ENUM_TYPE_UNEXPECTED_STRING_VALUES"}
_TWICE = feature("s", "BYTES", 'string_domain { value: "a" value: "a" value: "b" }')
_SMALL_INT = feature("n", "INT", "int_domain { min: 2 }")
_BIG_INT = feature("n", "INT", "int_domain { max: 3 }")
_SMALL_FLOAT = feature("f", "FLOAT", "float_domain { min: 1 }")
_BIG_FLOAT = feature("f", "FLOAT", "float_domain { max: 3 }")
_L_INFINITY = _skew("s", "BYTES", "infinity_norm { threshold: 0.4 }")
_JENSEN = _skew("f", "FLOAT", "jensen_shannon_divergence { threshold: 0.9 }")
_DIFFERENCE = _skew("s", "BYTES", "normalized_abs_difference { threshold: 0.3 }")
_MANY_FEWER = "dataset_constraints { num_examples_drift_comparator { min_fraction_threshold: 0.5 } }"
_MANY_MORE = "dataset_constraints { num_examples_drift_comparator { max_fraction_threshold: 0.1 } }"
_LOW_ROWS = "dataset_constraints { min_examples_count: 5 }"
_HIGH_ROWS = "dataset_constraints { max_examples_count: 5 }"
_SPEC = {"INVALID_SCHEMA_SPECIFICATION"}
_UNKNOWN = {"INVALID_DOMAIN_SPECIFICATION"}
_MISFIT = {"DOMAIN_INVALID_FOR_TYPE"}
_LOW_VALUES, _HIGH_VALUES = {"FEATURE_TYPE_LOW_NUMBER_VALUES"}, {"FEATURE_TYPE_HIGH_NUMBER_VALUES"}
_TOKENS = {"STATS_NOT_AVAILABLE"}
_TRUE_FALSE = [
    (_bool("yes", "BYTES", 'true_value: "yes" false_value: "nein"'), {"BOOL_TYPE_UNEXPECTED_STRING"}),
    (_bool("yes", "BYTES", 'true_value: "ja" false_value: "no"'), {"BOOL_TYPE_UNEXPECTED_STRING"}),
    (_bool("yes", "BYTES", 'true_value: "yes" false_value: "no"'), set()),
    (_bool("yes", "BYTES"), {"BOOL_TYPE_INVALID_CONFIG", "BOOL_TYPE_UNEXPECTED_STRING"}),
    (feature("n", "INT", 'int_domain {}') + _bool("two", "FLOAT", 'true_value: "1"'),
     {"BOOL_TYPE_INVALID_CONFIG", "BOOL_TYPE_BIG_INT"}),
    (_bool("yes", "BYTES", 'true_value: "yes" false_value: "yes"'), {*_UNKNOWN, "BOOL_TYPE_UNEXPECTED_STRING"}),
]  # fmt: skip

CASES: dict[str, list[tuple[str, set[str] | str]]] = {
    "Schema.feature": [
        (feature("absent", "INT", "presence { min_count: 1 }"), {"SCHEMA_MISSING_COLUMN"}),
        (feature("absent", "INT"), set()),
        ("# n", {"SCHEMA_NEW_COLUMN"}),
    ],
    "Schema.sparse_feature": [('sparse_feature { name: "x" }', REFUSED)],
    "Schema.weighted_feature": [('weighted_feature { name: "x" }', REFUSED)],
    "Schema.string_domain": [
        (feature("s", "BYTES", 'domain: "d"') + 'string_domain { name: "d" value: "a" }', _OUTSIDE_TYPES)
    ],
    "Schema.float_domain": [
        (feature("f", "FLOAT", 'domain: "d"') + 'float_domain { name: "d" min: 1 }', {"FLOAT_TYPE_SMALL_FLOAT"}),
        (feature("f", "FLOAT", 'domain: "d"') + 'float_domain { name: "d" max: 1 }', {"FLOAT_TYPE_BIG_FLOAT"}),
    ],
    "Schema.int_domain": [
        (feature("n", "INT", 'domain: "d"') + 'int_domain { name: "d" min: 2 }', {"INT_TYPE_SMALL_INT"}),
        (feature("n", "INT", 'domain: "d"') + 'int_domain { name: "d" max: 2 }', {"INT_TYPE_BIG_INT"}),
    ],
    "Schema.default_environment": [
        ('default_environment: "SERVING" ' + feature("n", "INT") + feature("s", "BYTES", 'in_environment: "TRAINING"'),
         {"SCHEMA_NEW_COLUMN"}),
        (_env(feature("n", "INT")), set()),
        ('default_environment: "SERVING" ' + feature("n", "INT"), INVALID),
    ],
    "Schema.represent_variable_length_as_ragged": [("represent_variable_length_as_ragged: true", REFUSED)],
    "Schema.annotation": [('annotation { tag: "x" }', set())],
    "Schema.dataset_constraints": [
        (_LOW_ROWS, {"DATASET_LOW_NUM_EXAMPLES"}),
        (_HIGH_ROWS, {"DATASET_HIGH_NUM_EXAMPLES"}),
    ],
    "Schema.tensor_representation_group": [('tensor_representation_group { key: "" value {} }', REFUSED)],
    "Feature.name": [("feature { type: INT }", INVALID), (feature("n", "INT") * 2, INVALID)],
    "Feature.deprecated": [(feature("n", "BYTES", "deprecated: true"), set())],
    "Feature.presence": [
        (_LOW_PRESENT, {"FEATURE_TYPE_LOW_FRACTION_PRESENT"}),
        (_FEW, {"FEATURE_TYPE_LOW_NUMBER_PRESENT"}),
        (feature("none", "BYTES", "presence { min_count: 1 }"), {"FEATURE_TYPE_NOT_PRESENT"}),
        (feature("none", "BYTES"), set()),
    ],
    "Feature.group_presence": [(feature("n", "INT", "group_presence {}"), REFUSED)],
    "Feature.shape": [
        (_SHAPE, {"INVALID_FEATURE_SHAPE"}),
        (_NO_SIZE, {*_SPEC, "INVALID_FEATURE_SHAPE"}),
        (feature("gap", "BYTES", "shape {}"), {"INVALID_FEATURE_SHAPE"}),
        (feature("tags", "BYTES", "shape { dim { size: 1 } }"), {"INVALID_FEATURE_SHAPE"}),
        (feature("vec", "FLOAT", "shape { dim { size: 3 } dim { size: 1 } }") + feature("n", "INT", "shape {}"), set()),
    ],
    "Feature.value_count": [
        (_MINIMUM, _LOW_VALUES),
        (_MAXIMUM, _HIGH_VALUES),
        (_LEVELS, {"VALUE_NESTEDNESS_MISMATCH"}),
        (_NEGATIVE, _SPEC),
        (feature("n", "INT", "value_count { min: 2 }"), _LOW_VALUES),
        (feature("tags", "BYTES", "value_count { min: 1 max: 3 }"), set()),
    ],
    "Feature.value_counts": [
        (feature("nested", "INT", "value_counts { value_count { min: 2 } value_count {} }"), _LOW_VALUES),
        (feature("nested", "INT", "value_counts { value_count {} value_count { max: 1 } }"), _HIGH_VALUES),
        (feature("nested", "INT", "value_counts { value_count { min: 1 } }"), {"VALUE_NESTEDNESS_MISMATCH"}),
        (feature("tags", "BYTES", "value_counts { value_count { min: -1 } }"), _SPEC),
        (feature("nested", "INT", "value_counts { value_count { min: 1 } value_count { max: 2 } }"), set()),
    ],
    "Feature.type": [
        (feature("s", "INT"), {"UNEXPECTED_DATA_TYPE"}),
        (feature("when", "FLOAT"), set()),
        (feature("when", "BYTES"), {"UNEXPECTED_DATA_TYPE"}),
        (feature("vec", "INT"), {"UNEXPECTED_DATA_TYPE"}),
        ('feature { name: "n" }', {"FEATURE_MISSING_TYPE"}),
        (feature("n", "FLOAT"), set()),
    ],
    "Feature.domain": [
        (feature("s", "BYTES", 'domain: "d"') + 'string_domain { name: "d" value: "b" }', _OUTSIDE_TYPES),
        (feature("s", "BYTES", 'domain: "d"'), _UNKNOWN),
    ],
    "Feature.int_domain": [
        (_SMALL_INT, {"INT_TYPE_SMALL_INT"}),
        (feature("f", "FLOAT", "int_domain { min: 1 }"), {*_MISFIT, "FLOAT_TYPE_SMALL_FLOAT"}),
    ],
    "Feature.float_domain": [
        (_SMALL_FLOAT, {"FLOAT_TYPE_SMALL_FLOAT"}),
        (feature("n", "INT", "float_domain {}"), _MISFIT),
    ],
    "Feature.string_domain": [
        (_OUTSIDE, _OUTSIDE_TYPES),
        (feature("n", "INT", 'string_domain { value: "a" }'), _MISFIT),
        (feature("tags", "BYTES", 'string_domain { value: "a" }'), _OUTSIDE_TYPES),
    ],
    "Feature.bool_domain": [
        (_bool("neg", "INT"), {"BOOL_TYPE_SMALL_INT"}),
        (_bool("two", "INT"), {"BOOL_TYPE_BIG_INT"}),
        (_bool("f", "FLOAT"), {"BOOL_TYPE_UNEXPECTED_FLOAT"}),
    ],
    "Feature.struct_domain": [
        (feature("n", "INT", "struct_domain {}"), _MISFIT),
        (feature("struct", "STRUCT", "struct_domain { " + feature("a", "BYTES") + feature("b", "STRUCT") + "}"),
         {"UNEXPECTED_DATA_TYPE"}),
    ],
    "Feature.natural_language_domain": [(feature("f", "FLOAT", "natural_language_domain {}"), _MISFIT)],
    "Feature.image_domain": [(feature("n", "INT", "image_domain {}"), _MISFIT)],
    "Feature.audio_domain": [(feature("image", "BYTES", "audio_domain {}"), {*_UNKNOWN, *_MISFIT})],
    "Feature.video_domain": [(feature("s", "BYTES", "video_domain {}"), _UNKNOWN)],
    "Feature.content_chunk_domain": [(feature("s", "BYTES", "content_chunk_domain {}"), _UNKNOWN)],
    "Feature.mid_domain": [(feature("n", "INT", "mid_domain {}"), _MISFIT)],
    "Feature.url_domain": [(feature("n", "INT", "url_domain {}"), _MISFIT)],
    "Feature.time_domain": [
        (feature("f", "FLOAT", "time_domain {}"), _MISFIT),
        (feature("when", "INT", "time_domain { integer_format: UNIX_SECONDS }"), set()),
    ],
    "Feature.time_of_day_domain": [(feature("s", "BYTES", "time_of_day_domain {}"), _UNKNOWN)],
    "Feature.distribution_constraints": [(feature("n", "INT", "distribution_constraints {}"), _SPEC)],
    "Feature.annotation": [(feature("n", "INT", 'annotation { comment: "x" }'), set())],
    "Feature.skew_comparator": [
        (_L_INFINITY, {"COMPARATOR_L_INFTY_HIGH"}),
        (_skew("s", "BYTES", "infinity_norm { threshold: 0.6 }"), set()),
        (_skew("late", "BYTES", "infinity_norm { threshold: 0.6 }"), {"COMPARATOR_CONTROL_DATA_MISSING"}),
    ],
    "Feature.drift_comparator": [
        (feature("s", "BYTES", "drift_comparator { infinity_norm { threshold: 0.2 } }"), {"COMPARATOR_L_INFTY_HIGH"}),
        (feature("s", "BYTES", "drift_comparator { infinity_norm { threshold: 0.3 } }"), set()),
        (feature("yes", "BYTES", "drift_comparator { infinity_norm { threshold: 0.3 } }"),
         {"COMPARATOR_CONTROL_DATA_MISSING"}),
    ],
    "Feature.in_environment": [
        ('default_environment: "SERVING" '
         + feature("absent", "INT", 'in_environment: "TRAINING" presence { min_count: 1 }'), {"SCHEMA_MISSING_COLUMN"}),
        ('default_environment: "SERVING" ' + feature("n", "INT", 'in_environment: "TRAINING"'), set()),
    ],
    "Feature.not_in_environment": [
        (_env(feature("n", "INT", 'not_in_environment: "TRAINING"')), {"SCHEMA_NEW_COLUMN"}),
        (_env(feature("absent", "INT", 'not_in_environment: "TRAINING" presence { min_count: 1 }')), set()),
    ],
    "Feature.lifecycle_stage": [
        (feature("n", "BYTES", "lifecycle_stage: ALPHA"), set()),
        (feature("n", "BYTES", "lifecycle_stage: BETA"), {"UNEXPECTED_DATA_TYPE"}),
        (feature("n", "INT", "lifecycle_stage: VALIDATION_DERIVED"), REFUSED),
    ],
    "Feature.unique_constraints": [(feature("n", "INT", "unique_constraints { max: 2 }"), {"FEATURE_TYPE_NO_UNIQUE"})],
    "Feature.validation_derived_source": [(feature("n", "INT", "validation_derived_source {}"), REFUSED)],
    "Feature.sequence_metadata": [(feature("tags", "BYTES", "sequence_metadata {}"), REFUSED)],
    "FeaturePresence.min_fraction": [(_LOW_PRESENT, {"FEATURE_TYPE_LOW_FRACTION_PRESENT"}),
                                     (_BAD_SHARE, {*_SPEC, "FEATURE_TYPE_LOW_FRACTION_PRESENT"})],
    "FeaturePresence.min_count": [(_FEW, {"FEATURE_TYPE_LOW_NUMBER_PRESENT"})],
    "FeaturePresenceWithinGroup.required": [(feature("n", "INT", "group_presence { required: true }"), REFUSED)],
    "FixedShape.dim": [(_SHAPE, {"INVALID_FEATURE_SHAPE"})],
    "FixedShape.Dim.size": [(_SHAPE, {"INVALID_FEATURE_SHAPE"}), (_NO_SIZE, {*_SPEC, "INVALID_FEATURE_SHAPE"})],
    "FixedShape.Dim.name": [(feature("vec", "FLOAT", 'shape { dim { size: 3 name: "x" } }'), set())],
    "ValueCount.min": [(_MINIMUM, _LOW_VALUES), (_NEGATIVE, _SPEC)],
    "ValueCount.max": [(_MAXIMUM, _HIGH_VALUES), (_REVERSED, {*_SPEC, *_HIGH_VALUES})],
    "ValueCountList.value_count": [
        (feature("tags", "BYTES", "value_counts { value_count {} value_count {} }"), {"VALUE_NESTEDNESS_MISMATCH"})
    ],
    "DistributionConstraints.min_domain_mass": [
        (feature("s", "BYTES", 'string_domain { value: "a" } distribution_constraints { min_domain_mass: 0.6 }'),
         _OUTSIDE_TYPES),
        (feature("s", "BYTES", 'string_domain { value: "a" } distribution_constraints { min_domain_mass: 0.5 }'),
         set()),
    ],
    "UniqueConstraints.min": [(feature("yes", "BYTES", "unique_constraints { min: 3 max: 9 }"),
                               {"FEATURE_TYPE_LOW_UNIQUE"})],
    "UniqueConstraints.max": [(feature("yes", "BYTES", "unique_constraints { max: 1 }"), {"FEATURE_TYPE_HIGH_UNIQUE"})],
    "DatasetConstraints.num_examples_drift_comparator": [
        (_MANY_FEWER, {"COMPARATOR_LOW_NUM_EXAMPLES"}),
        (_MANY_MORE, {"COMPARATOR_HIGH_NUM_EXAMPLES"}),
    ],
    "DatasetConstraints.num_examples_version_comparator": [
        ("dataset_constraints { num_examples_version_comparator {} }", REFUSED)
    ],
    "DatasetConstraints.min_examples_count": [(_LOW_ROWS, {"DATASET_LOW_NUM_EXAMPLES"})],
    "DatasetConstraints.max_examples_count": [(_HIGH_ROWS, {"DATASET_HIGH_NUM_EXAMPLES"})],
    "NumericValueComparator.min_fraction_threshold": [(_MANY_FEWER, {"COMPARATOR_LOW_NUM_EXAMPLES"})],
    "NumericValueComparator.max_fraction_threshold": [(_MANY_MORE, {"COMPARATOR_HIGH_NUM_EXAMPLES"})],
    "FeatureComparator.infinity_norm": [
        (_L_INFINITY, {"COMPARATOR_L_INFTY_HIGH"}),
        (_skew("f", "FLOAT", "infinity_norm { threshold: 0.4 }"), _SPEC),
    ],
    "FeatureComparator.jensen_shannon_divergence": [
        (_JENSEN, {"COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"}),
        (_skew("s", "BYTES", "jensen_shannon_divergence { threshold: 0.1 }"),
         {"COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"}),
    ],
    "FeatureComparator.normalized_abs_difference": [
        (_DIFFERENCE, {"COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH"}),
        (_skew("f", "FLOAT", "normalized_abs_difference { threshold: 0.4 }"), _SPEC),
    ],
    "InfinityNorm.threshold": [(_L_INFINITY, {"COMPARATOR_L_INFTY_HIGH"})],
    "JensenShannonDivergence.threshold": [(_JENSEN, {"COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"})],
    "JensenShannonDivergence.source": [
        (_skew("f", "FLOAT", "jensen_shannon_divergence { threshold: 0.9 source { type: QUANTILES } }"),
         {"COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"})
    ],
    "HistogramSelection.type": [
        (_skew("f", "FLOAT", "jensen_shannon_divergence { threshold: 0.9 source { type: STANDARD } }"),
         {"COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"})
    ],
    "NormalizedAbsoluteDifference.threshold": [(_DIFFERENCE, {"COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH"})],
    "IntDomain.name": [
        (feature("n", "INT", 'domain: "d"') + 'int_domain { name: "e" }', _UNKNOWN),
    ],
    "IntDomain.min": [
        (_SMALL_INT, {"INT_TYPE_SMALL_INT"}),
        (feature("digits", "BYTES", "int_domain { min: 6 }"), {"INT_TYPE_SMALL_INT"}),
        (feature("s", "BYTES", "int_domain { min: 6 }"), {"INT_TYPE_NOT_INT_STRING"}),
    ],
    "IntDomain.max": [
        (_BIG_INT, {"INT_TYPE_BIG_INT"}),
        (feature("digits", "BYTES", "int_domain { max: 6 }"), {"INT_TYPE_BIG_INT"}),
        (feature("s", "BYTES", "int_domain { max: 6 }"), {"INT_TYPE_NOT_INT_STRING"}),
        (feature("digits", "BYTES", "int_domain { min: 5 max: 17 }"), set()),
    ],
    "IntDomain.is_categorical": [
        (feature("n", "INT", "int_domain { is_categorical: true max: 7 } unique_constraints { max: 7 }"),
         {"FEATURE_TYPE_HIGH_UNIQUE", "INT_TYPE_BIG_INT"})
    ],
    "FloatDomain.name": [(feature("f", "FLOAT", 'domain: "d"') + 'float_domain { name: "e" }', _UNKNOWN)],
    "FloatDomain.min": [
        (_SMALL_FLOAT, {"FLOAT_TYPE_SMALL_FLOAT"}),
        (feature("digits", "BYTES", "float_domain { min: 6.5 }"), {"FLOAT_TYPE_SMALL_FLOAT"}),
        (feature("s", "BYTES", "float_domain { min: 6.5 }"), {"FLOAT_TYPE_STRING_NOT_FLOAT"}),
    ],
    "FloatDomain.max": [
        (_BIG_FLOAT, {"FLOAT_TYPE_BIG_FLOAT"}),
        (feature("inf", "FLOAT", "float_domain { max: 6 }"), {"FLOAT_TYPE_BIG_FLOAT"}),
        (feature("digits", "BYTES", "float_domain { max: 6.5 }"), {"FLOAT_TYPE_BIG_FLOAT"}),
        (feature("s", "BYTES", "float_domain { max: 6.5 }"), {"FLOAT_TYPE_STRING_NOT_FLOAT"}),
    ],
    "FloatDomain.disallow_nan": [
        (feature("nan", "FLOAT", "float_domain { disallow_nan: true }"), {"FLOAT_TYPE_HAS_NAN"}),
        (feature("decimals", "BYTES", "float_domain { disallow_nan: true }"), {"FLOAT_TYPE_HAS_NAN"}),
    ],
    "FloatDomain.disallow_inf": [
        (feature("inf", "FLOAT", "float_domain { disallow_inf: true }"), {"FLOAT_TYPE_HAS_INF"}),
        (feature("decimals", "BYTES", "float_domain { disallow_inf: true }"), {"FLOAT_TYPE_HAS_INF"}),
    ],
    "FloatDomain.is_embedding": [
        (feature("tags", "BYTES", "float_domain { is_embedding: true }"),
         {"EMBEDDING_SHAPE_INVALID", "FLOAT_TYPE_STRING_NOT_FLOAT"}),
        (feature("vec", "FLOAT", "float_domain { is_embedding: true }"), set()),
    ],
    "FloatDomain.is_categorical": [
        (feature("f", "FLOAT", "float_domain { is_categorical: true } unique_constraints { max: 7 }"),
         {"FEATURE_TYPE_HIGH_UNIQUE"})
    ],
    "FloatDomain.embedding_dim": [
        (feature("vec", "FLOAT", "float_domain { is_embedding: true embedding_dim: 4 }"), {"EMBEDDING_SHAPE_INVALID"})
    ],
    "FloatDomain.embedding_type": [(feature("f", "FLOAT", 'float_domain { embedding_type: "x" }'), set())],
    "StringDomain.name": [
        (feature("s", "BYTES", 'domain: "d"') + 'string_domain { name: "e" value: "a" }', _UNKNOWN),
    ],
    "StringDomain.value": [(_OUTSIDE, _OUTSIDE_TYPES), (_TWICE, _UNKNOWN)],
    "StringDomain.is_categorical": [
        (feature("s", "BYTES", 'string_domain { value: "a" value: "b" is_categorical: CATEGORICAL_NO }'), set())
    ],
    "BoolDomain.name": [(_bool("yes", "BYTES", 'name: "x" true_value: "yes" false_value: "no"'), set())],
    "BoolDomain.true_value": _TRUE_FALSE,
    "BoolDomain.false_value": _TRUE_FALSE,
    "StructDomain.feature": [
        (_struct(feature("a", "INT", "int_domain { max: 2 }")), {"INT_TYPE_BIG_INT"}),
        (_struct(feature("c", "INT", "presence { min_count: 1 }")), {"SCHEMA_MISSING_COLUMN"}),
        (_struct(feature("a", "INT", "presence { min_fraction: 0.7 }")), {"FEATURE_TYPE_LOW_FRACTION_PRESENT"}),
        (_struct(feature("a", "INT", "presence { min_fraction: 0.5 } int_domain { min: 1 max: 3 }")), set()),
        (_struct(feature("b", "STRUCT", "struct_domain { " + feature("t", "BYTES", "value_count { max: 1 }") + "}")),
         _HIGH_VALUES),
        (_struct(feature("b", "STRUCT", "struct_domain { " + feature("t", "BYTES", "value_count { max: 2 }") + "}")),
         set()),
        (_struct(feature("a", "BYTES", "lifecycle_stage: PLANNED")), set()),
        (_struct(feature("a", "BYTES"), "lifecycle_stage: PLANNED"), set()),
    ],
    "StructDomain.sparse_feature": [(feature("n", "STRUCT", 'struct_domain { sparse_feature {} }'), REFUSED)],
    "NaturalLanguageDomain.vocabulary": [
        (feature("s", "BYTES", 'natural_language_domain { vocabulary: "x" }'), set())
    ],
    "NaturalLanguageDomain.coverage": [
        (feature("s", "BYTES", "natural_language_domain { coverage { min_coverage: 0.5 } }"), _TOKENS)
    ],
    "NaturalLanguageDomain.token_constraints": [
        (feature("s", "BYTES", 'natural_language_domain { token_constraints { string_value: "a" } }'), _TOKENS)
    ],
    "NaturalLanguageDomain.sequence_length_constraints": [
        (feature("s", "BYTES", "natural_language_domain { sequence_length_constraints {} }"), _TOKENS)
    ],
    "ImageDomain.minimum_supported_image_fraction": [
        (feature("image", "BYTES", "image_domain { minimum_supported_image_fraction: 0.6 }"),
         {"LOW_SUPPORTED_IMAGE_FRACTION"}),
        (feature("image", "BYTES", "image_domain { minimum_supported_image_fraction: 0.5 }"), set()),
    ],
    "ImageDomain.max_image_byte_size": [
        (feature("image", "BYTES", "image_domain { max_image_byte_size: 7 }"), {"MAX_IMAGE_BYTE_SIZE_EXCEEDED"})
    ],
    "TimeDomain.string_format": [(feature("s", "BYTES", 'time_domain { string_format: "%Y" }'), set())],
    "TimeDomain.integer_format": [(feature("n", "INT", "time_domain { integer_format: UNIX_DAYS }"), set())],
    "TimeOfDayDomain.string_format": [
        (feature("s", "BYTES", 'time_of_day_domain { string_format: "%H" }'), _UNKNOWN)
    ],
    "TimeOfDayDomain.integer_format": [
        (feature("n", "INT", "time_of_day_domain { integer_format: PACKED_64_NANOS }"), _UNKNOWN)
    ],
}  # fmt: skip
"""By message and field: schemas, each with the anomalies that it gives, or the code that refuses it. `# NAME` adds a
column that the schema does not describe."""

_TOKEN_CASES = {
    ("FeatureCoverageConstraints", "coverage"): [
        "min_coverage: 0.5",
        "min_avg_token_length: 2",
        'excluded_string_tokens: "a"',
        "excluded_int_tokens: 1",
        'oov_string_tokens: "a"',
    ],
    ("SequenceValueConstraints", "token_constraints"): [
        "int_value: 1",
        'string_value: "a"',
        "min_per_sequence: 1",
        "max_per_sequence: 1",
        "min_fraction_of_sequences: 0.5",
        "max_fraction_of_sequences: 0.5",
    ],
    ("SequenceLengthConstraints", "sequence_length_constraints"): [
        "excluded_int_value: 1",
        'excluded_string_value: "a"',
        "min_sequence_length: 1",
        "max_sequence_length: 1",
    ],
}
for (_message, _field), _texts in _TOKEN_CASES.items():
    for _text in _texts:
        _case = feature("s", "BYTES", f"natural_language_domain {{ {_field} {{ {_text} }} }}")
        CASES[f"{_message}.{_text.partition(':')[0]}"] = [(_case, _TOKENS)]
