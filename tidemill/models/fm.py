"""Factorization machine (Rendle, ICDM 2010): linear terms, and the inner products of all pairs of feature vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from tidemill.models.core.family import Network
from tidemill.section import Name

if TYPE_CHECKING:
    import keras

    from tidemill.models.core.network_features import Features


class FactorizationMachine(Network):
    """Factorization machine of second order. `embedding_dim` is the number of factors."""

    family: Literal["fm"]
    name: Name = "fm"

    one_size: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def logit(self, features: Features) -> keras.KerasTensor:
        from tidemill.models.core.layers import PairwiseSum
        from tidemill.models.core.network_features import added

        pairs = PairwiseSum(name="pairs")(features.all_fields(features.embedded()))
        return added([features.linear(), pairs], "sum")


FAMILY = FactorizationMachine
