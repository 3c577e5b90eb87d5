"""The export of a fitted model for serving, and the check of the export.

TensorFlow is imported only when a model is exported. If another framework computes this process's networks, a separate
process exports the model with TensorFlow:

    python -m tidemill.serving.export '{"folder": …}'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tidemill.artifacts import model_columns
from tidemill.artifacts.examples import Dataset
from tidemill.artifacts.model import SERVING
from tidemill.errors import EXIT_CODE, Code, TidemillError
from tidemill.models.core import backend
from tidemill.models.core.base import Model
from tidemill.models.core.registry import read_model
from tidemill.runtime import Progress, die_with_run
from tidemill.serving.replay import Sample, replay, sample
from tidemill.transform.graph import TransformGraph


def export_checked(
    model: Model, graph: TransformGraph, raw: Dataset, data: Dataset, folder: Path, progress: Progress
) -> None:
    """Writes `Format-Serving/` to a model's folder, and replays rows through it and through the model.

    Args:
        model: A fitted model.
        graph: The transform graph of its features.
        raw: The raw rows.
        data: The transformed rows, in the same order.
        folder: The model's folder, which already holds the weights and `model.json`.
        progress: Receives the progress.

    Raises:
        TidemillError: `serving-skew`.
    """
    if backend.current() != "tensorflow":
        progress.phase("export with TensorFlow and check the export")
        export_in_subprocess(sample(model, raw, data), graph, raw, folder)
        return
    progress.phase("export")
    exported = _export(model, graph, raw, folder)
    progress.phase("check the export")
    replay(exported, graph, raw, sample(model, raw, data))


def export_in_subprocess(scored: Sample, graph: TransformGraph, raw: Dataset, folder: Path) -> None:
    """Exports the model in a folder in a new process that uses TensorFlow and no GPU, and replays rows through it.

    Args:
        scored: Rows with the scores of this process.
        graph: The transform graph of the model's features.
        raw: The raw rows.
        folder: The model's folder, which already holds the weights and `model.json`.

    Raises:
        TidemillError: `serving-skew`, and what reading the model raises.
        RuntimeError: The process failed otherwise. Its log precedes the error.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-export-") as scratch:
        sample_file, error_file = Path(scratch) / "sample.npz", Path(scratch) / "error.json"
        np.savez(sample_file, indices=scored.indices, scores=scored.scores)
        paths = {"folder": folder, "graph": graph.path, "raw": raw.path, "sample": sample_file, "error": error_file}
        arguments = {name: str(path.absolute()) for name, path in paths.items()} | {"split": scored.split}
        env = os.environ | {backend.VARIABLE: "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        env["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, "-m", __name__, json.dumps(arguments)]
        returncode = subprocess.run(command, env=env, check=False).returncode
        if error_file.exists():
            error = json.loads(error_file.read_text(encoding="utf-8"))
            raise TidemillError(Code[error.pop("code")], **error)
        if returncode:
            raise RuntimeError(f"the process that exports the model ended with {returncode}; its log is above")


def _export(model: Model, graph: TransformGraph, raw: Dataset, folder: Path) -> Path:
    from tidemill.serving.saved_model import write_saved_model

    write_saved_model(model, graph, folder / SERVING)
    model_columns.write(folder / SERVING, raw.metadata)
    return folder / SERVING


def _main(arguments: dict[str, str]) -> int:
    """Exports and checks a model, and returns the exit code.

    Args:
        arguments: Paths of the model's `folder`, the transform `graph`, the `raw` rows, the `sample` of scored rows,
            and the file for an `error`; and the sample's `split`.
    """
    folder, graph = Path(arguments["folder"]), TransformGraph(arguments["graph"])
    try:
        model = read_model(folder)
        with np.load(arguments["sample"]) as arrays:
            scored = Sample(arguments["split"], arrays["indices"], arrays["scores"], model.layout.labels)
        raw = Dataset(arguments["raw"])
        replay(_export(model, graph, raw, folder), graph, raw, scored)
    except TidemillError as error:
        content = {"code": error.code.name, "where": error.where, "got": error.got, "want": error.want}
        Path(arguments["error"]).write_text(json.dumps(content | {"details": error.details}), encoding="utf-8")
        return EXIT_CODE
    return 0


if __name__ == "__main__":
    die_with_run()
    sys.exit(_main(json.loads(sys.argv[1])))
