"""Gradient-boosted trees by LightGBM (Ke et al., NeurIPS 2017)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from tidemill.models.core.family import Family
from tidemill.section import Name, PositiveInt


class Gbdt(Family):
    """Gradient-boosted trees by LightGBM (Ke et al., NeurIPS 2017)."""

    libraries: ClassVar[tuple[str, ...]] = ("lightgbm",)

    family: Literal["gbdt"]
    name: Name = "gbdt"
    num_leaves: Annotated[int, Field(ge=2, le=131_072)] | None = None
    """Maximum number of leaves of a tree. Defaults to 31 for up to 200,000 rows of train, 63 for up to a million, and
    127 for more."""
    rounds: PositiveInt = 2000
    """Maximum number of boosting rounds. Early stopping usually ends training before."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Learning rate: the factor by which each tree's contribution is shrunk."""
    min_data_in_leaf: PositiveInt | None = None
    """Minimum number of rows in a leaf. Defaults to one in 4,000 rows of train, at least 20 and at most 200."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the features that each tree uses."""
    bagging_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the rows that each tree uses."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty on leaf values."""
    categorical: Literal["native", "ordinal"] = "native"
    """`native`: categorical splits on the transform's ids. `ordinal`: ids as numbers (vocabularies order them by
    frequency)."""
    max_native_ids: PositiveInt = 5000
    """Features with more ids are `ordinal`, even if `categorical` is `native`."""

    def resolved(self, rows: int) -> Self:
        leaves = self.num_leaves or (31 if rows <= 200_000 else 63 if rows <= 1_000_000 else 127)
        smallest = self.min_data_in_leaf or min(max(rows // 4_000, 20), 200)
        return self.model_copy(update={"num_leaves": leaves, "min_data_in_leaf": smallest})


FAMILY = Gbdt
