"""Values of features that a model does not get as they are in the examples: counted in train, and reported.

Models read numbers as float32, which has 24 bits for digits: seconds since 1970 become multiples of 128. A vocabulary
is a text file with one token in each line, so that TensorFlow Transform drops tokens with a line break. And the words
that mean a missing value by default may be values of a column, such as the country `NA`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import duckdb

from tidemill.duckdb_session import plain_name
from tidemill.experiment.features import Categorical, Clip, Feature, Numeric
from tidemill.validation.charts import percent
from tidemill.validation.columns import ExampleColumn

NOTABLE_SHARE = 0.05
"""Share of a number's distinct values above which their loss as float32 is reported. Below it are the values that
happen to lie close to each other among many random ones."""
_EXACT_INTEGERS = 1 << 24

Reason = Literal["float32", "infinity", "line break", "null word"]
NullWords = Mapping[str, Mapping[str, Mapping[str, float]]]
"""The share of the rows with a default null word, by table, text column and word: the entry of ingest's metadata."""


@dataclass(frozen=True)
class LostValues:
    """A column that loses values.

    Attributes:
        column: The column's name.
        reason: `float32`: distinct numbers become equal. `infinity`: a model reads infinities as missing values. `line
            break`: a vocabulary drops the tokens. `null word`: a word that means a missing value by default.
        share: Share of the distinct numbers that are lost, or of the rows.
        text: What is lost and what to do, as a sentence.
        is_dropped: Whether a vocabulary of the experiment's features drops the rows' tokens.
    """

    column: str
    reason: Reason
    share: float
    text: str
    is_dropped: bool = False


def count(connection: duckdb.DuckDBPyConnection, column: ExampleColumn, low: float, high: float) -> float:
    """Returns the share of a feature's values that is lost: of its distinct numbers, or of its texts.

    Args:
        connection: A database with the table `counts` of the column's values (`statistics.compute`).
        column: A column of numbers or of categories.
        low: The smallest number. Ignored for categories.
        high: The largest number.
    """
    if column.view == "category":
        broken = "contains(v, chr(10)) OR contains(v, chr(13))"
        query = f"SELECT coalesce(sum(n) FILTER ({broken}), 0) / sum(n) FROM counts"
    elif column.is_bool or column.is_time or (not column.is_float and max(-low, high) <= _EXACT_INTEGERS):
        return 0.0
    else:
        query = "SELECT 1 - count(DISTINCT TRY_CAST(v AS FLOAT)) / count(*) FROM counts"
    return float(connection.execute(query).fetchall()[0][0] or 0.0)


def find(
    shares: Mapping[str, float],
    columns: Sequence[ExampleColumn],
    features: Mapping[str, Feature] | None,
    null_words: NullWords,
    infinite: Mapping[str, float] = MappingProxyType({}),
) -> list[LostValues]:
    """Returns the losses that are worth a report, in the order of the columns; null words last.

    Args:
        shares: From `count`, by feature.
        columns: From `columns.resolve`.
        features: The experiment's features. None with a transform module, which decides itself what it reads.
        null_words: From ingest.
        infinite: Share of the rows of train with an infinite number, by feature. Defaults to none.
    """
    unless = "" if features is not None else ", unless the transform module does not use it like that"
    lost = []
    for column in columns:
        share = shares.get(column.name, 0.0)
        feature = features.get(column.name) if features is not None else None
        if column.view == "number" and share > NOTABLE_SHARE and not _is_exact(column, feature):
            exact = "Cast it to BIGINT, which zscore and minmax read exactly"
            if not column.is_float:
                exact = "Use zscore or minmax, which read integers exactly"
            text = (
                f"{column.name}: {percent(share)} of its distinct values become equal to others as float32, which is "
                f"what models read{unless}. {exact}, or subtract a constant in the query."
            )
            lost.append(LostValues(column.name, "float32", share, text))
        if column.view == "number" and (rows := infinite.get(column.name, 0.0)):
            text = (
                f"{column.name}: {percent(rows)} of the rows are infinite, which is a missing value for a model. If "
                f"they mean a large number, write it in the query."
            )
            lost.append(LostValues(column.name, "infinity", rows, text))
        elif column.view == "category" and share > 0:
            example = f"replace({plain_name(column.name)}, chr(10), ' ')"
            text = (
                f"{column.name}: {percent(share)} of its values contain a line break, and a vocabulary drops "
                f"such tokens{unless}. Replace line breaks in the query, such as {example}."
            )
            lost.append(LostValues(column.name, "line break", share, text, is_dropped=_has_vocabulary(feature)))
    names = {column.name for column in columns}
    for table, found in null_words.items():
        for name, words in found.items():
            for word, share in words.items():
                shown = repr(word) if word else "empty"
                text = (
                    f"{name} of {table}: {percent(share)} of the rows are {shown}, which means a missing value by "
                    f"default. If it is a value, name the null words without it in source.tables.{table}.csv.nullstr; "
                    f"else set ['', NA] there, which ends this note."
                )
                if name in names:
                    lost.append(LostValues(name, "null word", share, text))
    return lost


def _is_exact(column: ExampleColumn, feature: Feature | None) -> bool:
    """Returns whether a feature's transform computes with an integer's own digits before the result is a float32."""
    if column.is_float or not isinstance(feature, Numeric):
        return False
    transform = feature.transform.then if isinstance(feature.transform, Clip) else feature.transform
    return transform in ("zscore", "minmax", "log2_squared", "ln_squared")


def _has_vocabulary(feature: Feature | None) -> bool:
    return isinstance(feature, Categorical) and feature.hash is None
