"""The files of one checkpoint: `arrays.bin`, and `manifest.json`, which is written last.

`arrays.bin` has the bytes of the arrays, one array after the other. The manifest has the name, type and shape of each
array, the fingerprint of `arrays.bin`, and the state. So a checkpoint is read and written in one pass without temporary
files, also in an object store.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from tidemill import fingerprint, storage
from tidemill.artifacts import artifact

Arrays = dict[str, np.ndarray]
PARTIAL = ".partial"
"""Suffix of the local folder that a checkpoint is written to before it is renamed."""
_ARRAYS = "arrays.bin"
_CHUNK_BYTES = 4 << 20
_MISSING = (errno.ENOENT, errno.ENOTEMPTY)


class Abandoned(Exception):
    """The error for a write that is no longer needed."""


def write(uri: str, state: dict[str, Any], arrays: Arrays, abandon: threading.Event) -> None:
    """Writes a checkpoint. It appears when it is complete.

    Other runs of the same training may write and remove checkpoints at the same time. If one of them has already
    written this checkpoint, or removes the folder because the training is finished, nothing is written.

    Args:
        uri: The checkpoint's folder.
        state: JSON-serializable.
        arrays: By name, of any dtype except object. Each array is removed from the dict when it is written, to release
            its memory.
        abandon: Set it to stop the write.

    Raises:
        Abandoned: `abandon` was set. Nothing is left.
        OSError: The files cannot be written.
    """
    path = storage.local_path(uri)
    if path is None:
        _write_files(uri, state, arrays, abandon)
        return
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    partial.mkdir(parents=True)
    try:
        _write_files(str(partial), state, arrays, abandon)
        _rename(partial, path)
    except FileNotFoundError:
        if partial.exists():
            raise
    finally:
        remove(str(partial))


def read(uri: str) -> tuple[dict[str, Any], Arrays]:
    """Returns state and arrays of a checkpoint.

    Raises:
        TidemillError: `incomplete-artifact`: its bytes are not those that its manifest lists.
        FileNotFoundError: It is incomplete, or was removed.
    """
    try:
        manifest = storage.read_json(storage.join(uri, storage.MANIFEST))
        entry, metadata = artifact.FileEntry(**manifest["files"][0]), manifest["metadata"]
        arrays = {name: np.empty(shape, dtype) for name, dtype, shape in metadata["arrays"]}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise artifact.incomplete_error(uri, f"no readable {storage.MANIFEST}") from error
    digest = hashlib.sha256()
    with storage.open_file(storage.join(uri, _ARRAYS)) as file:
        for chunk in _chunks(arrays):
            if not _read_into(file, chunk):
                raise artifact.incomplete_error(uri, f"less than the {entry.bytes} bytes in the manifest")
            digest.update(chunk)
        if file.read(1) or digest.hexdigest()[: fingerprint.DIGEST_CHARS] != entry.fingerprint:
            raise artifact.incomplete_error(uri, "other bytes than the manifest lists")
    return metadata["state"], arrays


def is_complete(uri: str) -> bool:
    """Returns whether a checkpoint has a manifest."""
    return storage.exists(storage.join(uri, storage.MANIFEST))


def remove(uri: str) -> None:
    """Removes a folder. What another process removes or adds at the same time is ignored."""
    try:
        storage.remove_folder(uri, first=storage.MANIFEST)
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and error.errno not in _MISSING:
            raise


def _write_files(uri: str, state: dict[str, Any], arrays: Arrays, abandon: threading.Event) -> None:
    described = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    digest, size = hashlib.sha256(), 0
    with storage.writing(storage.join(uri, _ARRAYS)) as file:
        for name in list(arrays):
            for chunk in _chunks({name: arrays.pop(name)}):
                if abandon.is_set():
                    raise Abandoned
                digest.update(chunk)
                file.write(chunk)
                size += len(chunk)
    entry = artifact.FileEntry(_ARRAYS, None, size, digest.hexdigest()[: fingerprint.DIGEST_CHARS])
    manifest = {
        "format": 1,
        "fingerprint": fingerprint.of_json([[entry.name, entry.fingerprint]]),
        "files": [asdict(entry)],
        "metadata": {"arrays": described, "state": state},
    }
    storage.write_json(storage.join(uri, storage.MANIFEST), manifest)


def _chunks(arrays: Arrays) -> Iterator[memoryview]:
    """Yields the memory of contiguous arrays in pieces, and a copy of that of others."""
    for array in arrays.values():
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for start in range(0, len(data), _CHUNK_BYTES):
            yield data[start : start + _CHUNK_BYTES]


def _read_into(file: BinaryIO, chunk: memoryview) -> bool:
    """Fills a chunk from a file. Returns whether the file has enough bytes."""
    filled, stream = 0, cast(io.BufferedIOBase, file)
    while filled < len(chunk) and (count := stream.readinto(chunk[filled:])):
        filled += count
    return filled == len(chunk)


def _rename(partial: Path, path: Path) -> None:
    try:
        os.rename(partial, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not is_complete(str(path)):
            remove(str(path))
            os.rename(partial, path)
