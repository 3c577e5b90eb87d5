"""Deep Learning Recommendation Model (Naumov et al., 2019, arXiv:1906.00091): a deep network over the
inner products of all pairs of embeddings and of a vector that is computed from the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from tidemill.models.core.family import Deep
from tidemill.section import Name, PositiveInt

if TYPE_CHECKING:
    import keras

    from tidemill.models.core.network_features import Features


class Dlrm(Deep):
    """DLRM. `deep` is the network over the interactions."""

    family: Literal["dlrm"]
    name: Name = "dlrm"
    bottom: list[PositiveInt] = [128, 64]
    """Widths of the network over the numbers. A last layer of width `embedding_dim` follows."""

    one_size: ClassVar[bool] = True

    def logit(self, features: Features) -> keras.KerasTensor:
        import keras

        from tidemill.models.core.layers import PairwiseProducts
        from tidemill.models.core.network_features import concatenated, mlp

        fields, interactions = features.fields(features.embedded()), []
        if features.numbers is not None:
            bottom = mlp(features.numbers, [*self.bottom, self.embedding_dim], 0.0, "bottom")
            fields.append(keras.layers.Reshape((1, self.embedding_dim), name="bottom_field")(bottom))
            interactions.append(bottom)
        joined = concatenated(fields, "fields")
        if joined.shape[1] > 1:
            interactions.append(PairwiseProducts(name="pairs")(joined))
        elif not interactions:
            interactions.append(keras.layers.Flatten(name="only_field")(joined))
        deep = mlp(concatenated(interactions, "interactions"), self.deep, self.dropout)
        return keras.layers.Dense(1, name="deep_logit")(deep)


FAMILY = Dlrm
