"""Artifacts shared by all test workers: each is built once per test session, whichever worker needs it first."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def once(tmp_path_factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Returns a folder that `build` fills once per session; other workers of pytest-xdist wait for it.

    Tests must not change what is in the folder: copy it first.

    Args:
        tmp_path_factory: Pytest's fixture.
        name: Name of the folder, unique in the test suite.
        build: Called with the empty folder. When it raises, the next caller builds again.
    """
    base = tmp_path_factory.getbasetemp()
    # With pytest-xdist each worker has a temporary folder of its own below that of the session.
    session = base.parent if base.name.startswith("popen-") else base
    folder, done = session / f"shared-{name}", session / f"shared-{name}.done"
    with open(session / f"shared-{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # left by a build that raised
            folder.mkdir()
            build(folder)
            done.touch()
    return folder
