"""Paths for display."""

from __future__ import annotations

import os
from pathlib import Path


def short_path(path: str | Path) -> str:
    """Returns a path relative to the working directory if that is shorter, else the path. URIs stay."""
    text = str(path)
    if "://" in text or not os.path.isabs(text):
        return text
    relative = os.path.relpath(text)
    return relative if len(relative) < len(text) else text
