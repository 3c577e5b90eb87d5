"""Paths for display."""

from __future__ import annotations

import os
from pathlib import Path


def short_path(path: str | Path, root: str | None = None) -> str:
    """Returns a path relative to the working directory if it is below that or if that is shorter. URIs stay.

    Args:
        path: The path.
        root: Folder that may be abbreviated to `ROOT`, if that is shorter still. Defaults to none.
    """
    text = str(path)
    if "://" in text or not os.path.isabs(text):
        return text
    relative = os.path.relpath(text)
    if not relative.startswith(".."):
        return relative
    below = [f"ROOT{text[len(root) :]}"] if root and text.startswith(f"{root}{os.sep}") else []
    return min([text, relative, *below], key=len)
