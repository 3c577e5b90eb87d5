"""A Google Cloud Storage emulator in this process."""

import os
import socket

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # the emulator has no such buckets

import gcsfs
import pytest
from gcp_storage_emulator.server import create_server


@pytest.fixture(scope="session")
def emulator():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    server = create_server("localhost", port, in_memory=True, default_bucket="warehouse")
    server.start()
    yield server, f"http://localhost:{port}"
    server.stop()


@pytest.fixture
def bucket(emulator, monkeypatch):
    """The URI of an empty bucket."""
    server, host = emulator
    server.wipe(keep_buckets=True)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield "gs://warehouse"
    gcsfs.GCSFileSystem.clear_instance_cache()
