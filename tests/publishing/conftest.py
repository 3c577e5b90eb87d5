"""A small SavedModel, trained models, and a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plain_graphs import pytest_runtest_setup, pytest_runtest_teardown  # noqa: F401
from tests.publishing.tiny import save_tiny_model
from tests.storage.conftest import bucket, emulator  # noqa: F401
from tests.training.conftest import artifacts, trained  # noqa: F401
from tests.training.two_labels import trained_two_label_shop, two_label_shop  # noqa: F401


@pytest.fixture(scope="session")
def serving(tmp_path_factory) -> Path:
    """An exported SavedModel."""
    path = tmp_path_factory.mktemp("serving") / "Format-Serving"
    save_tiny_model(path)
    return path
