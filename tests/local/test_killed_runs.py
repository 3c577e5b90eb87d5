"""Runs that are killed: what they leave behind, and how the next run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.local.toy_pipelines import TOY, experiment
from tidemill.local import run_record
from tidemill.local.execution import run_pipeline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

_DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.local.toy_pipelines import TOY, experiment
from tidemill.local.execution import Stopped, run_pipeline

root = Path(sys.argv[2])
arguments = {"root": str(root), "experiment": experiment("aa", "b"), "rows": "2", "seconds": sys.argv[3]}
try:
    run_pipeline(TOY, arguments, experiment="toy", file="f", root=root)
except Stopped as stopped:
    sys.exit(128 + stopped.signum)
"""


@pytest.fixture
def begin(tmp_path):
    """Starts a run in a process of its own, and waits until a step with the given name runs."""
    started = []

    def start(step: str, seconds: float) -> subprocess.Popen:
        command = [sys.executable, "-c", _DRIVER, str(Path(__file__).parents[2]), str(tmp_path), str(seconds)]
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        env = {**os.environ, "TMPDIR": str(temporary)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
        started.append(process)
        wait_for(lambda: _running(tmp_path, step) or process.poll() is not None)
        assert process.poll() is None, process.stdout.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _running(root: Path, step: str) -> bool:
    runs = run_record.list_runs(root)
    return bool(runs) and any(s["name"].startswith(step) and s["state"] == "running" for s in runs[0].steps)


def processes_of(root: Path) -> list[str]:
    """Command lines of the living processes of steps that work below `root`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "executor_main" in command and str(root) in command:
            found.append(command)
    return found


def finish(root: Path):
    arguments = {"root": str(root), "experiment": experiment("aa", "b"), "rows": "2", "seconds": "0.2"}
    return run_pipeline(TOY, arguments, experiment="toy", file="f", root=root)


@pytest.mark.parametrize("step", ["ingest", "train"])
def test_kill_9_leaves_no_process_and_the_next_run_goes_on(tmp_path, begin, step):
    process = begin(step, 0.2 if step == "train" else 30)
    if step == "train":
        # Both members are under way.
        wait_for(lambda: len(processes_of(tmp_path)) >= 2)
    process.kill()
    process.wait()
    wait_for(lambda: not processes_of(tmp_path), seconds=30)
    # A process that was about to become a step's may hold the lock for an instant.
    wait_for(lambda: run_record.find_run(tmp_path, None).status == "interrupted", seconds=30)
    killed = run_record.find_run(tmp_path, None)
    assert "interrupted" in [s["state"] for s in killed.steps]
    if step == "ingest":
        return
    resumed = finish(tmp_path)
    assert resumed.succeeded
    assert next(s.state.value for s in resumed.steps if s.name == "ingest") == "cached"
    assert not Path(killed.temporary).exists()


def test_kill_9_while_a_step_has_not_begun_its_work(tmp_path, begin):
    """The step's process starts up, and has not asked the kernel yet to end it with the run."""
    process = begin("plan", 30)
    process.kill()
    process.wait()
    wait_for(lambda: not processes_of(tmp_path), seconds=30)


# Ctrl-C during ingest: see the next test.
@pytest.mark.parametrize(("step", "signum"), [("ingest", signal.SIGTERM), ("train", signal.SIGINT)])
def test_a_signal_kills_the_steps_and_is_told_apart(tmp_path, begin, step, signum):
    process = begin(step, 30 if step == "ingest" else 0.6)
    process.send_signal(signum)
    assert process.wait(10) == 128 + signum
    assert not processes_of(tmp_path)
    stopped = run_record.find_run(tmp_path, None)
    assert stopped.status == "stopped"
    assert {s["state"] for s in stopped.steps if s["task"] == step} == {"stopped"}
    assert not Path(stopped.temporary).exists()


def test_ctrl_c_on_the_command_line(tmp_path):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.local.toy_pipelines import TOY
from tidemill.cli.main import main
from tidemill.local import definitions
definitions.find_pipeline = lambda name: TOY
sys.exit(main(["run", sys.argv[2] + "/toy.yaml", "--root", sys.argv[2], "--param", "seconds=30.0"]))
"""
    (tmp_path / "toy.yaml").write_text(experiment("a"))
    command = [sys.executable, "-c", code, str(Path(__file__).parents[2]), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: _running(tmp_path, "ingest") or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "stopped by SIGINT: finished steps are kept; the same command resumes after them\n"
    # kfp orders tasks that do not need each other by chance, so that another one may be stopped after it.
    assert ["ingest", "stopped"] in [line.split()[:2] for line in out.splitlines()]
    assert not processes_of(tmp_path)


def test_a_step_without_its_run_ends_itself():
    """The shell between them died with the run before the step asked the kernel."""
    code = "from tidemill.runtime import step\nwith step('x'):\n    print('alive')"
    env = {**os.environ, "TIDEMILL_RUN_PID": "999999999"}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL and ended.stdout == b""
    env["TIDEMILL_RUN_PID"] = str(os.getpid())
    alive = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert alive.stdout.startswith(b"alive\n")
