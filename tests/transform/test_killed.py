"""A preprocess step that is killed at any moment leaves nothing that loads, and the next one gives the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.transform.runs import FEATURES, spec, table, write_examples, write_schema
from tidemill.data.dataset import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.transform.graph import TransformGraph

ROWS = 20_000
ATTEMPTS = 5
SCRIPT = """
import sys
from tidemill.specs import PreprocessSpec
from tidemill.step import Progress
from tidemill.transform.preprocess import preprocess
spec, folder, out, root = sys.argv[1:]
spec, progress = PreprocessSpec.model_validate_json(spec), Progress("preprocess")
preprocess(
    spec, folder + "/examples", folder + "/schema", root=root, progress=progress,
    transform_graph=out + "/transform_graph", transformed=out + "/transformed",
)
"""


def start(folder: Path, out: Path, root: Path, events: Path, spans: bool) -> subprocess.Popen:
    told = spec(features=FEATURES, engine="local", runner=None, spans=spans).model_dump_json()
    environment = os.environ | {"TIDEMILL_PROGRESS_FILE": str(events)}
    command = [sys.executable, "-c", SCRIPT, told, str(folder), str(out), str(root)]
    return subprocess.Popen(command, env=environment)


def wait_for(events: Path, process: subprocess.Popen) -> None:
    while not events.exists() and process.poll() is None:
        time.sleep(0.01)


def contents(out: Path) -> dict[str, bytes]:
    """All files of both artifacts."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("spans", [False, True], ids=["plain", "spans"])
def test_sigkill_at_random_moments(tmp_path: Path, spans: bool):
    splits = {"train": table(ROWS, 1, 0.0), "valid": table(ROWS // 4, 2, 0.0), "test": table(ROWS // 4, 3, 0.0)}
    write_examples(tmp_path / "examples", splits)
    write_schema(tmp_path / "schema", splits["train"].schema)
    whole = tmp_path / "whole"
    whole.mkdir()
    process = start(tmp_path, whole, tmp_path / "root_whole", tmp_path / "events", spans)
    wait_for(tmp_path / "events", process)
    begun = time.monotonic()
    assert process.wait() == 0
    seconds = time.monotonic() - begun
    moments, killed = random.Random(), 0
    out, root = tmp_path / "killed", tmp_path / "root"
    out.mkdir()
    for attempt in range(ATTEMPTS):
        events = tmp_path / f"events_{attempt}"
        process = start(tmp_path, out, root, events, spans)
        wait_for(events, process)
        time.sleep(moments.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (out / "transformed").exists():
            # It came too late: all was written, and the process about to end.
            assert contents(out) == contents(whole)
            shutil.rmtree(out)
            out.mkdir()
            continue
        killed += 1
        for opened, name in ((TransformGraph, "transform_graph"), (Dataset, "transformed")):
            with pytest.raises(TidemillError) as caught:
                opened(out / name)
            assert caught.value.code is Code.INCOMPLETE_ARTIFACT
    assert killed
    process = start(tmp_path, out, root, tmp_path / "events_last", spans)
    assert process.wait() == 0
    assert contents(out) == contents(whole)
