"""FinalMLP (Mao et al., AAAI 2023, arXiv:2304.00902): two deep networks on differently gated features, fused by a
bilinear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from tidemill.models.core.family import Dropout, Network
from tidemill.section import Name, PositiveInt

if TYPE_CHECKING:
    import keras

    from tidemill.models.core.network_features import Features


class FinalMlp(Network):
    """FinalMLP: two deep networks, each behind a gate that weighs the features. The first gate depends on the numbers,
    or on a learned context if there are none; the second depends on a learned context."""

    family: Literal["final_mlp"]
    name: Name = "final_mlp"
    first: list[PositiveInt] = [256, 128]
    """Widths of the first stream."""
    second: list[PositiveInt] = [256, 128]
    """Widths of the second stream."""
    dropout: Dropout = 0.0
    """Dropout after each layer of the streams."""
    gate: PositiveInt | None = 64
    """Width of the gates' hidden layer. null: no gates."""
    heads: PositiveInt = 1
    """Heads of the bilinear fusion. Must divide the last widths of both streams."""

    @model_validator(mode="after")
    def _heads_divide(self) -> FinalMlp:
        if not self.first or not self.second:
            raise ValueError("first and second must have at least one layer each")
        if self.first[-1] % self.heads or self.second[-1] % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide {self.first[-1]} and {self.second[-1]}")
        return self

    def logit(self, features: Features) -> keras.KerasTensor:
        from tidemill.models.core.layers import BilinearFusion, FeatureGate
        from tidemill.models.core.network_features import mlp

        x = features.flat(features.embedded())
        one = other = x
        if self.gate is not None:
            context = () if features.numbers is None else (features.numbers,)
            one = FeatureGate(self.gate, name="first_gate")(x, *context)
            other = FeatureGate(self.gate, name="second_gate")(x)
        one = mlp(one, self.first, self.dropout, "first")
        other = mlp(other, self.second, self.dropout, "second")
        return BilinearFusion(self.heads, name="fusion")(one, other)


FAMILY = FinalMlp
