"""TFT's own tests as one test, in as many processes as there are cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_tft_s_own_tests_pass():
    command = [sys.executable, "-m", "tests.transform.tft_suite.run", "--jobs", str(len(os.sched_getaffinity(0)))]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
