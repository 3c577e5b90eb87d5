"""The config of a model family: its section of the experiment file.

Importing this module imports no framework, so that experiments can be written and checked without one.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tidemill.errors import Code, TidemillError
from tidemill.section import Bytes, Name, PositiveInt, Section

if TYPE_CHECKING:
    import keras

    from tidemill.models.core.network_features import Features

Dim = Annotated[int, Field(gt=0, le=512)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class Family(Section, abc.ABC):
    """The hyperparameters of a family.

    Subclasses have a field `family: Literal["<name>"]`. A family of Tidemill is named like its module in
    `tidemill.models`.
    """

    family: Any
    name: Name
    """The member's name in reports. Must be unique within the experiment."""
    training: dict[str, Any] = {}
    """Settings of the section `training` that differ for this member."""

    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions decide a model's weights and scores. They are part of the cache key of its steps."""
    origin: ClassVar[str] = ""
    """The module of a user-defined family, named by its content."""
    several_labels: ClassVar[bool] = False
    """Whether a model of the family can predict several labels."""

    def resolved(self, rows: int) -> Self:
        """Returns the hyperparameters with a value for each that was left open and depends on the data.

        Args:
            rows: Number of rows that the model is trained on.
        """
        return self

    def check_labels(self, labels: int) -> None:
        """Checks that the family can predict this number of labels.

        Raises:
            TidemillError: `unsupported`.
        """
        if labels > 1 and not self.several_labels:
            got = f"a model of family {self.family}, which predicts one label, with {labels} labels"
            raise TidemillError(Code.UNSUPPORTED, f"models.{self.name}", got, "use mmoe, or set one label")


class Network(Family):
    """The hyperparameters that all Keras families share: how ids are embedded."""

    embedding_dim: Dim = 16
    """Size of each id feature's embedding."""
    embedding_dims: Literal["auto"] | dict[str, Dim] = {}
    """Embedding sizes by feature. `auto`: 6 times the fourth root of the feature's number of ids (Wang et al., 2017,
    arXiv:1708.05123), rounded up to a multiple of 4 and at most `embedding_dim`. A family that needs vectors of one
    size projects them to `embedding_dim`."""
    shared_embeddings: list[Annotated[list[str], Field(min_length=2)]] = []
    """Groups of features that read one table, such as the last and the next item of one catalog. Their ids must mean
    the same: let the transform use one vocabulary for them."""
    max_embedding_bytes: Bytes | None = None
    """Maximum size of all embedding tables. If they would be larger, the ids that are most frequent in train, over all
    features, keep rows of their own; the other ids of a feature share one row."""
    l2_embedding: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty on the embeddings of a batch."""

    libraries: ClassVar[tuple[str, ...]] = ("keras",)
    one_size: ClassVar[bool] = False
    """Whether the family combines embeddings with each other, so that small vocabularies get vectors of the same size.
    Otherwise an embedding is never larger than the feature's number of ids."""
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

    @abc.abstractmethod
    def logit(self, features: Features) -> keras.KerasTensor:
        """Builds the network from features to the logit [batch, 1]. A family with `several_labels` returns one logit
        for each label, [batch, `features.labels`]."""


class Deep(Network):
    """The hyperparameters of families with a deep network."""

    deep: list[PositiveInt] = [256, 128]
    """Widths of the deep network's layers."""
    dropout: Dropout | None = None
    """Dropout after each deep layer. Defaults to 0.2 for up to 100,000 rows of train, 0.1 for up to a million, and 0
    for more."""

    def resolved(self, rows: int) -> Self:
        if self.dropout is not None:
            return self
        # Few rows are learned by heart before early stopping sees it.
        return self.model_copy(update={"dropout": 0.2 if rows <= 100_000 else 0.1 if rows <= 1_000_000 else 0.0})
