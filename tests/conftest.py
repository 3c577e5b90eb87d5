"""Fixtures for all tests."""

import pyarrow as pa
import pytest

from tests.shop import shop_rows


@pytest.fixture(scope="session")
def rows() -> pa.Table:
    """The rows of the small shop."""
    return shop_rows()
