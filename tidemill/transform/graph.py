"""The transform graph artifact: its file names, its JSON and its functions.

A transform graph is the output of TensorFlow Transform with a list of its inputs and outputs:

transform_fn/             SavedModel
transformed_metadata/     schema of the outputs
metadata/                 schema of the raw columns
features.json             see `GraphFacts`
manifest.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.transform.raw import RawColumn

if TYPE_CHECKING:
    from tidemill.transform.dense_function import DenseFunction

TRANSFORM_FN = "transform_fn"
TRANSFORMED_METADATA = "transformed_metadata"
RAW_METADATA = "metadata"
FEATURES = "features.json"
_FORMAT = 1


class TransformedFeature(TypedDict):
    """A feature as models take it: an id below `num_ids`, or a number."""

    name: str
    kind: Literal["id", "number"]
    num_ids: NotRequired[int]
    """Only for ids, which are 0 to `num_ids - 1`, including those of unknown and missing values."""


@dataclass(frozen=True)
class GraphFacts:
    """The inputs and outputs of a transform graph: the content of `features.json`.

    Attributes:
        labels: The labels' names.
        computed_labels: The raw columns of each label that the graph computes. Other labels are raw columns themselves.
        raw_columns: The columns that the features are computed from, without labels.
        features: The features in the order in which models list them.
        offsets: By output, the number that is added to its ids so that they start at 0.
    """

    labels: list[str]
    computed_labels: dict[str, list[RawColumn]]
    raw_columns: list[RawColumn]
    features: list[TransformedFeature]
    offsets: dict[str, int]

    def write(self, folder: Path) -> None:
        """Writes `features.json` to a folder."""
        storage.write_json(folder / FEATURES, {"format": _FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> GraphFacts:
        """Reads `features.json` from a folder."""
        facts: dict[str, Any] = json.loads((folder / FEATURES).read_text(encoding="utf-8"))
        computed = facts["computed_labels"]
        return cls(
            labels=facts["labels"],
            computed_labels={name: [RawColumn(**column) for column in computed[name]] for name in computed},
            raw_columns=[RawColumn(**column) for column in facts["raw_columns"]],
            features=facts["features"],
            offsets=facts["offsets"],
        )


class TransformGraph:
    """A transform graph, opened for use.

    Args:
        path: The artifact's folder.

    Attributes:
        path: As given.
        raw_columns, features, labels, computed_labels, offsets: See `GraphFacts`.
        fingerprint: Fingerprint of the folder's content.

    Raises:
        TidemillError: `incomplete-artifact`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.fingerprint: str = artifact.open_folder(self.path)["fingerprint"]
        facts = GraphFacts.read(self.path)
        self.features = facts.features
        self.raw_columns = facts.raw_columns
        self.labels = facts.labels
        self.computed_labels = facts.computed_labels
        self.offsets = facts.offsets

    @property
    def num_ids(self) -> dict[str, int]:
        """The number of ids of each id feature."""
        return {feature["name"]: feature["num_ids"] for feature in self.features if "num_ids" in feature}

    @property
    def given_labels(self) -> list[str]:
        """The labels that are raw columns."""
        return [name for name in self.labels if name not in self.computed_labels]

    def dense_function(self) -> DenseFunction:
        """Returns a `tf.Module` from raw columns, dense tensors `[batch]` with sentinels, to the features `[batch]`."""
        return self._function(self.raw_columns, self._dtypes())

    def row_columns(self) -> list[RawColumn]:
        """Returns the columns that `row_function` needs: those of the features and of computed labels."""
        of_labels = [column for columns in self.computed_labels.values() for column in columns]
        return list(dict.fromkeys([*self.raw_columns, *of_labels]))

    def row_function(self) -> DenseFunction:
        """Returns `dense_function` with the computed labels (float32) added, for transformed examples."""
        return self._function(self.row_columns(), self._dtypes() | dict.fromkeys(self.computed_labels, "float32"))

    def _dtypes(self) -> dict[str, str]:
        return {f["name"]: "int32" if f["kind"] == "id" else "float32" for f in self.features}

    def _function(self, columns: Sequence[RawColumn], outputs: Mapping[str, str]) -> DenseFunction:
        from tidemill.transform.dense_function import DenseFunction

        return DenseFunction(self.path / TRANSFORM_FN, columns, outputs, self.offsets)
