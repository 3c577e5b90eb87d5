"""The shop of the training tests, and its trained models."""

from tests.plain_graphs import pytest_runtest_setup, pytest_runtest_teardown  # noqa: F401
from tests.training.conftest import artifacts, shop, trained  # noqa: F401
