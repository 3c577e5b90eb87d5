"""The option `--root`: the folder of artifacts, runs and published models."""

from __future__ import annotations

import argparse
from pathlib import Path

from tidemill.errors import Code, TidemillError


def root_folder(args: argparse.Namespace) -> Path:
    """Returns the absolute path of the folder, which need not exist.

    Raises:
        TidemillError: `invalid-value` for a URI of an object store, an empty text or a file.
    """
    path = Path(args.root).absolute()
    if not args.root or "://" in args.root:
        want = "name a folder on this machine; object stores are for pipelines on a cluster"
        raise TidemillError(Code.INVALID_VALUE, "--root", repr(args.root), want)
    if any(part.exists() and not part.is_dir() for part in (path, *path.parents)):
        raise TidemillError(Code.INVALID_VALUE, "--root", f"{args.root!r}, which is not a folder", "name a folder")
    return path
