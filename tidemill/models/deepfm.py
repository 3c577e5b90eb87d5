"""DeepFM (Guo et al., IJCAI 2017, arXiv:1703.04247): a factorization machine and a deep network on the same
embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from tidemill.models.core.family import Deep
from tidemill.section import Name

if TYPE_CHECKING:
    import keras

    from tidemill.models.core.network_features import Features


class DeepFm(Deep):
    """DeepFM: a factorization machine and a deep network on the same embeddings."""

    family: Literal["deepfm"]
    name: Name = "deepfm"

    one_size: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def logit(self, features: Features) -> keras.KerasTensor:
        import keras

        from tidemill.models.core.layers import PairwiseSum
        from tidemill.models.core.network_features import added, mlp

        fields = features.all_fields(features.embedded())
        pairs = PairwiseSum(name="pairs")(fields)
        deep = mlp(keras.layers.Flatten(name="input")(fields), self.deep, self.dropout)
        return added([features.linear(), pairs, keras.layers.Dense(1, name="deep_logit")(deep)], "sum")


FAMILY = DeepFm
