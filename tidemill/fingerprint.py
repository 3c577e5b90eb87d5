"""Fingerprints: short content hashes that identify artifacts, inputs and code."""

from __future__ import annotations

import hashlib
import json
import os

DIGEST_CHARS = 24
_CHUNK = 1 << 20


def of_json(value: object) -> str:
    """Returns the fingerprint of a JSON-serializable value, whatever the order of its keys.

    Returns:
        24 hexadecimal characters of a SHA-256.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]


def of_file(path: str | os.PathLike) -> str:
    """Returns the fingerprint of a local file's bytes, which it reads in pieces of 1 MiB.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:DIGEST_CHARS]
