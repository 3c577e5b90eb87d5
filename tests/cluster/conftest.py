"""Fixtures of the tests on a cluster."""

from collections.abc import Iterator

import pytest

from tests.cluster.tool import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Kubernetes with Kueue and the manifests of the overlay `local`."""
    with running_cluster() as running:
        yield running
