"""The record of a task's attempts on a cluster: what is retried, and how often."""

from __future__ import annotations

import pytest

from tidemill.errors import Code, TidemillError
from tidemill.runtime import Preempted
from tidemill.training.attempts import POD, GivenUp, attempt

RUN = "tidemill-train-x7k2p-system-container-impl"


@pytest.fixture
def attempt_task(tmp_path, monkeypatch):
    """Returns a function that attempts a task in a new pod, and returns whether the task was run."""
    count = 0

    def run_attempt(error: BaseException | None, task: str = "task", run: str = RUN, retries: int = 2) -> bool:
        nonlocal count
        count += 1
        monkeypatch.setenv(POD, f"{run}-{count * 7919}")
        entered = False
        try:
            with attempt(str(tmp_path), task, retries):
                entered = True
                if error is not None:
                    raise error
        except (Preempted, TidemillError, GivenUp, OSError) as raised:
            if entered:
                assert raised is error
            else:
                raise
        return entered

    return run_attempt


def test_errors_have_a_budget(attempt_task):
    for _ in range(3):
        assert attempt_task(OSError("the network is down"))
    with pytest.raises(GivenUp, match="3 attempts have failed, the last with OSError: the network is down"):
        attempt_task(None)


def test_preemptions_do_not_use_up_the_budget(attempt_task):
    for _ in range(10):
        assert attempt_task(Preempted("SIGTERM"))
    assert attempt_task(OSError("once"))
    for _ in range(10):
        assert attempt_task(Preempted("SIGTERM"))
    assert attempt_task(None)


def test_does_not_retry_a_mistake_of_the_user(attempt_task):
    mistake = TidemillError(Code.LABEL_ONE_CLASS, "late in train", "1 in all 5 rows", "give both classes", {"rows": 5})
    assert attempt_task(mistake)
    with pytest.raises(TidemillError) as error:
        attempt_task(None)
    assert error.value.to_dict() == mistake.to_dict()


def test_each_task_of_each_run_has_its_own_record(attempt_task):
    assert attempt_task(OSError("x"), retries=0)
    assert attempt_task(OSError("x"), task="another", retries=0)
    assert attempt_task(OSError("x"), run="tidemill-train-9abcd-system-container-impl", retries=0)
    with pytest.raises(GivenUp):
        attempt_task(None, retries=0)


def test_success_removes_the_record(attempt_task, tmp_path):
    assert attempt_task(OSError("x"), retries=1)
    assert [path.name for path in tmp_path.rglob("*.json")] == ["attempts.json"]
    assert attempt_task(None, retries=1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_writes_nothing_outside_of_a_cluster(tmp_path, monkeypatch):
    monkeypatch.delenv(POD, raising=False)
    for _ in range(3):
        with pytest.raises(OSError, match="x"), attempt(str(tmp_path), "task", 0):
            raise OSError("x")
    assert not list(tmp_path.iterdir())
