"""What a family of models is: a section of the experiment file that opens a model. Imports no framework, so that an
experiment can be written and checked without one."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tidemill.errors import Code, TidemillError
from tidemill.section import Bytes, Name, PositiveInt, Section

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from tidemill.models.core.base import Model
    from tidemill.models.core.features import Features
    from tidemill.models.core.inputs import Layout

Dim = Annotated[int, Field(gt=0, le=512)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class Family(Section, abc.ABC):
    """A family's hyperparameters. A family is a module of `tidemill.models` whose `FAMILY` is a subclass of this one,
    with a field `family: Literal["<the module's name>"]`."""

    family: Any
    name: Name
    """The member's name in reports; must be unique within the experiment."""

    origin: ClassVar[str] = ""
    """What tells apart modules of users."""
    several_labels: ClassVar[bool] = False
    """Whether a model of the family can predict several labels."""

    def check_labels(self, labels: int) -> None:
        """Refuses a number of labels that the family does not predict.

        Raises:
            TidemillError: `unsupported`.
        """
        if labels > 1 and not self.several_labels:
            got = f"a model of family {self.family}, which predicts one label, with {labels} labels"
            raise TidemillError(Code.UNSUPPORTED, f"models.{self.name}", got, "use mmoe, or give one label")

    @abc.abstractmethod
    def open(self, layout: Layout) -> Model:
        """A new model of these hyperparameters, not yet fitted, over the features and for the labels of a layout.
        Imports its framework."""

    @abc.abstractmethod
    def load(self, folder: Path, layout: Layout) -> Model:
        """Reads back what a model of these hyperparameters saved.

        Raises:
            TidemillError: `incomplete-artifact`.
        """


class Network(Family):
    """The hyperparameters of all Keras families: how ids are embedded."""

    embedding_dim: Dim = 16
    """Size of each id feature's embedding."""
    embedding_dims: Literal["auto"] | dict[str, Dim] = {}
    """Sizes by feature. `auto`: 6 times the fourth root of the feature's number of ids (Wang et al., 2017,
    arXiv:1708.05123), rounded up to a multiple of 4 and at most `embedding_dim`. Where a family needs vectors of one
    size, it projects them to `embedding_dim`."""
    shared_embeddings: list[Annotated[list[str], Field(min_length=2)]] = []
    """Groups of features that read one table, such as the last and the next item of one catalogue. Their ids must mean
    the same: let the transform give them one vocabulary."""
    max_embedding_bytes: Bytes | None = None
    """Most bytes of all embedding tables. Where they would be larger, each keeps a row of its own for the ids that are
    most frequent in train, chosen over all features, and one row for the others."""
    l2_embedding: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty on the embeddings of a batch."""

    one_size: ClassVar[bool] = False
    """Whether the family combines embeddings with each other, so that small vocabularies get vectors of the same size.
    Elsewhere an embedding is never larger than the feature's number of ids."""
    embeds: ClassVar[bool] = True
    """Whether the family embeds ids."""
    linear: ClassVar[bool] = False
    """Whether the family has a weight for each id."""

    @model_validator(mode="after")
    def _in_one_group(self) -> Network:
        shared = [name for group in self.shared_embeddings for name in group]
        if double := next((name for name in shared if shared.count(name) > 1), None):
            raise ValueError(f"shared_embeddings names {double!r} twice; put it in one group")
        return self

    def open(self, layout: Layout) -> Model:
        from tidemill.models.core.neural import NeuralModel

        return NeuralModel(self, layout)

    def load(self, folder: Path, layout: Layout) -> Model:
        from tidemill.models.core.neural import NeuralModel

        return NeuralModel.load(folder, self, layout)

    @abc.abstractmethod
    def logit(self, features: Features) -> keras.KerasTensor:
        """The network from features to the logit [batch, 1], or where the family has `several_labels` to a logit for
        each label, [batch, `features.labels`]."""


class Deep(Network):
    """The hyperparameters of families with a deep part."""

    deep: list[PositiveInt] = [256, 128]
    """Widths of the deep network's layers."""
    dropout: Dropout = 0.0
    """Dropout after each deep layer."""
