"""Error codes, and how an error is reported to people and to programs."""

import errno
import json
import os
import re
import subprocess
import sys

import pytest

from tidemill.errors import EXIT_CODE, Code, TidemillError, from_system_error
from tidemill.failure_record import GivenUp
from tidemill.runtime import Progress


def test_codes_are_unique_and_have_a_summary():
    words = [code.code for code in Code]
    assert len(set(words)) == len(words)
    for code in Code:
        assert code.code == code.name.lower().replace("_", "-")
        assert code.summary.endswith(".") and len(code.summary) < 120


def test_converts_an_error_to_a_sentence_and_to_json():
    error = TidemillError(
        Code.MISSING_COLUMN, "label", "'late', not among a, b", "name a column of the query", {"n": 2}
    )
    assert str(error) == "label: got 'late', not among a, b; name a column of the query."
    assert json.loads(json.dumps(error.to_dict())) == {
        "code": "missing-column",
        "message": str(error),
        "details": {"n": 2},
    }


@pytest.mark.process
@pytest.mark.parametrize("with_file", [True, False])
def test_step_exits_with_2_and_reports_its_error(tmp_path, with_file):
    code = (
        "from tidemill.errors import Code, TidemillError\nfrom tidemill.runtime import step\n"
        "with step('x'):\n    raise TidemillError(Code.DRIFT, 'a\\udce9', 'b', 'c', {'d': 1})"
    )
    env = {**os.environ, "TIDEMILL_ERROR_FILE": str(tmp_path / "error.json")} if with_file else {**os.environ}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_CODE
    assert ended.stderr == "error [drift] a\\udce9: got b; c.\n"
    if with_file:
        error = json.loads((tmp_path / "error.json").read_text())
        assert error == {"step": "x", "code": "drift", "message": "a\udce9: got b; c.", "details": {"d": 1}}


@pytest.mark.process
def test_step_exits_with_2_for_file_system_errors_that_a_user_can_fix(tmp_path):
    for raised, fixable in (("ENOSPC", True), ("EINTR", False)):
        code = (
            "import errno\nfrom tidemill.runtime import step\n"
            f"with step('x'):\n    raise OSError(errno.{raised}, 'as Python says it', '/data/part')"
        )
        env = {**os.environ, "TIDEMILL_ERROR_FILE": str(tmp_path / raised)}
        ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        assert ended.stderr.startswith("Traceback")
        assert ended.returncode == (EXIT_CODE if fixable else 1)
        assert (tmp_path / raised).exists() == fixable
    report = json.loads((tmp_path / "ENOSPC").read_text())
    want = "free space where outputs and temporary files (TMPDIR) are written"
    assert (report["code"], report["message"]) == ("unusable-path", f"/data/part: got no space left on device; {want}.")


def test_converts_file_system_errors_with_their_path():
    renamed = OSError(errno.ENOTDIR, "Not a directory", "a.partial", None, "b/a")
    assert str(from_system_error(renamed)) == "b/a: got not a directory; choose a path that is not below a file."
    wrapped = RuntimeError("OSError: [Errno 28]\n  No space left on device [while running Write]")
    converted = from_system_error(wrapped)
    assert converted.where == "a file that is read or written"
    assert converted.got == f"no space left on device ({' '.join(str(wrapped).split())})"
    assert from_system_error(GivenUp(str(wrapped))) is None
    assert from_system_error(ValueError("no")) is None
    assert from_system_error(FileNotFoundError(errno.ENOENT, "x", "y")) is None


@pytest.mark.process
def test_step_exits_with_2_if_a_full_disk_refuses_the_error_file(tmp_path):
    code = (
        "import errno\nfrom tidemill.runtime import step\n"
        "with step('x'):\n    raise OSError(errno.ENOSPC, 'full', 'part')"
    )
    (tmp_path / "file").touch()
    env = {**os.environ, "TIDEMILL_ERROR_FILE": str(tmp_path / "file" / "error.json")}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_CODE
    assert ended.stderr.splitlines()[-1].startswith("error [unusable-path] part: got no space left on device")


@pytest.mark.process
def test_writes_progress_to_the_file_or_to_the_log(tmp_path):
    code = (
        "from tidemill.runtime import step\n"
        "with step('x') as p:\n    p.phase('read')\n    [p.rows(i, 1000, 'read') for i in range(1001)]"
    )
    env = {**os.environ, "TIDEMILL_PROGRESS_FILE": str(tmp_path / "p.jsonl")}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    events = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(events) < 20 and events[0]["what"] == "read"
    assert events[-1]["rows"] == events[-1]["total"] == 1000 and events[-1]["step"] == "x"
    env.pop("TIDEMILL_PROGRESS_FILE")
    out = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout
    assert re.fullmatch(r" +\d\.\d s  read\n +\d\.\d s  done: 1,000 rows, [\d,]+ rows/s\n", out)


def test_the_log_has_a_line_every_ten_seconds_and_metrics(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TIDEMILL_PROGRESS_FILE", str(tmp_path / "p.jsonl"))
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress("train")
    for epoch in range(3):
        for done in (50, 100):
            now[0] += 3
            progress.rows(done, 100, f"epoch {epoch + 1}/3", earlier=100 * epoch)
        progress.metrics({"log_loss": 0.5 - epoch / 100}, {"log_loss": 0.6, "auc": 0.7}, f"epoch {epoch + 1}/3")
    progress.metrics({"log_loss": 0.49}, {}, "keeps epoch 2 of 3", final=True)
    progress.rows(9, 9, "slices", unit="slices")
    progress.end()
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "12.0 s  epoch 2/3: log loss 0.4900 train, 0.6000 valid; AUC 0.7000 valid, 17 rows/s",
        "18.0 s  keeps epoch 2 of 3: log loss 0.4900 train, 17 rows/s",
        "18.0 s  done: 300 rows, 17 rows/s",
    ]
    events = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [event.get("step_rows") for event in events if event.get("what") == "epoch 3/3"] == [250, 300, None]
    assert events[-1] == {"step": "train", "seconds": 18.0, "rows": 9, "total": 9, "what": "slices"}
