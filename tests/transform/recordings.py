"""Recorded outputs of Beam, with which tests compare the local engine.

Beam takes most of the time of such a test, and its outputs change only with TensorFlow Transform. They are therefore
recorded once for each version, in `recorded/VERSION/`, by `python -m tests.transform.record`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_transform as tft

FOLDER = Path(__file__).with_name("recorded")
VERSIONS = "versions.json"
_COMMAND = "python -m tests.transform.record"
_EPOCH = (1980, 1, 1, 0, 0, 0)


class MissingRecording(AssertionError):
    """No outputs of Beam are recorded for the installed libraries."""


def installed_versions() -> dict[str, str]:
    """Returns the versions of the libraries on which Beam's outputs depend."""
    return {"tensorflow": tf.__version__, "tensorflow_transform": tft.__version__}


class Recording:
    """The files that Beam wrote for one group of tests, in one zip archive.

    Args:
        group: Name of the archive, without `.zip`.
        folder: Folder of the recordings. Defaults to `recorded/` next to this module.

    Raises:
        MissingRecording: nothing is recorded for the installed version of TensorFlow Transform, or it was recorded
            with another version of TensorFlow.
    """

    def __init__(self, group: str, folder: Path = FOLDER):
        path = folder / tft.__version__ / f"{group}.zip"
        if not path.exists():
            raise MissingRecording(f"{path}: got no outputs of Beam for this version; run `{_COMMAND}`.")
        recorded = json.loads(path.with_name(VERSIONS).read_text(encoding="utf-8"))
        if recorded != installed_versions():
            raise MissingRecording(f"{path}: got {recorded} where {installed_versions()} is here; run `{_COMMAND}`.")
        self._archive = zipfile.ZipFile(path)

    def names(self, prefix: str = "") -> list[str]:
        """Returns the sorted names of the files that start with a prefix."""
        return sorted(name for name in self._archive.namelist() if name.startswith(prefix))

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file."""
        return self._archive.read(name)

    def extract(self, prefix: str, folder: Path) -> Path:
        """Writes the files below `prefix/` to a folder and returns the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.names(f"{prefix}/"):
            path = folder / name.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(name))
        return folder

    def table(self, name: str) -> pa.Table:
        """Returns a Parquet file as a table."""
        return read_table(self.read(name))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Returns a file of `write_arrays`."""
        return read_arrays(self.read(name))


def write_recording(group: str, files: Mapping[str, bytes], folder: Path = FOLDER) -> None:
    """Writes the archive of a group for the installed versions. The same files give the same bytes."""
    folder = folder / tft.__version__
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{group}.zip", "w", zipfile.ZIP_LZMA) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name], zipfile.ZIP_LZMA)
    (folder / VERSIONS).write_text(json.dumps(installed_versions(), indent=2) + "\n", encoding="utf-8")


def files_below(folder: Path, prefix: str, parts: tuple[str, ...] = ("",)) -> dict[str, bytes]:
    """Returns the files below some parts of a folder, with `prefix/` before their relative names."""
    paths = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    return {f"{prefix}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}


def write_table(table: pa.Table) -> bytes:
    """Returns a table as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="none")  # the archive is compressed
    return sink.getvalue()


def read_table(content: bytes) -> pa.Table:
    """Returns the table in the bytes of a Parquet file."""
    return pq.read_table(io.BytesIO(content))


def write_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns arrays of numbers or bytes as JSON."""
    content = {}
    for name, value in arrays.items():
        array = np.asarray(value)
        is_bytes = array.dtype.kind in "OS"
        values = [item.decode("latin-1") for item in array.ravel().tolist()] if is_bytes else array.ravel().tolist()
        dtype = "bytes" if is_bytes else array.dtype.name
        content[name] = {"dtype": dtype, "shape": list(array.shape), "values": values}
    return json.dumps(content, sort_keys=True).encode()


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays that `write_arrays` wrote; bytes are in arrays of objects."""
    arrays = {}
    for name, array in json.loads(content).items():
        is_bytes = array["dtype"] == "bytes"
        values = [item.encode("latin-1") for item in array["values"]] if is_bytes else array["values"]
        flat = np.empty(len(values), object if is_bytes else array["dtype"])
        flat[:] = values
        arrays[name] = flat.reshape(array["shape"])
    return arrays
