"""Fixtures for all tests."""

import hypothesis
import pyarrow as pa
import pytest

from tests.shop import shop_rows

hypothesis.settings.register_profile("tidemill", deadline=None)  # machines are noisy
hypothesis.settings.load_profile("tidemill")


@pytest.fixture(scope="session")
def rows() -> pa.Table:
    """The rows of the small shop."""
    return shop_rows()
