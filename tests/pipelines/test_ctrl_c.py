"""Ctrl-C in a terminal: during the imports, in each kind of step, and while the output goes through a pipe."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from tests.shop import Workspace, shop_experiment, shop_rows, wait_for

pytestmark = [pytest.mark.pipeline, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]
_CTRL_C = b"\x03"
_MARK = "TIDEMILL_TEST_TERMINAL"
_SECONDS = 20
"""Time after which no process of the run may be left."""


class Terminal:
    """A terminal in which bash runs one command in the foreground, as in a window.

    bash itself survives Ctrl-C, to write the command's exit code to a file.
    """

    def __init__(self, command: str, code: Path):
        self.output = b""
        self._mark = f"{_MARK}={uuid.uuid4().hex}"
        self._code = code
        code.unlink(missing_ok=True)
        script = f"trap true INT; export {self._mark}; {command}; echo $? > {code}.new; mv {code}.new {code}"
        pid, self._fd = pty.fork()
        if pid == 0:
            os.execvp("bash", ["bash", "-c", script])
        self._pid = pid
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        try:
            while part := os.read(self._fd, 4096):
                self.output += part
        except OSError:  # the terminal has no process any more
            return

    @property
    def ended(self) -> bool:
        return self._code.exists()

    def press_ctrl_c(self) -> None:
        """Presses the keys, and waits until the command has ended and no process of it is left."""
        os.write(self._fd, _CTRL_C)
        wait_for(lambda: self.ended and not self.processes(), seconds=_SECONDS)

    def processes(self) -> list[str]:
        """Returns the ids of the living processes that the command has started, also those without a parent."""
        mark, found = self._mark.encode(), []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if int(pid) != self._pid and mark in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(pid)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def exit_code(self) -> int:
        os.waitpid(self._pid, 0)
        self._reader.join()
        os.close(self._fd)
        return int(self._code.read_text())


def _progress(workspace: Workspace, before: int, step: str, phase: str) -> bool:
    """Returns whether the newest run, after some earlier ones, has come to a phase of a step."""
    runs = sorted((workspace.root / "runs").glob("*/run.json"))
    if len(runs) <= before:
        return False
    if not phase:
        return any(each["name"].startswith(step) and each["state"] == "running" for each in workspace.last()["steps"])
    files = (runs[-1].parent / "steps").glob(f"{step}*.progress.jsonl")
    return any(f'"what": "{phase}' in file.read_text() for file in files)


STEPS = [
    ("plan", "", "dcn_v2"),
    ("ingest", "read rows", "dcn_v2"),
    ("validate", "", "dcn_v2"),
    ("preprocess", "analyze", "dcn_v2"),
    ("train-dcn_v2", "epoch 1", "dcn_v2"),
    ("train-gbdt", "round ", "gbdt"),
    ("ensemble", "read the models", "gbdt"),
    ("evaluate", "score valid", "gbdt"),
    ("publish", "", "gbdt"),
]
"""Each step, the phase in which Ctrl-C is pressed (none: as soon as the step runs), and the family of the models."""


def test_ctrl_c_ends_a_run_in_each_step_and_the_next_run_goes_on(tmp_path):
    workspace = Workspace(tmp_path)
    experiment = shop_experiment()
    models = {model["family"]: model for model in experiment["models"]}
    experiment["training"]["folds"] = 2
    workspace.write(experiment, shop_rows(20_000))
    command = [sys.executable, "-m", "tidemill.cli.main", *workspace.arguments()]

    def stop(step: str, phase: str, pipeline: str, pipe: str = "") -> None:
        before = len(list((workspace.root / "runs").glob("*/run.json")))
        terminal = Terminal(f"{shlex.join([*command, '--pipeline', pipeline])} {pipe}", tmp_path / "code")
        wait_for(lambda: _progress(workspace, before, step, phase) or terminal.ended)
        assert not terminal.ended, f"the run ended before {step}"
        terminal.press_ctrl_c()
        assert (terminal.exit_code(), step) == (130, step)
        assert b"Traceback" not in terminal.output
        assert b"the same command resumes" in terminal.output or pipe
        assert workspace.last()["status"] == "stopped"

    for step, phase, family in STEPS:
        workspace.write(experiment | {"models": [models[family]]})
        stop(step, phase, "cross_validate", "> >(cat)" if step == "ingest" else "")  # Ctrl-C ends `cat` too
    states = workspace.succeed("--pipeline", "cross_validate")
    assert {name for name, state in states.items() if state == "done"} == {"publish"}
    for step, phase in [("ingest", "read rows"), ("predict", "")]:
        stop(step, phase, "batch_predict")
    states = workspace.succeed("--pipeline", "batch_predict")
    assert (states["ingest"], states["predict"]) == ("cached", "done")


def test_the_console_entry_point_imports_next_to_nothing():
    """Until its handler is set, Ctrl-C prints Python's traceback."""
    code = "import sys; before = {*sys.modules}; import tidemill.cli.main; print(*sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=Path(__file__).parents[2], capture_output=True)
    imported = done.stdout.decode().split()
    assert [name for name in imported if name.startswith("tidemill")] == [
        "tidemill",
        "tidemill.cli",
        "tidemill.cli.main",
        "tidemill.version",
    ]
    assert not {"argparse", "typing", "pathlib", "contextlib", "threading", "inspect"} & set(imported)


@pytest.mark.parametrize("seconds", [0, 0.05, 0.2, 0.5, 1.0, 1.5])
def test_ctrl_c_during_the_imports_ends_without_a_traceback(tmp_path, seconds):
    workspace = Workspace(tmp_path)
    workspace.write(shop_experiment(), shop_rows(100))
    code = "import sys; from tidemill.cli.main import main; print('imported', flush=True); sys.exit(main())"
    terminal = Terminal(shlex.join([sys.executable, "-c", code, *workspace.arguments()]), tmp_path / "code")
    wait_for(lambda: b"imported" in terminal.output)
    time.sleep(seconds)
    terminal.press_ctrl_c()
    assert terminal.exit_code() == 130
    assert b"stopped" in terminal.output and b"Traceback" not in terminal.output, terminal.output.decode()


def test_ctrl_c_while_duckdb_reads_ends_without_a_traceback(tmp_path):
    """DuckDB raises an error of its own."""
    workspace = Workspace(tmp_path)
    workspace.write(shop_experiment(), shop_rows(1_000_000))
    command = [sys.executable, "-m", "tidemill.cli.main", "validate", "--data", str(workspace.file)]
    terminal = Terminal(shlex.join(["env", f"TMPDIR={tmp_path}", *command]), tmp_path / "code")
    wait_for(lambda: terminal.ended or list(tmp_path.glob("tidemill-inspect-*")))
    time.sleep(0.2)
    terminal.press_ctrl_c()
    assert terminal.exit_code() == 130
    assert b"stopped" in terminal.output and b"Traceback" not in terminal.output, terminal.output.decode()
    assert not list(tmp_path.glob("tidemill-inspect-*"))
