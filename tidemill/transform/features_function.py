"""The experiment's `features` as a TensorFlow Transform preprocessing_fn.

Statistics (mean, variance, minimum, maximum, quantiles, vocabularies) come from the present values of the train split.
The value that replaces a missing number goes through the same transform as a present number. All analyzers depend only
on raw columns, so one pass over the data serves them all; only the scaling of clipped numbers needs a second one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from tidemill.errors import Code, TidemillError
from tidemill.experiment.features import (
    Bucketize,
    Categorical,
    Clip,
    Cross,
    Feature,
    Numeric,
    Vocabulary,
    raw_column_names,
)
from tidemill.transform.raw import RawColumn, raw_columns

if TYPE_CHECKING:
    import tensorflow as tf

LOG2_SMALLEST = -10
LOG2_LARGEST = 63 * 63
LOG2_IDS = 2 - LOG2_SMALLEST + 2 + LOG2_LARGEST
"""Number of ids of `log2_squared`: 0 for a missing value; 1 to 13 for floor(x) = -10 (and below) to 2; 13 + k for x
above 2, where k = floor(log2(x)^2) is 1 to 63^2. The largest int64 has k = 63^2, which larger floats share."""
LN_LARGEST = 1906
LN_IDS = 2 - LOG2_SMALLEST + 3 + LN_LARGEST
"""Number of ids of `ln_squared`: as those of `log2_squared`, but 14 + k for x above 2, where k = floor(ln(x)^2) is 0 to
1906."""
_LOG2_ROUNDING = 1e-9
_QUANTILE_ERROR = 0.1
_QUANTILES = 1000
_EMPTY = b"\x00"
"""Stands for the empty string in a vocabulary, whose text file cannot hold it. As a raw value it means `missing`."""
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class FeaturesFunction:
    """A preprocessing_fn made from `features`. Picklable, as Beam's workers need it.

    Args:
        features: The features by name, as in the experiment file.
    """

    features: Mapping[str, Feature]

    def __call__(self, inputs: Mapping[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
        """Returns the features, `[batch]` int64 ids or float32 numbers, from raw columns as sparse tensors `[batch,
        1]`."""
        outputs = {}
        for index, (name, feature) in enumerate(self.features.items()):
            if isinstance(feature, Numeric):
                outputs[name] = _numeric(inputs[name], feature)
            elif isinstance(feature, Cross):
                outputs[name] = _cross([inputs[column] for column in feature.of], feature.buckets)
            else:
                outputs[name] = _categorical(inputs[name], feature, vocabulary_name(index, name))
        return outputs


def feature_columns(features: Mapping[str, Feature], schema: pa.Schema) -> list[RawColumn]:
    """Returns the raw columns that features read, each once, in the features' order.

    Raises:
        TidemillError: `missing-column`, or `feature-type` if a column's type does not fit a feature's kind.
    """
    columns = {column.name: column for column in raw_columns(schema, raw_column_names(features))}
    for name, feature in features.items():
        for column in raw_column_names({name: feature}):
            if columns[column].is_list:
                want = "take one value in the SQL, or use a transform_module, which takes lists"
                _refuse(name, schema.field(column), want)
            is_string = columns[column].dtype == "string"
            if isinstance(feature, Numeric) and is_string:
                _refuse(name, schema.field(column), "a numeric feature takes a number; make it categorical")
            if not isinstance(feature, Numeric) and columns[column].dtype == "float32":
                want = f"a {feature.kind} feature takes strings, integers or booleans; round it in the SQL"
                _refuse(name, schema.field(column), want)
    return list(columns.values())


def vocabulary_name(index: int, name: str) -> str:
    """Returns the file name of a feature's vocabulary: plain ASCII, and unique by the feature's index."""
    return f"vocabulary_{index:03d}_{re.sub('[^A-Za-z0-9]', '_', name)}"


def _number(missing: str | float) -> float | None:
    """Returns the number that replaces missing values; None if they get their own id or the mean."""
    if missing == "zero":
        return 0.0
    return None if isinstance(missing, str) else float(missing)


def _numeric(column: tf.SparseTensor, feature: Numeric) -> tf.Tensor:
    import tensorflow as tf
    import tensorflow_transform as tft

    values, number = tf.cast(column.values, tf.float64), _number(feature.missing)
    if isinstance(feature.transform, Bucketize):
        return _bucketize(column, feature.transform.bucketize, number)
    if feature.transform == "log2_squared":
        return _log2_squared(column, number)
    if feature.transform == "ln_squared":
        return _ln_squared(column, number)
    fill = tft.mean(values) if number is None else tf.constant(number, tf.float64)
    transform: str
    if isinstance(feature.transform, Clip):
        transform = feature.transform.then
        cut = _cut(values, feature.transform.clip[0], feature.transform.clip[1])
        values, fill = cut(values), cut(fill)
    else:
        transform = feature.transform
    apply = _scaling(values, transform)
    return tf.cast(_dense(column, apply(values), apply(fill)), tf.float32)


def _scaling(values: tf.Tensor, transform: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function of a scaling transform, with what it needs to know of train's values, float64 [values]."""
    import tensorflow as tf
    import tensorflow_transform as tft

    if transform == "zscore":
        mean, deviation = tft.mean(values), tf.sqrt(tft.var(values))
        return lambda x: tf.math.divide_no_nan(x - mean, deviation)
    if transform == "minmax":
        low, high = tft.min(values), tft.max(values)
        return lambda x: tf.math.divide_no_nan(x - low, high - low)
    if transform == "log":
        return lambda x: tf.sign(x) * tf.math.log1p(tf.abs(x))
    if transform == "quantile":
        boundaries = _quantiles(values)
        return lambda x: _rank(tf.cast(x, tf.float32), boundaries)
    return tf.identity


