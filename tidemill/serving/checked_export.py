"""A fitted model for serving, exported and checked. Imports TensorFlow where it is called, or has a process do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.models.core.base import Model
from tidemill.runtime import Progress
from tidemill.serving.replay import Sample, replay, sample
from tidemill.training import backend
from tidemill.transform.graph import TransformGraph

_PROCESS = "tidemill.serving.export_process"


def export_checked(
    model: Model, graph: TransformGraph, raw: Dataset, data: Dataset, folder: Path, progress: Progress
) -> None:
    """Writes `Format-Serving/` into a model's folder, and replays rows through it and through the model.

    Where another framework than TensorFlow computes this process's networks, a process that has TensorFlow, and no GPU,
    reads the model from its folder and exports that.

    Args:
        model: A fitted model.
        graph: The transform graph that made its features.
        raw: The raw rows.
        data: Their transformed rows, in the same order.
        folder: The model's folder, with the model and its document.
        progress: Told of both.

    Raises:
        TidemillError: `serving-skew`.
    """
    if backend.current() != "tensorflow":
        progress.phase("export, and check the export, by TensorFlow")
        export_by_tensorflow(sample(model, raw, data), graph, raw, folder)
        return
    progress.phase("export")
    exported = export_to(folder, model, graph)
    progress.phase("check the export")
    replay(exported, graph, raw, sample(model, raw, data))


def export_to(folder: Path, model: Model, graph: TransformGraph) -> Path:
    """Writes `Format-Serving/`, and gives its path."""
    from tidemill.serving.export import FOLDER, export

    export(model, graph, folder / FOLDER)
    return folder / FOLDER


def export_by_tensorflow(sampled: Sample, graph: TransformGraph, raw: Dataset, folder: Path) -> None:
    """Has a process of its own export the model that lies in a folder with its document, and replay rows whose scores
    are known.

    Raises:
        TidemillError: `serving-skew`, and what reading the model raises.
        RuntimeError: the process failed otherwise; its log is that of this one.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-export-") as scratch:
        scores, error = Path(scratch) / "sample.npz", Path(scratch) / "error.json"
        np.savez(scores, places=sampled.places, scores=sampled.scores)
        paths = {"folder": folder, "graph": graph.path, "raw": raw.path, "sample": scores, "error": error}
        told = {name: str(path.absolute()) for name, path in paths.items()} | {"split": sampled.split}
        env = os.environ | {backend.VARIABLE: "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        env["PYTHONPATH"] = os.pathsep.join(sys.path)
        done = subprocess.run([sys.executable, "-m", _PROCESS, json.dumps(told)], env=env, check=False)
        if error.exists():
            found = json.loads(error.read_text(encoding="utf-8"))
            raise TidemillError(Code[found.pop("code")], **found)
        if done.returncode:
            raise RuntimeError(f"the process that exports the model ended with {done.returncode}; its log is above")
