"""What a model of every family can do."""

from __future__ import annotations

import abc
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tidemill.artifacts.examples import Dataset
from tidemill.experiment.training import Training
from tidemill.models.core.family import Family
from tidemill.models.core.inputs import Layout, Rows, in_order
from tidemill.runtime import Progress
from tidemill.training.checkpoint import Checkpoints
from tidemill.training.history import History
from tidemill.training.preemption import Notice

if TYPE_CHECKING:
    import tensorflow as tf

    from tidemill.transform.graph import TransformGraph

PREDICT_ROWS = 8192


@dataclass(frozen=True)
class Run:
    """What fitting takes beside the model itself."""

    data: Dataset
    """Transformed examples with train and, unless early stopping is off, valid."""
    training: Training
    history: History
    checkpoints: Checkpoints
    progress: Progress
    notice: Notice = field(default_factory=Notice)
    """Whether the process was told to end."""
    graph: TransformGraph | None = None
    """The transform graph that made the data; needed for a warm start."""


class Model(abc.ABC):
    """A model of one family that gives the probability of label 1, for each of its labels. Scores are [rows, labels]
    everywhere, also where there is one label.

    Args:
        config: The family's section of the experiment file.
        layout: The features in the order in which the model takes them, and the labels.

    Attributes:
        told: What the experiment said; other than `config` for a family of the user's own.
    """

    unit: ClassVar[str]
    """What `fit` counts: `epoch` or `round`."""
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions decide the result."""

    def __init__(self, config: Family, layout: Layout):
        self.config = self.told = config
        self.layout = layout

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
        """Versions of the libraries that decide the result."""
        return {name: importlib.metadata.version(name) for name in cls.libraries}

    @abc.abstractmethod
    def fit(self, run: Run) -> int:
        """Trains from the start or from the newest checkpoint, keeping the best epoch or round where early stopping is
        on.

        Returns:
            The number of epochs or rounds that the model keeps.

        Raises:
            TidemillError: `training-diverged`.
            Preempted: the process was told to end, and what is needed to go on is kept.
        """

    @abc.abstractmethod
    def predict_rows(self, rows: Rows) -> np.ndarray:
        """Probabilities [rows, labels] float64."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the weights to one file in the folder."""

    @classmethod
    @abc.abstractmethod
    def load(cls, folder: Path, config: Family, layout: Layout) -> Model:
        """Reads what `save` wrote."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Of the weights, so that models with equal fingerprints give equal scores."""

    @abc.abstractmethod
    def serving(self) -> tuple[Callable[[dict[str, tf.Tensor]], tf.Tensor], Any]:
        """The model as TensorFlow ops.

        Returns:
            A traceable function from transformed features by name, each [batch] int32 or float32, to probabilities
            [batch, labels] float32, and what it needs of variables, for a `tf.Module` to hold on to.
        """

    def facts(self) -> dict:
        """What else there is to say about the fitted model, as JSON for `model.json`."""
        return {}

    def predict(self, dataset: Dataset, split: str, check: Callable[[], None] = lambda: None) -> np.ndarray:
        """Probabilities of a split of transformed examples, [rows, labels] float64, in the rows' order. `check` is
        called between batches, and may end it by raising."""
        parts = []
        for rows in self._batches(dataset, split):
            check()
            parts.append(self.predict_rows(rows))
        return np.concatenate(parts) if parts else np.empty((0, len(self.layout.labels)))

    def _batches(self, dataset: Dataset, split: str) -> Iterator[Rows]:
        return in_order(dataset, split, self.layout, PREDICT_ROWS)
