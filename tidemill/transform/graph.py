"""The transform graph on disk: a TFX transform output with a list of what goes in and what comes out.

transform_fn/             SavedModel
transformed_metadata/     the schema of what it gives
metadata/                 the schema of the raw columns
features.json  manifest.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.artifacts import artifact
from tidemill.transform.raw import RawColumn

if TYPE_CHECKING:
    from tidemill.transform.dense_function import DenseFunction, ExampleFunction

TRANSFORM_FN = "transform_fn"
TRANSFORMED_METADATA = "transformed_metadata"
RAW_METADATA = "metadata"
FEATURES = "features.json"


class TransformGraph:
    """A transform graph, opened for use.

    Args:
        path: The artifact's folder.

    Attributes:
        raw_columns: The columns that the features are computed from; labels are not among them.
        features: `{"name": …, "kind": "id", "num_ids": …}` or `{"name": …, "kind": "number"}`, in the file's order.
            Ids are 0 to num_ids - 1, those for unknown and for missing values included.
        labels: The labels' names.
        computed_labels: For each label that the graph computes the columns that it is computed from. The others are raw
            columns themselves.
        offsets: What is added to an output's ids so that they begin at 0, by the output's name.
        fingerprint: Of the folder's content.

    Raises:
        TidemillError: `incomplete-artifact`.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.fingerprint: str = artifact.open_folder(self.path)["fingerprint"]
        facts = json.loads((self.path / FEATURES).read_text(encoding="utf-8"))
        self.features: list[dict] = facts["features"]
        self.raw_columns = [RawColumn(**column) for column in facts["raw_columns"]]
        self.labels: list[str] = facts["labels"]
        computed = facts["computed_labels"]
        self.computed_labels = {name: [RawColumn(**column) for column in computed[name]] for name in computed}
        self.offsets: dict[str, int] = facts["offsets"]

    def dense_function(self) -> DenseFunction:
        """A `tf.Module` from raw columns as dense tensors `[batch]` with sentinels to the features `[batch]`."""
        return self._function(self.raw_columns, self._dtypes())

    def example_function(self) -> ExampleFunction:
        """A `tf.Module` from serialized `tf.Example` protos `[batch]` to the features `[batch]`."""
        from tidemill.transform.dense_function import ExampleFunction

        return ExampleFunction(self.dense_function(), self.raw_columns)

    def row_columns(self) -> list[RawColumn]:
        """The columns that `row_function` needs: those of the features, and of labels that are computed."""
        of_labels = [column for columns in self.computed_labels.values() for column in columns]
        return list(dict.fromkeys([*self.raw_columns, *of_labels]))

    def row_function(self) -> DenseFunction:
        """As `dense_function`, with the labels (float32) that the graph computes: for transformed examples."""
        return self._function(self.row_columns(), self._dtypes() | dict.fromkeys(self.computed_labels, "float32"))

    @property
    def given_labels(self) -> list[str]:
        """The labels that are raw columns."""
        return [name for name in self.labels if name not in self.computed_labels]

    def _dtypes(self) -> dict[str, str]:
        return {f["name"]: "int32" if f["kind"] == "id" else "float32" for f in self.features}

    def _function(self, columns: Sequence[RawColumn], outputs: Mapping[str, str]) -> DenseFunction:
        from tidemill.transform.dense_function import DenseFunction

        return DenseFunction(self.path / TRANSFORM_FN, columns, outputs, self.offsets)
