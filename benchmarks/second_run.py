"""Seconds of `tidemill run` on flights, imports included: the first run, and three more of the unchanged experiment.

python benchmarks/second_run.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPERIMENT = Path(__file__).parents[1] / "examples" / "flights" / "experiment.yaml"


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        for number in range(1, 5):
            command = [sys.executable, "-m", "tidemill.cli.main", "run", str(EXPERIMENT), "--root", root, "--plain"]
            started = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True)
            seconds = time.monotonic() - started
            if done.returncode:
                sys.exit(done.stdout + done.stderr)
            cached = "every step was cached" in done.stdout
            print(f"run {number}: {seconds:.1f} s{', every step cached' if cached else ''}", flush=True)


if __name__ == "__main__":
    main()