def _cut(values: tf.Tensor, low: float, high: float) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that clips numbers, float64, at two quantiles of `values`."""
    import tensorflow as tf

    boundaries = tf.cast(_quantiles(values), tf.float64)
    first, last = round(low * _QUANTILES) - 1, round(high * _QUANTILES) - 1

    def cut(x: tf.Tensor) -> tf.Tensor:
        if first >= 0:
            x = tf.maximum(x, boundaries[first])
        return tf.minimum(x, boundaries[min(last, _QUANTILES - 2)]) if last < _QUANTILES - 1 else x

    return cut


def _quantiles(values: tf.Tensor) -> tf.Tensor:
    """Returns the inner boundaries of 1,000 quantile buckets of train, float32 [999]."""
    import tensorflow as tf
    import tensorflow_transform as tft

    return tft.quantiles(tf.cast(values, tf.float32), _QUANTILES, epsilon=_QUANTILE_ERROR / _QUANTILES)[0]


def _rank(x: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
    """Returns the share of boundaries below each number, float64, where equal ones count half."""
    import tensorflow as tf

    flat = tf.reshape(x, [-1])
    below = tf.searchsorted(boundaries, flat, side="left") + tf.searchsorted(boundaries, flat, side="right")
    return tf.reshape(tf.cast(below, tf.float64) / (2 * (_QUANTILES - 1)), tf.shape(x))


def _bucketize(column: tf.SparseTensor, buckets: int, number: float | None) -> tf.Tensor:
    """Returns ids 0 to N-1 by the quantiles of train, and N for a missing value."""
    import tensorflow as tf
    import tensorflow_transform as tft

    values = tf.cast(column.values, tf.float32)
    boundaries = tft.quantiles(values, buckets, epsilon=_QUANTILE_ERROR / buckets)
    apply = lambda x: tf.cast(tft.apply_buckets(x, boundaries), tf.int64)  # noqa: E731
    fill = tf.constant(buckets, tf.int64) if number is None else apply(tf.constant([number], tf.float32))[0]
    return _ids(_dense(column, apply(values), fill), buckets + (number is None))


def _log2_squared(column: tf.SparseTensor, number: float | None) -> tf.Tensor:
    import math

    import tensorflow as tf

    def large(x: tf.Tensor) -> tf.Tensor:
        log2 = tf.math.log(x) / math.log(2)
        # Rounding of the logarithm must not move an exact power of two into the bucket below.
        return tf.minimum(tf.floor(log2 * log2 + _LOG2_ROUNDING), LOG2_LARGEST) + (2 - LOG2_SMALLEST + 1)

    return _integer_ids(column, number, large, LOG2_IDS)


def _ln_squared(column: tf.SparseTensor, number: float | None) -> tf.Tensor:
    import tensorflow as tf

    def large(x: tf.Tensor) -> tf.Tensor:
        ln = tf.math.log(x)
        return tf.minimum(tf.floor(ln * ln), LN_LARGEST) + (2 - LOG2_SMALLEST + 2)

    return _integer_ids(column, number, large, LN_IDS)


def _integer_ids(
    column: tf.SparseTensor, number: float | None, large: Callable[[tf.Tensor], tf.Tensor], count: int
) -> tf.Tensor:
    """Returns ids of numbers: 0 for a missing value, 1 to 13 up to 2, and those of `large` above 2."""
    import tensorflow as tf

    def apply(x: tf.Tensor) -> tf.Tensor:
        small = tf.clip_by_value(tf.floor(x), LOG2_SMALLEST, 2) - LOG2_SMALLEST + 1
        return tf.cast(tf.where(x > 2, large(tf.maximum(x, 2.0)), small), tf.int64)

    fill = tf.constant(0, tf.int64) if number is None else apply(tf.constant(number, tf.float64))
    return _ids(_dense(column, apply(tf.cast(column.values, tf.float64)), fill), count)


def _categorical(column: tf.SparseTensor, feature: Categorical, file_name: str) -> tf.Tensor:
    """Returns ids by vocabulary or by hash. A value with a line break is unknown, because TFT's text files cannot hold
    it."""
    import tensorflow as tf
    import tensorflow_transform as tft

    tokens = _dense(column, _text(column.values), tf.constant(feature.missing))
    if feature.hash:
        return _ids(tf.strings.to_hash_bucket_fast(tokens, feature.hash.buckets), feature.hash.buckets)
    vocabulary = feature.vocabulary or Vocabulary()
    return tft.compute_and_apply_vocabulary(
        tf.where(tf.equal(tokens, ""), tf.constant(_EMPTY), tokens),
        top_k=vocabulary.top_k,
        frequency_threshold=vocabulary.min_count,
        num_oov_buckets=vocabulary.oov_buckets,
        vocab_filename=file_name,
    )


def _cross(columns: Sequence[tf.SparseTensor], buckets: int) -> tf.Tensor:
    import tensorflow as tf

    parts = [_dense(column, _text(column.values), tf.constant(_EMPTY)) for column in columns]
    return _ids(tf.strings.to_hash_bucket_fast(tf.strings.join(parts, separator=_SEPARATOR), buckets), buckets)


def _ids(ids: tf.Tensor, count: int) -> tf.Tensor:
    """Records in the transformed metadata, as TFT does for vocabularies, that the values are ids below `count`."""
    import tensorflow as tf
    from tensorflow_transform import schema_inference

    schema_inference.set_tensor_schema_override(ids, tf.constant(0, tf.int64), tf.constant(count - 1, tf.int64))
    return ids


def _text(values: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return values if values.dtype == tf.string else tf.strings.as_string(values)


def _dense(column: tf.SparseTensor, values: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Returns `[batch]` with `values` in rows that have a value, and `fill` in the others."""
    import tensorflow as tf

    row_wise = tf.SparseTensor(column.indices, values, tf.stack([column.dense_shape[0], tf.constant(1, tf.int64)]))
    return tf.squeeze(tf.sparse.to_dense(row_wise, default_value=fill), axis=1)


def _refuse(name: str, field: pa.Field, want: str) -> None:
    raise TidemillError(Code.FEATURE_TYPE, f"features.{name}", f"column {field.name!r} of type {field.type}", want)
