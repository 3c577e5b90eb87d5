"""Logistic regression: a weight for each id and each number."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from tidemill.models.core.family import Network
from tidemill.section import Name

if TYPE_CHECKING:
    import keras

    from tidemill.models.core.network_features import Features


class LogisticRegression(Network):
    """Logistic regression. Its only interactions are features of kind `cross`."""

    family: Literal["lr"]
    name: Name = "lr"

    embeds: ClassVar[bool] = False
    linear: ClassVar[bool] = True

    def logit(self, features: Features) -> keras.KerasTensor:
        return features.linear()


FAMILY = LogisticRegression
