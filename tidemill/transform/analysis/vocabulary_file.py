"""Vocabulary files: text with a token a line, or compressed TFRecords."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa

from tidemill.transform.analysis.counts import Counts

_MASK_DELTA = 0xA282EAD8
_UINT32 = 0xFFFFFFFF


def write_vocabulary(path: Path, file_format: str, head: Iterable[bytes], store: Counts | None, query: str) -> int:
    """Writes a vocabulary.

    Args:
        path: The file.
        file_format: `text`, or `tfrecord_gzip` as Beam writes it.
        head: The first tokens, as they are written.
        store: Where the other tokens are. None where there are no more.
        query: SQL that gives them in one column of type BLOB, in order.

    Returns:
        The number of tokens that were written.
    """
    head = list(head)
    write = _write_text if file_format == "text" else _write_records
    batches = iter(()) if store is None else (batch.column(0) for batch in store.stream(query))
    return write(path, head, batches)


def text_query(expression: str, rest: str, file_format: str) -> str:
    """SQL for `write_vocabulary`: lines of text end with a line break there.

    Args:
        expression: SQL of a token as it is written, of type BLOB.
        rest: The query from FROM on.
        file_format: As for `write_vocabulary`.
    """
    ending = r" || '\x0A'::BLOB" if file_format == "text" else ""
    return f"SELECT {expression}{ending} AS line {rest}"


def _write_text(path: Path, head: list[bytes], batches: Iterator[pa.Array]) -> int:
    rows = len(head)
    with open(path, "wb") as file:
        file.writelines(token + b"\n" for token in head)
        for batch in batches:
            rows += len(batch)
            # The lines lie one after the other in Arrow's memory: no need to touch each.
            offsets = np.frombuffer(batch.buffers()[1], np.int32)[batch.offset : batch.offset + len(batch) + 1]
            if offsets[-1] > offsets[0]:
                file.write(memoryview(batch.buffers()[2])[offsets[0] : offsets[-1]])
    return rows


def _write_records(path: Path, head: list[bytes], batches: Iterator[pa.Array]) -> int:
    rows = 0
    # As Beam's: a header without time and name.
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    with open(path, "wb") as file:
        for tokens in _chunks(head, batches):
            rows += len(tokens)
            file.write(compressor.compress(b"".join(map(_record, tokens))))
        file.write(compressor.flush())
    return rows


def _chunks(head: list[bytes], batches: Iterator[pa.Array]) -> Iterator[list[bytes]]:
    yield head
    for batch in batches:
        yield batch.to_pylist()


def _record(token: bytes) -> bytes:
    """A TFRecord: length, its checksum, data, their checksum."""
    length = struct.pack("<Q", len(token))
    return b"".join((length, _checksum(length), token, _checksum(token)))


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _UINT32)
