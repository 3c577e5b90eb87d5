"""Ctrl-C in a terminal, during each kind of step and while the output goes through a pipe."""

from __future__ import annotations

import os
import pty
import shlex
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tests.shop import Workspace, processes_with, shop_experiment, shop_rows, wait_for

pytestmark = [pytest.mark.pipeline, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]
_CTRL_C = b"\x03"


class Terminal:
    """A terminal in which bash runs one command in the foreground, as in a window.

    bash itself survives Ctrl-C, to write the command's exit code to a file.
    """

    def __init__(self, command: str, code: Path):
        self._code = code
        code.unlink(missing_ok=True)
        pid, self._fd = pty.fork()
        if pid == 0:
            os.execvp("bash", ["bash", "-c", f"trap true INT; {command}; echo $? > {code}.new; mv {code}.new {code}"])
        self._pid = pid
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        try:
            while os.read(self._fd, 4096):
                pass
        except OSError:  # the terminal has no process any more
            return

    @property
    def ended(self) -> bool:
        return self._code.exists()

    def press_ctrl_c(self) -> None:
        os.write(self._fd, _CTRL_C)

    def exit_code(self) -> int:
        os.waitpid(self._pid, 0)
        os.close(self._fd)
        return int(self._code.read_text())


@pytest.fixture(scope="module")
def long_rows() -> pa.Table:
    return shop_rows(20_000)


def test_ctrl_c_ends_a_run_in_each_step_and_the_next_run_goes_on(tmp_path, long_rows):
    workspace = Workspace(tmp_path)
    experiment = shop_experiment()
    experiment["models"] = experiment["models"][:1]
    workspace.write(experiment, long_rows)
    run = shlex.join([sys.executable, "-m", "tidemill.cli.main", *workspace.arguments()[:-1]])
    for step, command in [
        ("plan", run),
        ("ingest", f"{run} > >(cat)"),  # Ctrl-C ends `cat` too
        ("preprocess", run),
        ("train", run),
    ]:
        before = len(list((workspace.root / "runs").glob("*/run.json")))
        terminal = Terminal(command, tmp_path / "code")
        wait_for(lambda n=before, s=step, t=terminal: _runs(workspace, n, s) or t.ended)
        assert not terminal.ended, f"the run ended before {step}"
        terminal.press_ctrl_c()
        pressed = time.monotonic()
        wait_for(lambda t=terminal: t.ended and not processes_with(str(workspace.root)), seconds=20)
        assert (terminal.exit_code(), step) == (130, step)
        assert time.monotonic() - pressed < 20
        assert workspace.last()["status"] == "stopped"
    states = workspace.succeed()
    assert [states[name] for name in ("ingest", "validate", "preprocess")] == ["cached"] * 3


def _runs(workspace: Workspace, before: int, step: str) -> bool:
    """Returns whether the newest run, after some earlier ones, runs a step."""
    if len(list((workspace.root / "runs").glob("*/run.json"))) <= before:
        return False
    return any(each["name"].startswith(step) and each["state"] == "running" for each in workspace.last()["steps"])
