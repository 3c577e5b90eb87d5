"""Wide & Deep (Cheng et al., DLRS 2016, arXiv:1606.07792): a linear model and a deep network."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from tidemill.models.core.family import Deep
from tidemill.section import Name

if TYPE_CHECKING:
    import keras

    from tidemill.models.core.network_features import Features


class WideDeep(Deep):
    """Wide & Deep. The wide part has a weight for each id; features of kind `cross` are its cross products."""

    family: Literal["wide_deep"]
    name: Name = "wide_deep"

    linear: ClassVar[bool] = True

    def logit(self, features: Features) -> keras.KerasTensor:
        import keras

        from tidemill.models.core.network_features import added, mlp

        deep = mlp(features.flat(features.embedded()), self.deep, self.dropout)
        return added([features.linear(), keras.layers.Dense(1, name="deep_logit")(deep)], "sum")


FAMILY = WideDeep
