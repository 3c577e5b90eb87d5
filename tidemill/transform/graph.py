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

from tidemill import artifact
from tidemill.transform.raw import RawColumn

if TYPE_CHECKING:
    from tidemill.transform.function import DenseFunction, ExampleFunction

TRANSFORM_FN = "transform_fn"
TRANSFORMED_METADATA = "transformed_metadata"
RAW_METADATA = "metadata"
FEATURES = "features.json"


class TransformGraph:
    """A transform graph, opened for use.

    Args:
        path: The artifact's folder.

    Attributes:
        raw_columns: The columns that the features are computed from; the label is not among them.
        features: `{"name": …, "kind": "id", "num_ids": …}` or `{"name": …, "kind": "number"}`, in the file's order.
            Ids are 0 to num_ids - 1, those for unknown and for missing values included.
        label: The label's name.
        label_columns: The columns that the graph computes the label from; None where it does not compute it.
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
        self.label: str = facts["label"]
        columns = facts["label_columns"]
        self.label_columns = None if columns is None else [RawColumn(**column) for column in columns]
        self.offsets: dict[str, int] = facts["offsets"]

    def dense_function(self) -> DenseFunction:
        """A `tf.Module` from raw columns as dense tensors `[batch]` with sentinels to the features `[batch]`."""
        return self._function(self.raw_columns, self._dtypes())

    def example_function(self) -> ExampleFunction:
        """A `tf.Module` from serialized `tf.Example` protos `[batch]` to the features `[batch]`."""
        from tidemill.transform.function import ExampleFunction

        return ExampleFunction(self.dense_function(), self.raw_columns)

    def row_columns(self) -> list[RawColumn]:
        """The columns that `row_function` needs: those of the features, and of the label where it is computed."""
        return list(dict.fromkeys([*self.raw_columns, *(self.label_columns or [])]))

    def row_function(self) -> DenseFunction:
        """As `dense_function`, with the label (float32) where the graph computes it: for transformed examples."""
        label = {} if self.label_columns is None else {self.label: "float32"}
        return self._function(self.row_columns(), self._dtypes() | label)

    def _dtypes(self) -> dict[str, str]:
        return {f["name"]: "int32" if f["kind"] == "id" else "float32" for f in self.features}

    def _function(self, columns: Sequence[RawColumn], outputs: Mapping[str, str]) -> DenseFunction:
        from tidemill.transform.function import DenseFunction

        return DenseFunction(self.path / TRANSFORM_FN, columns, outputs, self.offsets)
