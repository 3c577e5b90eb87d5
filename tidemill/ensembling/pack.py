"""The `pack_models` step: copies a list of models into one artifact.

Kubeflow passes only one artifact of a list into a loop or a nested pipeline, so a list must become one artifact first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.artifacts.artifact import FileEntry
from tidemill.artifacts.model import LOGS, SERVING

_NOT_PACKED = (f"{SERVING}/", f"{LOGS}/")


def pack_models(models: Sequence[str], packed: str) -> str:
    """Copies models into one artifact, each into a folder of its own, without exports for serving and logs.

    A file is hard-linked where that is possible, so that large models are not stored twice.

    Args:
        models: Folders of models.
        packed: The folder to write.

    Returns:
        The artifact's fingerprint.

    Raises:
        TidemillError: `incomplete-artifact`.
    """
    with artifact.write_folder(packed) as folder:
        for number, model in enumerate(sorted(models, key=_order)):
            _pack(Path(model), folder / f"{number:04d}")
    return artifact.read_manifest(packed)["fingerprint"]


def packed_models(packed: str) -> list[str]:
    """Returns the folders of the models in an artifact that `pack_models` wrote.

    Raises:
        TidemillError: `incomplete-artifact`.
    """
    artifact.open_folder(packed)
    return sorted(str(path) for path in Path(packed).iterdir() if path.is_dir())


def _order(model: str) -> tuple[str, list[int]]:
    metadata = artifact.read_manifest(model)["metadata"]
    return metadata["name"], metadata.get("fold", [])


def _pack(model: Path, folder: Path) -> None:
    manifest = artifact.open_folder(model)
    entries = [FileEntry(**file) for file in manifest["files"] if not file["name"].startswith(_NOT_PACKED)]
    for entry in entries:
        (folder / entry.name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(model / entry.name, folder / entry.name)
        except OSError:  # Another file system, or one without links.
            shutil.copyfile(model / entry.name, folder / entry.name)
    storage.write_json(folder / storage.MANIFEST, artifact.manifest_of(entries, manifest["metadata"]))
