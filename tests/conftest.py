"""Fixtures for all tests."""

import signal

import hypothesis
import pyarrow as pa
import pytest

from tests.shop import shop_rows

hypothesis.settings.register_profile("tidemill", deadline=None)  # machines are noisy
hypothesis.settings.load_profile("tidemill")
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
