"""TensorFlow Transform's own tests pass on the local engine: a sample, and in `make test-all` the whole suite."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import pytest

from tests.transform.tft_suite.run import FORMATS, NOT_FLAT, PASSED, SKIPPED, Expected, load, run

SAMPLE_STEP = 100


@pytest.fixture(scope="module")
def sample() -> list[tuple[str, unittest.TestCase]]:
    """Every 100th of TFT's tests that `expected.yaml` does not name."""
    expected = Expected("local")
    return [(name, test) for name, test in load() if expected.section(name) is None][::SAMPLE_STEP]


@pytest.mark.beam
@pytest.mark.parametrize("form", FORMATS)
def test_sample_of_tfts_tests_passes(form: str, sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TEST_TMPDIR", str(tmp_path))
    outcomes = {name: run(test, form) for name, test in sample}
    assert not {n: o["message"] for n, o in outcomes.items() if o["outcome"] not in (PASSED, NOT_FLAT, SKIPPED)}
    assert sum(outcome["outcome"] == PASSED for outcome in outcomes.values()) >= 3


@pytest.mark.full
@pytest.mark.process
@pytest.mark.timeout(1800)
def test_all_of_tfts_tests_pass():
    command = [sys.executable, "-m", "tests.transform.tft_suite.run", "--jobs", str(len(os.sched_getaffinity(0)))]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
