"""What holds across processes: fingerprints of analyzer inputs, and the packages that an import loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transform.tft.test_trace import STABLE, input_fingerprints

pytestmark = [pytest.mark.tensorflow, pytest.mark.process]
CODE = """
import json, sys
from pathlib import Path
import tidemill.transform.local_engine
imports_beam = "apache_beam" in sys.modules
import tensorflow as tf
from tests.transform.tft.test_trace import STABLE, input_fingerprints
for n in range(3):  # so that TensorFlow numbers functions from another number
    tf.function(lambda x: tf.cond(x > 0, lambda: x * 2, lambda: x))(tf.constant(n))
fingerprints = [input_fingerprints(function, Path(sys.argv[1])) for function in STABLE]
print(json.dumps({"imports_beam": imports_beam, "fingerprints": fingerprints}))
"""


@pytest.fixture(scope="module")
def other_process(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The facts that another process reports, with another seed for the order of sets."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path_factory.mktemp("other"))],
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


def test_the_local_engine_does_not_import_beam(other_process: dict):
    assert other_process["imports_beam"] is False


def test_fingerprints_are_the_same_in_another_process(other_process: dict, tmp_path: Path):
    assert other_process["fingerprints"] == [input_fingerprints(function, tmp_path) for function in STABLE]
