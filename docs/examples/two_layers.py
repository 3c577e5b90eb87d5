from typing import Literal

import keras

from tidemill.models import Network


class TwoLayers(Network):
    """A deep network with one hidden layer."""

    family: Literal["two_layers"]
    width: int = 32
    """Width of the hidden layer."""

    def logit(self, features):
        x = features.flat(features.embedded())
        x = keras.layers.Dense(self.width, activation="relu")(x)
        return keras.layers.Dense(1)(x)


FAMILY = TwoLayers
