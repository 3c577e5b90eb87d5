"""`features`: what becomes of each column on its way into a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidemill.section import Column, PositiveInt, Section


class Bucketize(Section):
    """Cuts a number into buckets of equally many train rows; the result is an integer id."""

    bucketize: Annotated[int, Field(ge=2, le=10_000)]
    """Number of buckets."""


class Numeric(Section):
    """A number."""

    kind: Literal["numeric"]
    transform: Literal["zscore", "minmax", "log", "none", "log2_squared"] | Bucketize = "zscore"
    """`zscore`: mean 0, variance 1 on train. `minmax`: 0 to 1 on train. `log`: sign(x) * ln(1 + |x|). `none`: as it is.
    `log2_squared`: the id floor(log2(x)^2) that the winners of Criteo's competition used. `{bucketize: N}`:
    quantiles."""
    missing: Literal["mean", "zero"] | float = "mean"
    """What stands in for a missing value: the mean of train, 0 or a number. The transforms that give ids (`bucketize`,
    `log2_squared`) keep an id of its own for missing values instead, unless this is a number."""


class Vocabulary(Section):
    """Which values of a categorical column get an id of their own."""

    top_k: PositiveInt | None = None
    """Keep the most frequent values only. Defaults to all."""
    min_count: PositiveInt | None = None
    """Keep values that occur at least this often in train. Defaults to all."""
    oov_buckets: PositiveInt = 1
    """Ids that all other values share, by hash."""


class Hashing(Section):
    """Ids by hash, without a vocabulary."""

    buckets: Annotated[int, Field(ge=2, lt=2**31)]
    """Number of ids."""


class Categorical(Section):
    """A category: a string, an integer or a boolean."""

    kind: Literal["categorical"]
    vocabulary: Vocabulary | None = None
    """Ids by a vocabulary of train's values. The default when `hash` is not given."""
    hash: Hashing | None = None
    """Ids by hash."""
    missing: str = ""
    """The value that stands in for a missing one. It gets an id like any other value."""

    @model_validator(mode="after")
    def _one_way(self) -> Categorical:
        if self.vocabulary and self.hash:
            raise ValueError("give vocabulary or hash, not both")
        return self


class Cross(Section):
    """The combination of two or more columns, hashed."""

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
