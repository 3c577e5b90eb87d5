"""Checkpoints on disk and in an object store."""

from __future__ import annotations

import numpy as np

from tests.storage.conftest import bucket, emulator  # noqa: F401
from tidemill import storage
from tidemill.training.checkpoint import Checkpoints


def save(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(
        step, {"step": step, "loss": 0.1}, {"w/0": np.full((2, 3), step, np.float32), "rng": np.array([1], np.uint32)}
    )


def test_keeps_two_and_returns_the_newest(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), "abc", 60)
    assert checkpoints.newest() is None
    for step in (1, 9, 10):
        save(checkpoints, step)
    assert sorted(p.name for p in (tmp_path / "checkpoints" / "abc").iterdir()) == ["000000000009", "000000000010"]
    state, arrays = Checkpoints(str(tmp_path), "abc", 60).newest()
    assert state == {"step": 10, "loss": 0.1}
    np.testing.assert_array_equal(arrays["w/0"], np.full((2, 3), 10, np.float32))
    assert arrays["rng"].dtype == np.uint32
    assert Checkpoints(str(tmp_path), "other", 60).newest() is None


def test_skips_damaged_checkpoints(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), "abc", 60)
    save(checkpoints, 1)
    save(checkpoints, 2)
    newest = tmp_path / "checkpoints" / "abc" / "000000000002"
    data = bytearray((newest / "arrays.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "arrays.npz").write_bytes(data)
    assert checkpoints.newest()[0]["step"] == 1
    (tmp_path / "checkpoints" / "abc" / "000000000001" / "manifest.json").unlink()
    assert checkpoints.newest() is None


def test_is_due_by_time_or_steps_and_removes_all(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), "abc", 3600)
    assert not checkpoints.due(10**6)
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


def test_works_in_an_object_store(bucket):  # noqa: F811
    checkpoints = Checkpoints(f"{bucket}/root", "abc", 60)
    assert checkpoints.newest() is None
    for step in (1, 2, 3):
        save(checkpoints, step)
    assert storage.list_folders(checkpoints.uri) == ["000000000002", "000000000003"]
    storage.write_text(storage.join(checkpoints.uri, "000000000003", "state.json"), "{}")
    state, arrays = Checkpoints(f"{bucket}/root", "abc", 60).newest()
    assert state["step"] == 2
    np.testing.assert_array_equal(arrays["w/0"], np.full((2, 3), 2, np.float32))
    checkpoints.remove()
    assert not storage.exists(checkpoints.uri)
