"""A fitted model for serving, exported and checked. Imports TensorFlow where it is called."""

from __future__ import annotations

from pathlib import Path

from tidemill.data.dataset import Dataset
from tidemill.models.parts.base import Model
from tidemill.step import Progress
from tidemill.transform.graph import TransformGraph


def export_checked(
    model: Model, graph: TransformGraph, raw: Dataset, data: Dataset, folder: Path, progress: Progress
) -> None:
    """Writes `Format-Serving/` into a model's folder, and replays rows through it and through the model.

    Args:
        model: A fitted model.
        graph: The transform graph that made its features.
        raw: The raw rows.
        data: Their transformed rows, in the same order.
        folder: The model's folder.
        progress: Told of both.

    Raises:
        TidemillError: `serving-skew`.
    """
    from tidemill.training.export import FOLDER, export
    from tidemill.training.replay import replay

    progress.phase("export")
    export(model, graph, folder / FOLDER)
    progress.phase("check the export")
    replay(folder / FOLDER, model, graph, raw, data)
