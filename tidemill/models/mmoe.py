"""Multi-gate Mixture-of-Experts (Ma et al., KDD 2018, doi:10.1145/3219819.3220007): experts that all labels share, and
a gate and a tower for each label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from tidemill.models.core.family import Dropout, Network
from tidemill.section import Name, PositiveInt

if TYPE_CHECKING:
    import keras

    from tidemill.models.core.network_features import Features


class Mmoe(Network):
    """Multi-gate Mixture-of-Experts, for one or several labels. With one expert it is a shared bottom: one network for
    all labels, and a tower for each."""

    family: Literal["mmoe"]
    name: Name = "mmoe"
    experts: Annotated[int, Field(gt=0, le=64)] = 4
    """Number of experts."""
    expert: Annotated[list[PositiveInt], Field(min_length=1)] = [256, 128]
    """Widths of each expert's layers."""
    tower: list[PositiveInt] = [64]
    """Widths of the layers of each label's tower. Without layers, a label's logit is linear in the mixture of
    experts."""
    dropout: Dropout = 0.0
    """Dropout after each layer of experts and towers."""

    several_labels: ClassVar[bool] = True

    def logit(self, features: Features) -> keras.KerasTensor:
        import keras

        from tidemill.models.core.layers import Mixture
        from tidemill.models.core.network_features import concatenated, mlp

        x = features.flat(features.embedded())
        outputs = [mlp(x, self.expert, self.dropout, f"expert_{i}") for i in range(self.experts)]
        experts = keras.layers.Reshape((self.experts, self.expert[-1]), name="experts")(concatenated(outputs, "all"))
        logits = []
        for label in range(features.labels):
            mixed = outputs[0]
            if self.experts > 1:
                gate = keras.layers.Dense(self.experts, activation="softmax", use_bias=False, name=f"gate_{label}")(x)
                mixed = Mixture(name=f"mixture_{label}")(gate, experts)
            tower = mlp(mixed, self.tower, self.dropout, f"tower_{label}")
            logits.append(keras.layers.Dense(1, name=f"tower_{label}_logit")(tower))
        return concatenated(logits, "logits")


FAMILY = Mmoe
