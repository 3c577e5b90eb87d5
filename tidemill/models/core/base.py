"""The interface of models of all families."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from tidemill.artifacts.examples import Dataset
from tidemill.distributions import installed_version
from tidemill.models.core.family import Family
from tidemill.models.core.inputs import Layout, Rows, batches_in_order

if TYPE_CHECKING:
    import tensorflow as tf

PREDICT_ROWS = 8192


class Model(abc.ABC):
    """A model of one family, which predicts the probability of label 1 for each of its labels.

    Scores are always [rows, labels], also for one label. `tidemill.training` fits models.

    Args:
        config: The family's hyperparameters.
        layout: The features in the order in which the model takes them, and the labels.

    Attributes:
        layout: The features and labels.
        member_config: The member's section of the experiment file. It differs from `config` for a user-defined family.
    """

    unit: ClassVar[Literal["epoch", "round", "model"]]
    """The unit of fitting: `epoch`, `round` or `model`."""
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions decide the result."""

    def __init__(self, config: Family, layout: Layout):
        self.member_config: Family = config
        self.layout = layout

    @property
    @abc.abstractmethod
    def config(self) -> Family:
        """The hyperparameters."""

    @property
    def family(self) -> str:
        """The family's name."""
        return self.config.family

    @property
    def name(self) -> str:
        """The member's name."""
        return self.config.name

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Returns the versions of the libraries that decide the result."""
        return {name: installed_version(name) for name in cls.libraries}

    @abc.abstractmethod
    def predict_rows(self, rows: Rows) -> np.ndarray:
        """Returns probabilities [rows, labels] float64."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the weights to the folder."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Returns a fingerprint of the weights: models with equal fingerprints return equal scores."""

    @abc.abstractmethod
    def serving(self) -> tuple[Callable[[dict[str, tf.Tensor]], tf.Tensor], Any]:
        """Returns the model as TensorFlow ops.

        Returns:
            A traceable function from transformed features by name, each [batch] int32 or float32, to probabilities
            [batch, labels] float32; and the variables that it uses, which a `tf.Module` must keep alive.
        """

    def facts(self) -> dict[str, Any]:
        """Returns the family's own entries of `model.json` about the fitted model."""
        return {}

    def predict(self, dataset: Dataset, split: str, check: Callable[[], None] = lambda: None) -> np.ndarray:
        """Returns the probabilities of a split of transformed examples, [rows, labels] float64, in the rows' order.

        Args:
            dataset: Transformed examples.
            split: The split's name.
            check: Called before each batch. May raise to stop. Defaults to no check.
        """
        scores = []
        for rows in self._batches(dataset, split):
            check()
            scores.append(self.predict_rows(rows))
        return np.concatenate(scores) if scores else np.empty((0, len(self.layout.labels)))

    def _batches(self, dataset: Dataset, split: str) -> Iterator[Rows]:
        return batches_in_order(dataset, split, self.layout, PREDICT_ROWS)
