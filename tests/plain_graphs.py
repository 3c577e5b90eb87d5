"""Hooks for a `conftest.py`: in its tests, TensorFlow runs graphs as they are traced, without Grappler.

Grappler takes up to half of the CPU seconds of a test that trains or exports a small network. Processes that a test
starts run with it, and so do the tests of pipelines and of the transform.
"""

from __future__ import annotations

import pytest


def _switch_grappler(item: pytest.Item, on: bool) -> None:
    if item.get_closest_marker("tensorflow"):
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not on})


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Switches Grappler off before the fixtures of a test are built."""
    _switch_grappler(item, on=False)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Switches Grappler on again."""
    _switch_grappler(item, on=True)
