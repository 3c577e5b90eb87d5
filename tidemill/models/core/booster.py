"""The model of gradient-boosted trees, by LightGBM."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill import fingerprint
from tidemill.artifacts.model import LIGHTGBM_WEIGHTS
from tidemill.errors import Code, TidemillError
from tidemill.models.core.base import Model
from tidemill.models.core.inputs import Layout, Rows
from tidemill.models.gbdt import Gbdt

# By default OpenMP's threads spin while they wait for each other. On a machine that is also busy otherwise, this made
# training seven times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import lightgbm

if TYPE_CHECKING:
    import tensorflow as tf


class GbdtModel(Model):
    """Gradient-boosted trees on the transform's ids and numbers.

    Attributes:
        booster: The trees. `tidemill.training.boosting` sets it.
    """

    unit = "round"
    libraries = ("tidemill", "lightgbm", "numpy")
    booster: lightgbm.Booster

    def __init__(self, config: Gbdt, layout: Layout):
        super().__init__(config, layout)
        self._config = config

    @property
    def config(self) -> Gbdt:
        return self._config

    def predict_rows(self, rows: Rows) -> np.ndarray:
        return np.asarray(self.booster.predict(to_matrix(rows)), np.float64)[:, None]

    def save(self, folder: Path) -> None:
        self.booster.save_model(folder / LIGHTGBM_WEIGHTS)

    @classmethod
    def load(cls, folder: Path, config: Gbdt, layout: Layout) -> GbdtModel:
        """Reads a model that `save` wrote.

        Raises:
            TidemillError: `incomplete-artifact`.
        """
        model = cls(config, layout)
        try:
            model.booster = lightgbm.Booster(model_file=folder / LIGHTGBM_WEIGHTS)
        except lightgbm.basic.LightGBMError as error:
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(folder), str(error), "train the model again") from error
        return model

    def fingerprint(self) -> str:
        trees = self.booster.model_to_string().partition("\nparameters:")[0]
        return fingerprint.of_json([self.config.model_dump(mode="json"), self.layout.columns, trees])

    def serving(self) -> tuple[Callable[[dict[str, tf.Tensor]], tf.Tensor], Any]:
        from tidemill.models.core.forest import Forest

        forest = Forest.parse(self.booster.model_to_string())
        columns = self.layout.columns
        return lambda features: forest.score([features[name] for name in columns])[:, None], forest.variables


def to_matrix(rows: Rows) -> np.ndarray:
    """Returns the features [rows, features] float64: ids, then numbers. float32 would not hold ids beyond 2^24."""
    return np.concatenate([rows.ids, rows.numbers], axis=1, dtype=np.float64)
