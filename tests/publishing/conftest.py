"""The tiny SavedModel, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.publishing.tiny import save_tiny_model


@pytest.fixture(scope="session")
def serving(tmp_path_factory) -> Path:
    """An exported SavedModel."""
    path = tmp_path_factory.mktemp("serving") / "Format-Serving"
    save_tiny_model(path)
    return path
