"""The section `features`: how columns become inputs of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.config import JsonDict

from tidemill.section import Column, PositiveInt, Section


class Bucketize(Section):
    """Quantile buckets: a number becomes the id of its bucket. Each bucket has equally many rows of train."""

    bucketize: Annotated[int, Field(ge=2, le=10_000)]
    """Number of buckets."""


class Clip(Section):
    """Quantiles at which a number is cut off before it is scaled, so that outliers do not squeeze all other values."""

    clip: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]
    """Shares of train's rows, low and high: smaller and larger numbers become these quantiles of train, which are exact
    to a tenth of a percent of the rows. 0 and 1 do not clip."""
    then: Literal["zscore", "minmax", "log", "none"] = "zscore"
    """The transform of the clipped number. Its mean, variance and range are those of the clipped numbers of train."""

    @model_validator(mode="after")
    def _low_below_high(self) -> Clip:
        if self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip is {self.clip}; the first share must be less than the second")
        return self


def _transform_tag(value: object) -> str:
    """Returns which kind of transform a value is meant to be, so that a mistake in it is reported for this kind."""
    if isinstance(value, Clip) or (isinstance(value, dict) and "clip" in value):
        return "Clip"
    return "Bucketize" if isinstance(value, Bucketize | dict) else "name"


def _as_any_of(schema: JsonDict) -> None:
    """Describes the alternatives in a JSON Schema as those of other keys."""
    schema["anyOf"] = schema.pop("oneOf")


class Numeric(Section):
    """A number."""

    kind: Literal["numeric"]
    transform: Annotated[
        Annotated[Literal["zscore", "minmax", "log", "quantile", "none", "log2_squared", "ln_squared"], Tag("name")]
        | Annotated[Bucketize, Tag("Bucketize")]
        | Annotated[Clip, Tag("Clip")],
        Discriminator(_transform_tag),
        Field(json_schema_extra=_as_any_of),
    ] = "zscore"
    """`zscore`: mean 0 and variance 1 on train. `minmax`: 0 to 1 on train. `log`: sign(x) * ln(1 + |x|). `none`:
    unchanged. `ln_squared`: the id floor(ln(x)^2) for x above 2, as the winners of Criteo 2014 used it,
    and an id for each smaller integer. `log2_squared`: the same with the binary logarithm, which has twice as many ids.
    `quantile`: the share of train's rows with a smaller number, 0 to 1 in steps of a thousandth, whatever the outliers.
    `{bucketize: N}`: the id of one of N quantile buckets. `{clip: [LOW, HIGH]}`: cut off at two quantiles, then
    `zscore`."""
    missing: Literal["mean", "zero"] | float = "mean"
    """Replaces missing values, which infinities are too: the mean of train, 0 (`zero`) or a number. `bucketize`,
    `log2_squared` and `ln_squared` give missing values an id of their own, unless this is a number."""


class Vocabulary(Section):
    """The values of a categorical column that get an id of their own, counted on train."""

    top_k: PositiveInt | None = None
    """Keeps only the most frequent values. Defaults to all."""
    min_count: PositiveInt | None = None
    """Keeps values that occur at least this often in train. Defaults to all."""
    oov_buckets: PositiveInt = 1
    """Number of ids that all other values share, by hash."""


class Hashing(Section):
    """Ids by hash, without a vocabulary."""

    buckets: Annotated[int, Field(ge=2, lt=2**31)]
    """Number of ids."""


class Categorical(Section):
    """A category: a string, an integer or a boolean."""

    kind: Literal["categorical"]
    vocabulary: Vocabulary | None = None
    """Assigns ids by a vocabulary of train's values. The default unless `hash` is given."""
    hash: Hashing | None = None
    """Assigns ids by hash."""
    missing: str = ""
    """Replaces missing values. It gets an id like any other value."""

    @model_validator(mode="after")
    def _one_way(self) -> Categorical:
        if self.vocabulary and self.hash:
            raise ValueError("give vocabulary or hash, not both")
        return self


class Cross(Section):
    """A combination of two to five columns, hashed to an id."""

    kind: Literal["cross"]
    of: Annotated[list[Column], Field(min_length=2, max_length=5)]
    """The columns that are combined."""
    buckets: Annotated[int, Field(ge=2, lt=2**31)] = 10_000
    """Number of ids."""


Feature = Annotated[Numeric | Categorical | Cross, Field(discriminator="kind")]


def raw_column_names(features: Mapping[str, Feature]) -> list[str]:
    """Returns the names of the raw columns that features read, each once, in the features' order.

    A cross reads the columns that it combines; any other feature reads the column of its own name.
    """
    names: dict[str, None] = {}
    for name, feature in features.items():
        names.update(dict.fromkeys(feature.of if isinstance(feature, Cross) else [name]))
    return list(names)
