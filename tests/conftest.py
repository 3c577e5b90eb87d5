"""Fixtures for all tests."""

import os
import signal

import hypothesis
import pyarrow as pa
import pytest

from tests.shop import shop_rows

# Machines are noisy: no deadline. `make test` draws the same examples everywhere, `make test-all` new ones.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("new", deadline=None)
hypothesis.settings.load_profile(os.environ.get("TIDEMILL_EXAMPLES", "same"))
# A shell starts background jobs with SIGINT ignored, and Python keeps that: tests of Ctrl-C would wait forever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def rows() -> pa.Table:
    """The rows of the small shop."""
    return shop_rows()


_NOT_UNIT = {"tensorflow", "beam", "process", "pipeline", "container", "cluster"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test that has none of the other markers as `unit`."""
    for item in items:
        if not _NOT_UNIT & {marker.name for marker in item.iter_markers()}:
            item.add_marker(pytest.mark.unit)
