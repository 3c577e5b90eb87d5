"""What Tidemill does with each field of a given schema. `docs/schema.md` is generated from this table.

A field is *checked* (data that violates it is an anomaly), *used* (it says how another field or column is read),
*refused* (a schema with it stops the run with the code `unsupported`) or *ignored* (it says nothing about the data).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_UNKNOWN_DOMAIN = "No such domain can be checked; TFDV reports it in the same way."


@dataclass(frozen=True)
class FieldRule:
    """The rule of one field.

    Attributes:
        effect: What happens with the field.
        anomalies: Types of the anomalies that a violation gives.
        text: What the field means for the data.
    """

    effect: Literal["checked", "used", "refused", "ignored"]
    anomalies: tuple[str, ...]
    text: str


def _checked(anomalies: str, text: str) -> FieldRule:
    return FieldRule("checked", tuple(anomalies.split()), text)


def _used(text: str) -> FieldRule:
    return FieldRule("used", (), text)


def _refused(text: str) -> FieldRule:
    return FieldRule("refused", (), text)


def _ignored(text: str = "Documentation.") -> FieldRule:
    return FieldRule("ignored", (), text)


_SCHEMA = {
    "feature": _checked(
        "SCHEMA_MISSING_COLUMN SCHEMA_NEW_COLUMN",
        "Each required feature is a column. A column that is not described is an error if a model reads it, else a "
        "warning.",
    ),
    "sparse_feature": _refused("Use a transform module that takes several columns."),
    "weighted_feature": _refused("Use a transform module that takes several columns."),
    "string_domain": _checked("ENUM_TYPE_UNEXPECTED_STRING_VALUES", "The domains that `feature.domain` names."),
    "float_domain": _checked("FLOAT_TYPE_SMALL_FLOAT FLOAT_TYPE_BIG_FLOAT", "As `string_domain`. TFDV ignores it."),
    "int_domain": _checked("INT_TYPE_SMALL_INT INT_TYPE_BIG_INT", "As `string_domain`. TFDV ignores it."),
    "default_environment": _checked(
        "SCHEMA_NEW_COLUMN",
        "The environments of features that name none. The examples are checked in `validation.environment`.",
    ),
    "represent_variable_length_as_ragged": _refused("Refused if true."),
    "annotation": _ignored(),
    "dataset_constraints": _checked(
        "DATASET_LOW_NUM_EXAMPLES DATASET_HIGH_NUM_EXAMPLES", "The number of rows of each split."
    ),
    "tensor_representation_group": _refused("Use `feature.shape`."),
}
_FEATURE = {
    "name": _refused("A feature without a name, or a name that occurs twice, is refused with `invalid-value`."),
    "deprecated": _used("A feature with `deprecated: true` is not checked."),
    "presence": _checked(
        "FEATURE_TYPE_LOW_FRACTION_PRESENT FEATURE_TYPE_LOW_NUMBER_PRESENT FEATURE_TYPE_NOT_PRESENT",
        "How many rows of each split have a value. A null, NaN and a missing list are no value; an empty list is one.",
    ),
    "group_presence": _refused("It is for features within structs."),
    "shape": _checked(
        "INVALID_FEATURE_SHAPE INVALID_SCHEMA_SPECIFICATION",
        "Each row has as many values as the shape, and none is missing. A transform module receives the column as a "
        "dense tensor `[batch, *shape]`.",
    ),
    "value_count": _checked(
        "FEATURE_TYPE_LOW_NUMBER_VALUES FEATURE_TYPE_HIGH_NUMBER_VALUES VALUE_NESTEDNESS_MISMATCH "
        "INVALID_SCHEMA_SPECIFICATION",
        "The number of values in a row that has the feature. Nulls in a list are not values.",
    ),
    "value_counts": _checked(
        "FEATURE_TYPE_LOW_NUMBER_VALUES FEATURE_TYPE_HIGH_NUMBER_VALUES VALUE_NESTEDNESS_MISMATCH "
        "INVALID_SCHEMA_SPECIFICATION",
        "The same for lists in lists, one entry for each level.",
    ),
    "type": _checked(
        "UNEXPECTED_DATA_TYPE FEATURE_MISSING_TYPE",
        "`ingest` converts columns and the values of lists to the type. Values that are not exact afterwards are "
        "malformed rows; columns that have no such value, such as times for FLOAT, are an anomaly.",
    ),
    "domain": _checked(
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES INVALID_DOMAIN_SPECIFICATION", "The name of a domain of the schema."
    ),
    "int_domain": _checked("INT_TYPE_SMALL_INT DOMAIN_INVALID_FOR_TYPE", "See `IntDomain`. For INT and BYTES."),
    "float_domain": _checked(
        "FLOAT_TYPE_SMALL_FLOAT DOMAIN_INVALID_FOR_TYPE", "See `FloatDomain`. For FLOAT and BYTES."
    ),
    "string_domain": _checked(
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES DOMAIN_INVALID_FOR_TYPE", "See `StringDomain`. For BYTES."
    ),
    "bool_domain": _checked(
        "BOOL_TYPE_SMALL_INT BOOL_TYPE_BIG_INT BOOL_TYPE_UNEXPECTED_FLOAT",
        "See `BoolDomain`. For INT and FLOAT the values are 0 and 1.",
    ),
    "struct_domain": _checked(
        "UNEXPECTED_DATA_TYPE DOMAIN_INVALID_FOR_TYPE",
        "See `StructDomain`. For STRUCT. For lists of structs it is refused; select their fields in the query.",
    ),
    "natural_language_domain": _checked("DOMAIN_INVALID_FOR_TYPE", "See `NaturalLanguageDomain`. For BYTES and INT."),
    "image_domain": _checked("DOMAIN_INVALID_FOR_TYPE", "See `ImageDomain`. For BYTES."),
    "audio_domain": _checked("INVALID_DOMAIN_SPECIFICATION", _UNKNOWN_DOMAIN),
    "video_domain": _checked("INVALID_DOMAIN_SPECIFICATION", _UNKNOWN_DOMAIN),
    "content_chunk_domain": _checked("INVALID_DOMAIN_SPECIFICATION", _UNKNOWN_DOMAIN),
    "mid_domain": _checked("DOMAIN_INVALID_FOR_TYPE", "For BYTES. The values are not checked, as in TFDV."),
    "url_domain": _checked("DOMAIN_INVALID_FOR_TYPE", "For BYTES. The values are not checked, as in TFDV."),
    "time_domain": _checked("DOMAIN_INVALID_FOR_TYPE", "For INT and BYTES. The values are not checked, as in TFDV."),
    "time_of_day_domain": _checked("INVALID_DOMAIN_SPECIFICATION", _UNKNOWN_DOMAIN),
    "distribution_constraints": _checked(
        "INVALID_SCHEMA_SPECIFICATION", "See `DistributionConstraints`. Only for string domains."
    ),
    "annotation": _ignored(),
    "skew_comparator": _checked(
        "COMPARATOR_L_INFTY_HIGH COMPARATOR_CONTROL_DATA_MISSING",
        "See `FeatureComparator`. Compares train with each other split, which stands for the data that is served.",
    ),
    "drift_comparator": _checked(
        "COMPARATOR_L_INFTY_HIGH COMPARATOR_CONTROL_DATA_MISSING",
        "See `FeatureComparator`. Compares train with the train split of the published model, if there is one.",
    ),
    "in_environment": _checked("SCHEMA_MISSING_COLUMN", "Environments of the feature beyond the default ones."),
    "not_in_environment": _checked("SCHEMA_NEW_COLUMN", "Environments in which the feature is not expected."),
    "lifecycle_stage": _used(
        "PLANNED, ALPHA, DEPRECATED, DEBUG_ONLY and DISABLED features are not checked. VALIDATION_DERIVED is refused."
    ),
    "unique_constraints": _checked(
        "FEATURE_TYPE_NO_UNIQUE", "See `UniqueConstraints`. For text and for categories; others have no such count."
    ),
    "validation_derived_source": _refused("Compute derived columns in the query."),
    "sequence_metadata": _refused("A transform module decides how a list is read."),
}
_PARTS = {
    "FeaturePresence": {
        "min_fraction": _checked(
            "FEATURE_TYPE_LOW_FRACTION_PRESENT INVALID_SCHEMA_SPECIFICATION", "Share of the rows. 0 to 1."
        ),
        "min_count": _checked("FEATURE_TYPE_LOW_NUMBER_PRESENT", "Number of rows of each split."),
    },
    "FeaturePresenceWithinGroup": {"required": _refused("See `Feature.group_presence`.")},
    "FixedShape": {"dim": _checked("INVALID_FEATURE_SHAPE", "The dimensions. Without one, a row has one value.")},
    "FixedShape.Dim": {
        "size": _checked("INVALID_FEATURE_SHAPE INVALID_SCHEMA_SPECIFICATION", "At least 1."),
        "name": _ignored(),
    },
    "ValueCount": {
        "min": _checked("FEATURE_TYPE_LOW_NUMBER_VALUES INVALID_SCHEMA_SPECIFICATION", "At least 0."),
        "max": _checked("FEATURE_TYPE_HIGH_NUMBER_VALUES INVALID_SCHEMA_SPECIFICATION", "At least `min`."),
    },
    "ValueCountList": {
        "value_count": _checked("VALUE_NESTEDNESS_MISMATCH", "One entry for each level of lists, the outer first.")
    },
    "DistributionConstraints": {
        "min_domain_mass": _checked(
            "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "Smallest share of the values that are in the domain. Default: 1."
        )
    },
    "UniqueConstraints": {
        "min": _checked("FEATURE_TYPE_LOW_UNIQUE", "Number of distinct values in each split."),
        "max": _checked("FEATURE_TYPE_HIGH_UNIQUE", "Number of distinct values in each split."),
    },
    "DatasetConstraints": {
        "num_examples_drift_comparator": _checked(
            "COMPARATOR_LOW_NUM_EXAMPLES COMPARATOR_HIGH_NUM_EXAMPLES",
            "Rows of train as a multiple of those of the published model's train split, if there is one.",
        ),
        "num_examples_version_comparator": _refused("Use `num_examples_drift_comparator`."),
        "min_examples_count": _checked("DATASET_LOW_NUM_EXAMPLES", "Rows of each split."),
        "max_examples_count": _checked("DATASET_HIGH_NUM_EXAMPLES", "Rows of each split."),
    },
    "NumericValueComparator": {
        "min_fraction_threshold": _checked("COMPARATOR_LOW_NUM_EXAMPLES", "Smallest multiple."),
        "max_fraction_threshold": _checked("COMPARATOR_HIGH_NUM_EXAMPLES", "Largest multiple."),
    },
    "FeatureComparator": {
        "infinity_norm": _checked(
            "COMPARATOR_L_INFTY_HIGH INVALID_SCHEMA_SPECIFICATION", "For text and categories; numbers have none."
        ),
        "jensen_shannon_divergence": _checked(
            "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "For numbers, text and categories."
        ),
        "normalized_abs_difference": _checked(
            "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH INVALID_SCHEMA_SPECIFICATION",
            "For text and categories. It compares counts, so train must have about as many rows as the other side.",
        ),
    },
    "InfinityNorm": {"threshold": _checked("COMPARATOR_L_INFTY_HIGH", "Largest difference of a value's shares.")},
    "JensenShannonDivergence": {
        "threshold": _checked("COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "Largest divergence, 0 to 1."),
        "source": _used("See `HistogramSelection`."),
    },
    "HistogramSelection": {
        "type": _used("`QUANTILES`, or by default `STANDARD`: the histogram of numbers that is compared.")
    },
    "NormalizedAbsoluteDifference": {
        "threshold": _checked(
            "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH",
            "Largest difference of a value's counts, divided by the number of values of both sides.",
        )
    },
}
_TOKENS = _checked("STATS_NOT_AVAILABLE", "Statistics of tokens are not computed.")
_NAME = _used("The name that `Feature.domain` refers to.")
_DOMAINS = {
    "IntDomain": {
        "name": _NAME,
        "min": _checked("INT_TYPE_SMALL_INT INT_TYPE_NOT_INT_STRING", "Smallest integer, of text too."),
        "max": _checked("INT_TYPE_BIG_INT INT_TYPE_NOT_INT_STRING", "Largest integer, of text too."),
        "is_categorical": _used("With a transform module, the column's values are counted as categories."),
    },
    "FloatDomain": {
        "name": _NAME,
        "min": _checked("FLOAT_TYPE_SMALL_FLOAT FLOAT_TYPE_STRING_NOT_FLOAT", "Smallest number, of text too."),
        "max": _checked("FLOAT_TYPE_BIG_FLOAT FLOAT_TYPE_STRING_NOT_FLOAT", "Largest number, of text too."),
        "disallow_nan": _checked("FLOAT_TYPE_HAS_NAN", "`ingest` makes NaN null, so only text can have NaN."),
        "disallow_inf": _checked("FLOAT_TYPE_HAS_INF", "Infinities are also beyond `min` and `max`."),
        "is_embedding": _checked("EMBEDDING_SHAPE_INVALID", "Each row has the same number of values."),
        "is_categorical": _used("With a transform module, the column's values are counted as categories."),
        "embedding_dim": _checked("EMBEDDING_SHAPE_INVALID", "The number of values of an embedding."),
        "embedding_type": _ignored(),
    },
    "StringDomain": {
        "name": _NAME,
        "value": _checked("ENUM_TYPE_UNEXPECTED_STRING_VALUES INVALID_DOMAIN_SPECIFICATION", "Each value once."),
        "is_categorical": _ignored("Unused, as in TFDV."),
    },
    "BoolDomain": {
        "name": _ignored("TFDV has no shared bool domains."),
        "true_value": _checked(
            "BOOL_TYPE_UNEXPECTED_STRING BOOL_TYPE_INVALID_CONFIG INVALID_DOMAIN_SPECIFICATION", "For BYTES."
        ),
        "false_value": _checked(
            "BOOL_TYPE_UNEXPECTED_STRING BOOL_TYPE_INVALID_CONFIG INVALID_DOMAIN_SPECIFICATION", "For BYTES."
        ),
    },
    "StructDomain": {
        "feature": _checked(
            "SCHEMA_MISSING_COLUMN FEATURE_TYPE_LOW_FRACTION_PRESENT INT_TYPE_BIG_INT FEATURE_TYPE_HIGH_NUMBER_VALUES",
            "The fields of a struct, checked as columns are. Presence counts the rows that have the struct.",
        ),
        "sparse_feature": _refused("Use a transform module that takes several columns."),
    },
    "NaturalLanguageDomain": {
        "vocabulary": _ignored(),
        "coverage": _TOKENS,
        "token_constraints": _TOKENS,
        "sequence_length_constraints": _TOKENS,
    },
    "FeatureCoverageConstraints": {
        "min_coverage": _TOKENS,
        "min_avg_token_length": _TOKENS,
        "excluded_string_tokens": _TOKENS,
        "excluded_int_tokens": _TOKENS,
        "oov_string_tokens": _TOKENS,
    },
    "SequenceValueConstraints": {
        "int_value": _TOKENS,
        "string_value": _TOKENS,
        "min_per_sequence": _TOKENS,
        "max_per_sequence": _TOKENS,
        "min_fraction_of_sequences": _TOKENS,
        "max_fraction_of_sequences": _TOKENS,
    },
    "SequenceLengthConstraints": {
        "excluded_int_value": _TOKENS,
        "excluded_string_value": _TOKENS,
        "min_sequence_length": _TOKENS,
        "max_sequence_length": _TOKENS,
    },
    "ImageDomain": {
        "minimum_supported_image_fraction": _checked(
            "LOW_SUPPORTED_IMAGE_FRACTION", "Share of values that begin as JPEG, PNG, GIF or BMP files do."
        ),
        "max_image_byte_size": _checked("MAX_IMAGE_BYTE_SIZE_EXCEEDED", "Bytes of the largest value."),
    },
    "AudioDomain": {},
    "VideoDomain": {},
    "ContentChunkDomain": {},
    "MIDDomain": {},
    "URLDomain": {},
    "TimeDomain": {"string_format": _ignored("TFDV does not check it."), "integer_format": _ignored("As above.")},
    "TimeOfDayDomain": {
        "string_format": _checked("INVALID_DOMAIN_SPECIFICATION", _UNKNOWN_DOMAIN),
        "integer_format": _checked("INVALID_DOMAIN_SPECIFICATION", _UNKNOWN_DOMAIN),
    },
}
FIELDS: dict[str, dict[str, FieldRule]] = {"Schema": _SCHEMA, "Feature": _FEATURE, **_PARTS, **_DOMAINS}
"""The rule of each field, by message of schema.proto and by the field's name."""
