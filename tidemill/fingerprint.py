"""Fingerprints: short content hashes by which artifacts, inputs and code are recognised again."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path

import tidemill

DIGEST_CHARS = 24
_CHUNK = 1 << 20


def of_json(value: object) -> str:
    """Fingerprint of a JSON-serialisable value; independent of the order of keys.

    Returns:
        24 hexadecimal characters of a SHA-256.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]


def of_file(path: str | os.PathLike) -> str:
    """Fingerprint of a local file's bytes, read in pieces of 1 MiB.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:DIGEST_CHARS]


@functools.cache
def code_version() -> str:
    """The library's version and a fingerprint of its sources, so that a changed line of code is never served from
    cache.

    Returns:
        For example `0.1.0+3f2a91c0d4e5`.
    """
    root = Path(tidemill.__file__).parent
    sources = sorted(root.rglob("*.py"))
    digest = of_json([[p.relative_to(root).as_posix(), of_file(p)] for p in sources])
    return f"{tidemill.__version__}+{digest[:12]}"
