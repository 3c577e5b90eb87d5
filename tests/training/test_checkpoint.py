"""Checkpoints on disk and in an object store, and the thread that writes them."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.storage.conftest import bucket, emulator  # noqa: F401
from tidemill import storage
from tidemill.errors import Code, from_system_error
from tidemill.training import checkpoint_files
from tidemill.training.checkpoint import Checkpoints

STATE = {"loss": 0.1}


def arrays(step: int) -> dict[str, np.ndarray]:
    return {
        "w/0": np.full((2, 3), step, np.float32),
        "w/1": np.arange(24, dtype=np.int64).reshape(4, 6)[:, ::2],  # not contiguous
        "empty": np.empty((0, 3), np.float16),
        "sum": np.array(step / 3),
        "rng": np.array([1], np.uint32),
    }


def save(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(step, STATE | {"step": step}, lambda: arrays(step))
    checkpoints.wait()


def assert_newest(checkpoints: Checkpoints, step: int) -> None:
    newest = checkpoints.newest()
    assert newest is not None
    assert newest[0] == STATE | {"step": step}
    assert list(newest[1]) == list(arrays(step))
    for name, array in arrays(step).items():
        np.testing.assert_array_equal(newest[1][name], array, strict=True)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


class Gate:
    """Holds the writes of all checkpoints until `open` is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._opened, self.entered = threading.Event(), threading.Event()
        write = checkpoint_files.write

        def held(*args):
            self.entered.set()
            assert self._opened.wait(30)
            write(*args)

        monkeypatch.setattr(checkpoint_files, "write", held)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate(monkeypatch) -> Gate:
    return Gate(monkeypatch)


def test_keeps_two_and_returns_the_newest(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), "abc", 60)
    assert checkpoints.newest() is None
    for step in (1, 9, 10):
        save(checkpoints, step)
    assert names(tmp_path / "checkpoints" / "abc") == ["000000000009", "000000000010"]
    assert_newest(Checkpoints(str(tmp_path), "abc", 60), 10)
    assert Checkpoints(str(tmp_path), "other", 60).newest() is None


def test_skips_damaged_checkpoints(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), "abc", 60)
    save(checkpoints, 1)
    save(checkpoints, 5)
    older, newest = (tmp_path / "checkpoints" / "abc" / name for name in ("000000000001", "000000000005"))
    data = bytearray((newest / "arrays.bin").read_bytes())
    data[len(data) // 2] ^= 1
    for damaged in (data, data[:-1], data + b"x"):
        (newest / "arrays.bin").write_bytes(damaged)
        assert_newest(checkpoints, 1)
    (newest / "manifest.json").write_text("{")
    assert_newest(checkpoints, 1)
    # A resumed training has not yet come to the damaged checkpoint: its own are kept.
    for step in (2, 3):
        save(checkpoints, step)
        assert_newest(checkpoints, step)
    (older.with_name("000000000003") / "manifest.json").unlink()
    assert checkpoints.newest() is None


def test_is_due_by_time_or_steps_and_removes_all(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), "abc", 3600)
    assert not checkpoints.due(10**6)
    assert not checkpoints.due(0, ahead=3500) and checkpoints.due(0, ahead=3600)
    assert Checkpoints(str(tmp_path), "abc", 1e-9).due(0)
    by_steps = Checkpoints(str(tmp_path), "abc", 3600, every_steps=5)
    assert not by_steps.due(4) and by_steps.due(5)
    save(by_steps, 5)
    assert not by_steps.due(9) and by_steps.due(10)
    save(checkpoints, 1)
    checkpoints.remove()
    checkpoints.remove()
    assert checkpoints.newest() is None
    assert not (tmp_path / "checkpoints" / "abc").exists()


def test_training_continues_while_a_checkpoint_is_written(tmp_path, gate):
    checkpoints = Checkpoints(str(tmp_path), "abc", 1e-9)
    checkpoints.save(1, STATE | {"step": 1}, lambda: arrays(1))
    assert gate.entered.wait(30)
    assert not checkpoints.due(2), "a second write would queue"
    assert checkpoints.newest() is None
    gate.open()
    checkpoints.wait()
    assert checkpoints.due(2)
    assert_newest(checkpoints, 1)


def test_the_checkpoint_in_flight_is_finished_before_the_last_one_starts(tmp_path, gate):
    checkpoints = Checkpoints(str(tmp_path), "abc", 3600)
    checkpoints.save(1, STATE | {"step": 1}, lambda: arrays(1))
    threading.Timer(0.1, gate.open).start()
    seen = []

    def snapshot() -> dict[str, np.ndarray]:
        seen.extend(names(tmp_path / "checkpoints" / "abc"))
        return arrays(2)

    checkpoints.save(2, STATE | {"step": 2}, snapshot)
    assert seen == ["000000000001"]
    checkpoints.wait()
    assert_newest(checkpoints, 2)


def test_the_time_of_the_snapshot_blocks_training_and_that_of_the_write_does_not(tmp_path, gate):
    def snapshot() -> dict[str, np.ndarray]:
        time.sleep(0.1)
        return arrays(1)

    checkpoints = Checkpoints(str(tmp_path), "abc", 3600)
    assert checkpoints.newest() is None
    checkpoints.save(1, STATE, snapshot)
    time.sleep(0.3)
    gate.open()
    checkpoints.wait()
    assert 0.1 <= checkpoints.blocked_seconds < 0.3
    assert 0 < checkpoints.blocked_share() < 0.75
    assert checkpoints.write_seconds >= 0.2


