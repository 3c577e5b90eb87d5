"""The record of a task's failures below the root: what is tried again, and how often."""

from __future__ import annotations

import json

import pytest

from tidemill import failure_record
from tidemill.errors import EXIT_CODE, Code, Preempted, TidemillError
from tidemill.failure_record import FailureRecord, GivenUp
from tidemill.runtime import PREEMPTED_EXIT_CODE, step

MISTAKE = TidemillError(Code.LABEL_ONE_CLASS, "late in train", "1 in all 5 rows", "give both classes", {"rows": 5})


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(failure_record, "PAUSE_S", 0.0)


class Task:
    """A task whose attempts fail with the given errors, one after the other, and then succeed."""

    def __init__(self, root, retries=2, output="/runs/train/model"):
        self.root, self.retries, self.output, self.calls = str(root), retries, output, 0

    def pod(self, *errors, reports=None):
        """Runs the step once, as one pod does. Returns the exit code, 0 for success."""
        errors = list(errors)

        def work():
            self.calls += 1
            if errors:
                raise errors.pop(0)

        try:
            with step("train", root=self.root, output=self.output, reports=reports) as progress:
                progress.failures.repeat(self.retries, work)
        except SystemExit as end:
            return end.code
        return 0

    def record(self):
        return json.loads(next(iter(self.folder().glob("failure.json"))).read_text())["attempts"]

    def folder(self):
        from pathlib import Path

        (folder,) = Path(self.root, "failures").iterdir()
        return folder


def test_an_error_is_repeated_in_the_process(tmp_path, capsys):
    task = Task(tmp_path)
    assert task.pod(ValueError("the network is down"), ValueError("again")) == 0
    assert task.calls == 3
    assert "attempt 1 of 3 failed with ValueError('the network is down')" in capsys.readouterr().err
    assert not list((tmp_path / "failures").iterdir())  # A success removes the record.


def test_errors_have_one_budget_in_all_pods(tmp_path, capsys):
    task = Task(tmp_path)
    assert task.pod(*[ValueError(str(number)) for number in range(9)]) == 1
    assert task.calls == 3
    assert capsys.readouterr().err.splitlines()[-1] == f"recorded in {task.folder()}"
    assert [attempt["message"] for attempt in task.record()] == ["ValueError: 0", "ValueError: 1", "ValueError: 2"]
    with pytest.raises(GivenUp, match="3 attempts have failed, the last with ValueError: 2"):
        task.pod()
    assert task.calls == 3


def test_lost_pods_and_preemptions_cost_nothing(tmp_path):
    task = Task(tmp_path, retries=1)
    for _ in range(5):
        assert task.pod(Preempted("SIGTERM")) == PREEMPTED_EXIT_CODE
        with pytest.raises(KeyboardInterrupt):  # A killed process leaves no record either.
            task.pod(KeyboardInterrupt())
    assert task.pod(ValueError("once")) == 0


def test_a_mistake_of_the_user_is_not_tried_again(tmp_path, capsys):
    task = Task(tmp_path)
    assert task.pod(MISTAKE) == EXIT_CODE
    assert task.calls == 1
    first = capsys.readouterr().err.splitlines()
    assert first == [
        f"error [label-one-class] {MISTAKE}",
        f"recorded in {task.folder()}; remove it before you retry this run",
    ]
    (attempt,) = task.record()
    assert (attempt["attempt"], attempt["code"], attempt["details"]) == (1, "label-one-class", {"rows": 5})
    assert task.pod() == EXIT_CODE  # A pod that is started again.
    assert task.calls == 1
    assert capsys.readouterr().err.splitlines() == first
    assert len(task.record()) == 1


def test_a_local_run_is_tried_again_without_removing_the_record(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TIDEMILL_ERROR_FILE", str(tmp_path / "error.json"))
    task = Task(tmp_path)
    assert task.pod(MISTAKE) == EXIT_CODE
    assert capsys.readouterr().err.splitlines()[-1] == f"recorded in {task.folder()}"
    assert Task(tmp_path, output="/runs/of the next run/train/model").pod() == 0


def test_a_full_disk_is_a_mistake_that_another_pod_may_not_meet(tmp_path, capsys):
    task = Task(tmp_path)
    assert task.pod(OSError(28, "No space left on device", "/tmp/x")) == EXIT_CODE
    assert capsys.readouterr().err.splitlines()[-1] == f"recorded in {task.folder()}"
    assert task.calls == 1
    assert task.pod() == 0


def test_each_task_has_its_own_record(tmp_path):
    assert Task(tmp_path).pod(MISTAKE) == EXIT_CODE
    assert Task(tmp_path, output="/runs/train/other").pod() == 0


def test_reports_are_kept_with_the_record(tmp_path):
    (tmp_path / "report").write_text("<p>drift</p>")
    (tmp_path / "anomalies").mkdir()
    (tmp_path / "anomalies" / "anomalies.json").write_text("[]")
    reports = {"report.html": tmp_path / "report", "anomalies": tmp_path / "anomalies", "late.html": tmp_path / "no"}
    task = Task(tmp_path / "root")
    assert task.pod(MISTAKE, reports={name: str(path) for name, path in reports.items()}) == EXIT_CODE
    names = {str(path.relative_to(task.folder())) for path in task.folder().rglob("*") if path.is_file()}
    assert names == {"failure.json", "report.html", "anomalies/anomalies.json"}
    assert (task.folder() / "report.html").read_text() == "<p>drift</p>"


def test_a_root_that_cannot_be_written_does_not_hide_the_error(tmp_path, capsys):
    (tmp_path / "root").write_text("a file")
    assert Task(tmp_path / "root").pod(MISTAKE) == EXIT_CODE
    error = capsys.readouterr().err
    assert f"error [label-one-class] {MISTAKE}" in error and "could not be recorded" in error


@pytest.mark.parametrize("output", ["gs://b/run/model", "minio://b/run/model", "s3://b/run/model"])
def test_a_local_root_is_refused_on_a_cluster(tmp_path, capsys, output):
    assert Task(tmp_path, output=output).pod() == EXIT_CODE
    assert capsys.readouterr().err == (
        f"error [invalid-value] root: got {str(tmp_path)!r}; give a folder in a bucket, gs://…; on a cluster each step "
        "has a disk of its own.\n"
    )
    assert not [*tmp_path.iterdir()]


def test_record_is_named_after_the_step_and_the_task(tmp_path):
    record = FailureRecord(str(tmp_path), "validate", "gs://a")
    assert record.uri.startswith(f"{tmp_path}/failures/validate-")
    assert record.uri != FailureRecord(str(tmp_path), "validate", "gs://b").uri
