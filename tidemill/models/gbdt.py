"""Gradient-boosted trees by LightGBM (Ke et al., NeurIPS 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tidemill.models.core.family import Family
from tidemill.section import Name, PositiveInt

if TYPE_CHECKING:
    from pathlib import Path

    from tidemill.models.core.boosting import GbdtModel
    from tidemill.models.core.inputs import Layout


class Gbdt(Family):
    """Gradient-boosted trees by LightGBM (Ke et al., NeurIPS 2017)."""

    family: Literal["gbdt"]
    name: Name = "gbdt"
    num_leaves: Annotated[int, Field(ge=2, le=131_072)] = 63
    """Leaves of a tree."""
    rounds: PositiveInt = 500
    """Most boosting rounds; early stopping ends them before."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Shrinkage."""
    min_data_in_leaf: PositiveInt = 100
    """Least rows of a leaf."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the features that a tree sees."""
    bagging_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the rows that a tree sees."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty on leaf values."""
    categorical: Literal["native", "ordinal"] = "native"
    """`native`: categorical splits on the transform's ids. `ordinal`: ids as numbers (vocabularies order them by
    frequency)."""
    max_native_ids: PositiveInt = 5000
    """Features with more ids are taken as `ordinal` even where `native` is asked for."""

    def open(self, layout: Layout) -> GbdtModel:
        from tidemill.models.core.boosting import GbdtModel

        return GbdtModel(self, layout)

    def load(self, folder: Path, layout: Layout) -> GbdtModel:
        from tidemill.models.core.boosting import GbdtModel

        return GbdtModel.load(folder, self, layout)


FAMILY = Gbdt
