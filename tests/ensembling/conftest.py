"""The shop of the training tests, and its trained models."""

from tests.training.conftest import artifacts, shop, trained  # noqa: F401
