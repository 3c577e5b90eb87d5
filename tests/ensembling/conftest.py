"""The training tests' shop."""

from tests.training.conftest import artifacts, shop  # noqa: F401
