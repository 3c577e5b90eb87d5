"""A preprocess step that is killed leaves no artifact that loads, and the next one writes the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tests.transform.preprocess_runs import FEATURES, example_table, spec, write_examples, write_schema
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.transform.graph import TransformGraph

pytestmark = pytest.mark.process
ROWS = 10_000
KILLS, ATTEMPTS = 2, 20


def step(folder: Path, out: Path, root: Path, events: Path, analyzer_cache: bool) -> None:
    """Runs the preprocess step. Its progress goes to the file `events`."""
    os.environ["TIDEMILL_PROGRESS_FILE"] = str(events)
    from tidemill.runtime import Progress
    from tidemill.transform.preprocess import preprocess

    preprocess(
        spec(features=FEATURES, engine="local", runner=None, analyzer_cache=analyzer_cache),
        str(folder / "examples"),
        str(folder / "schema"),
        root=str(root),
        progress=Progress("preprocess"),
        transform_graph=str(out / "transform_graph"),
        transformed=str(out / "transformed"),
    )


@pytest.fixture(scope="module")
def processes():
    """Returns a context whose processes start with all modules imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tidemill.transform.preprocess", "tidemill.transform.local_engine"])
    return context


def start(processes, *args) -> multiprocessing.Process:
    process = processes.Process(target=step, args=args)
    process.start()
    return process


def wait_for(events: Path, process: multiprocessing.Process) -> None:
    while not events.exists() and process.is_alive():
        time.sleep(0.005)


def contents(out: Path) -> dict[str, bytes]:
    """Returns the files of both artifacts."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "analyzer_cache",
    [pytest.param(False, id="plain", marks=pytest.mark.full), pytest.param(True, id="analyzer_cache")],
)
def test_sigkill_at_random_moments(tmp_path: Path, analyzer_cache: bool, processes):
    splits = {
        "train": example_table(ROWS, 1, 0.0),
        "valid": example_table(ROWS // 4, 2, 0.0),
        "test": example_table(ROWS // 4, 3, 0.0),
    }
    write_examples(tmp_path / "examples", splits)
    write_schema(tmp_path / "schema", splits["train"].schema)
    whole, out, root = (tmp_path / name for name in ("whole", "killed", "root"))
    whole.mkdir()
    process = start(processes, tmp_path, whole, tmp_path / "root_whole", tmp_path / "events", analyzer_cache)
    wait_for(tmp_path / "events", process)
    started = time.monotonic()
    process.join()
    assert process.exitcode == 0
    longest = time.monotonic() - started
    out.mkdir()
    killed = 0
    for attempt in range(ATTEMPTS):
        events = tmp_path / f"events_{attempt}"
        process = start(processes, tmp_path, out, root, events, analyzer_cache)
        wait_for(events, process)
        time.sleep(random.uniform(0, longest))
        process.kill()
        process.join()
        if (out / "transformed").exists():
            # The kill came after everything was written.
            assert contents(out) == contents(whole)
            shutil.rmtree(out)
            out.mkdir()
            longest *= 0.8  # the cache of an earlier attempt makes the next one faster
            continue
        killed += 1
        for opened, name in ((TransformGraph, "transform_graph"), (Dataset, "transformed")):
            with pytest.raises(TidemillError) as caught:
                opened(out / name)
            assert caught.value.code is Code.INCOMPLETE_ARTIFACT
        if killed == KILLS:
            break
    assert killed == KILLS
    process = start(processes, tmp_path, out, root, tmp_path / "events_last", analyzer_cache)
    process.join()
    assert process.exitcode == 0
    assert contents(out) == contents(whole)