def test_an_error_of_the_writer_reaches_training_and_names_the_file(tmp_path, monkeypatch):
    checkpoints = Checkpoints(str(tmp_path), "abc", 1e-9)
    save(checkpoints, 1)
    chunks = checkpoint_files._chunks

    def fill_disk(arrays):
        yield from chunks(arrays)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_files, "_chunks", fill_disk)
    checkpoints.save(2, STATE, lambda: arrays(2))
    with pytest.raises(OSError, match="No space left") as error:
        while not checkpoints.due(3):
            time.sleep(0.01)
    mistake = from_system_error(error.value)
    assert mistake is not None and mistake.code is Code.UNUSABLE_PATH
    assert "000000000002" in mistake.where and mistake.where.endswith("arrays.bin")
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(3, STATE, lambda: arrays(3))
    monkeypatch.undo()
    assert names(tmp_path / "checkpoints" / "abc") == ["000000000001"]
    assert_newest(Checkpoints(str(tmp_path), "abc", 60), 1)


def test_a_block_that_raises_finishes_the_write_and_one_that_ends_removes_all(tmp_path, gate):
    with pytest.raises(ZeroDivisionError), Checkpoints(str(tmp_path), "abc", 60) as checkpoints:
        checkpoints.save(1, STATE | {"step": 1}, lambda: arrays(1))
        threading.Timer(0.1, gate.open).start()
        raise ZeroDivisionError
    assert_newest(checkpoints, 1)
    with Checkpoints(str(tmp_path), "abc", 60) as checkpoints:
        save(checkpoints, 2)
    assert names(tmp_path / "checkpoints") == []


def test_a_write_that_is_not_needed_stops(tmp_path):
    abandon = threading.Event()
    abandon.set()
    with pytest.raises(checkpoint_files.Abandoned):
        checkpoint_files.write(str(tmp_path / "abc" / "1"), {}, arrays(1), abandon)
    assert names(tmp_path / "abc") == []


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), "abc", 60)
    save(checkpoints, 4)
    folder = tmp_path / "checkpoints" / "abc"
    (folder / "000000000007.0123.partial").mkdir()
    (folder / "000000000007.0123.partial" / "arrays.bin").write_bytes(b"x")
    assert_newest(Checkpoints(str(tmp_path), "abc", 60), 4)
    assert names(folder) == ["000000000004"]


def test_two_runs_of_one_training_do_not_harm_each_other(tmp_path, gate):
    first, second = (Checkpoints(str(tmp_path), "abc", 60) for _ in range(2))
    for checkpoints in (first, second):
        checkpoints.save(1, STATE | {"step": 1}, lambda: arrays(1))
    gate.open()
    for checkpoints in (first, second):
        checkpoints.wait()
    assert_newest(first, 1)
    for checkpoints, step, newest in ((first, 7, 7), (second, 2, 7), (first, 8, 8), (second, 3, 8)):
        save(checkpoints, step)
        assert_newest(second, newest)
    first.remove()
    save(second, 4)
    assert_newest(second, 4)


def test_a_folder_removed_during_the_write_is_no_error(tmp_path, monkeypatch):
    checkpoints = Checkpoints(str(tmp_path), "abc", 60)
    write_json = storage.write_json

    def remove_first(uri, value):
        checkpoint_files.remove(str(tmp_path / "checkpoints" / "abc"))
        monkeypatch.undo()
        (Path(uri).parent / "x").write_text("")  # raises FileNotFoundError as the folder is gone
        write_json(uri, value)

    monkeypatch.setattr(storage, "write_json", remove_first)
    save(checkpoints, 1)
    assert checkpoints.newest() is None
    save(checkpoints, 2)
    assert_newest(checkpoints, 2)


def test_works_in_an_object_store(bucket, monkeypatch):  # noqa: F811
    checkpoints = Checkpoints(f"{bucket}/root", "abc", 60)
    assert checkpoints.newest() is None
    for step in (1, 2, 3):
        save(checkpoints, step)
    assert storage.list_folders(checkpoints.uri) == ["000000000002", "000000000003"]
    assert_newest(checkpoints, 3)
    storage.write_text(storage.join(checkpoints.uri, "000000000003", "arrays.bin"), "other")
    assert_newest(checkpoints, 2)
    # Killed processes left two checkpoints without a manifest.
    for step in (5, 6):
        storage.write_text(storage.join(checkpoints.uri, f"{step:012d}", "arrays.bin"), "x")
    save(checkpoints, 4)
    assert_newest(checkpoints, 4)
    for step in (7, 8):
        save(checkpoints, step)
    assert storage.list_folders(checkpoints.uri) == ["000000000007", "000000000008"]
    checkpoints.remove()
    assert not storage.exists(checkpoints.uri)


def test_uploads_a_large_array_in_parts(bucket, monkeypatch):  # noqa: F811
    monkeypatch.setattr("tidemill.storage.files._UPLOAD_BYTES", 1 << 20)
    monkeypatch.setattr(checkpoint_files, "_CHUNK_BYTES", 300_000)
    draw = np.random.default_rng(0)
    large = {"a": draw.random(400_001), "b": draw.random(7)}
    uri = f"{bucket}/large"
    checkpoint_files.write(uri, {"x": 1}, dict(large), threading.Event())
    state, restored = checkpoint_files.read(uri)
    assert state == {"x": 1}
    for name, array in large.items():
        np.testing.assert_array_equal(restored[name], array, strict=True)

    class Stopping(threading.Event):
        """Is set when it is read for the ninth time, after the first part was uploaded."""

        calls = 0

        def is_set(self) -> bool:
            self.calls += 1
            return self.calls > 8

    with pytest.raises(checkpoint_files.Abandoned):
        checkpoint_files.write(f"{bucket}/stopped", {}, dict(large), Stopping())
    assert not storage.exists(f"{bucket}/stopped")
