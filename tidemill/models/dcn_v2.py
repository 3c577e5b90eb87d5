"""Deep & Cross Network V2 (Wang et al., WWW 2021, arXiv:2008.13535), in the parallel structure: cross layers and a deep
network read the same input, and one logit reads both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field

from tidemill.models.core.family import Deep
from tidemill.section import Name

if TYPE_CHECKING:
    import keras

    from tidemill.models.core.network_features import Features


class DcnV2(Deep):
    """Deep & Cross Network V2: cross layers and a deep network in parallel.

    Ids are embedded; numbers are used as they are. Without cross layers, a linear model takes their place. With an
    empty `deep`, there are only cross layers.
    """

    family: Literal["dcn_v2"]
    name: Name = "dcn_v2"
    cross_layers: Annotated[int, Field(ge=0, le=10)] | None = None
    """Number of cross layers. Defaults to 1 for up to 100,000 rows of train, 2 for up to a million, and 3 for more: few
    rows do not determine products of many features."""

    def resolved(self, rows: int) -> Self:
        layers = 1 + (rows > 100_000) + (rows > 1_000_000) if self.cross_layers is None else self.cross_layers
        return super().resolved(rows).model_copy(update={"cross_layers": layers})

    def logit(self, features: Features) -> keras.KerasTensor:
        import keras

        from tidemill.models.core.layers import CrossLayer
        from tidemill.models.core.network_features import concatenated, mlp

        if self.cross_layers is None:
            raise ValueError("the hyperparameters are not resolved")
        x0 = features.flat(features.embedded())
        crossed = x0
        for i in range(self.cross_layers):
            crossed = CrossLayer(name=f"cross_{i}")(x0, crossed)
        if self.deep:
            crossed = concatenated([crossed, mlp(x0, self.deep, self.dropout)], "both")
        return keras.layers.Dense(1, name="both_logit")(crossed)


FAMILY = DcnV2
