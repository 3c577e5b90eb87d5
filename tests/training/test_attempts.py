"""The record that the attempts of one task keep on a cluster: what is tried again, and how often."""

from __future__ import annotations

import pytest

from tidemill.errors import Code, TidemillError
from tidemill.runtime import Preempted
from tidemill.training.attempts import POD, GivenUp, attempt

RUN = "tidemill-train-x7k2p-system-container-impl"


@pytest.fixture
def tries(tmp_path, monkeypatch):
    """Tries a task in a pod of its own, as Kubeflow names them; says whether it was let in."""
    count = 0

    def again(error: BaseException | None, task: str = "task", run: str = RUN, retries: int = 2) -> bool:
        nonlocal count
        count += 1
        monkeypatch.setenv(POD, f"{run}-{count * 7919}")
        entered = False
        try:
            with attempt(str(tmp_path), task, retries):
                entered = True
                if error is not None:
                    raise error
        except (Preempted, TidemillError, GivenUp, OSError) as seen:
            if entered:
                assert seen is error
            else:
                raise
        return entered

    return again


def test_errors_have_a_budget(tries):
    for _ in range(3):
        assert tries(OSError("the network is down"))
    with pytest.raises(GivenUp, match="3 attempts have failed, the last with OSError: the network is down"):
        tries(None)


def test_preemptions_do_not_use_it_up(tries):
    for _ in range(10):
        assert tries(Preempted("SIGTERM"))
    assert tries(OSError("once"))
    for _ in range(10):
        assert tries(Preempted("SIGTERM"))
    assert tries(None)


def test_a_mistake_is_not_tried_again(tries):
    mistake = TidemillError(Code.LABEL_ONE_CLASS, "late in train", "1 in all 5 rows", "give both classes", {"rows": 5})
    assert tries(mistake)
    with pytest.raises(TidemillError) as again:
        tries(None)
    assert again.value.to_dict() == mistake.to_dict()


def test_other_tasks_and_runs_have_their_own_record(tries):
    assert tries(OSError("x"), retries=0)
    assert tries(OSError("x"), task="another", retries=0)
    assert tries(OSError("x"), run="tidemill-train-9abcd-system-container-impl", retries=0)
    with pytest.raises(GivenUp):
        tries(None, retries=0)


def test_success_removes_the_record(tries, tmp_path):
    assert tries(OSError("x"), retries=1)
    assert [path.name for path in tmp_path.rglob("*.json")] == ["attempts.json"]
    assert tries(None, retries=1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_nothing_is_kept_outside_of_a_cluster(tmp_path, monkeypatch):
    monkeypatch.delenv(POD, raising=False)
    for _ in range(3):
        with pytest.raises(OSError, match="x"), attempt(str(tmp_path), "task", 0):
            raise OSError("x")
    assert not list(tmp_path.iterdir())
