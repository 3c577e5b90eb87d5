"""The analyzer cache: entries are complete or ignored, and are used only for the same analysis of the same file."""

from __future__ import annotations

import json
import os
import time

import pyarrow as pa
import pytest
import tensorflow_transform as tft

from tests.transform.analysis.analyzers import rows
from tests.transform.analysis.constants import CONFIG, batch, local_constants
from tests.transform.batch_rows import BatchRows
from tidemill.transform.analyzer_cache import AnalyzerCache, entry_key

pytestmark = pytest.mark.tensorflow
KEY = "file/" + "ab" * 32


def write(folder):
    (folder / "state.npz").write_bytes(b"state")
    (folder / "more").write_bytes(b"")


def test_entry_is_read_as_it_was_written(tmp_path):
    analyzer_cache = AnalyzerCache(tmp_path / "new" / "analyzer_cache")
    read = []
    assert not analyzer_cache.load(KEY, read.append)
    analyzer_cache.save(KEY, write)
    assert AnalyzerCache(tmp_path / "new" / "analyzer_cache").load(
        KEY, lambda folder: read.append((folder / "state.npz").read_bytes())
    )
    assert read == [b"state"]
    assert [path.name for path in (tmp_path / "new" / "analyzer_cache").iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["state.npz", "more", "manifest.json"])
@pytest.mark.parametrize("damage", ["lost", "cut", "changed"])
def test_damaged_entry_is_ignored_and_replaced(tmp_path, name, damage):
    analyzer_cache = AnalyzerCache(tmp_path)
    analyzer_cache.save(KEY, write)
    path = tmp_path / KEY / name
    content = path.read_bytes()
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" and content else b"?" + content[1:])
    assert not analyzer_cache.load(KEY, lambda folder: pytest.fail("was read"))
    analyzer_cache.save(KEY, write)
    assert path.read_bytes() == content and analyzer_cache.load(KEY, lambda folder: None)


def test_other_files_are_ignored(tmp_path):
    (tmp_path / KEY).mkdir(parents=True)
    (tmp_path / KEY / "state.npz").write_bytes(b"?")
    (tmp_path / "README").write_text("mine")
    analyzer_cache = AnalyzerCache(tmp_path)
    assert not analyzer_cache.load(KEY, lambda folder: pytest.fail("was read"))
    analyzer_cache.save(KEY, write)
    assert analyzer_cache.load(KEY, lambda folder: None) and (tmp_path / "README").read_text() == "mine"


def test_failed_write_leaves_nothing(tmp_path):
    def fail(folder):
        write(folder)
        raise RuntimeError("full")

    analyzer_cache = AnalyzerCache(tmp_path)
    with pytest.raises(RuntimeError):
        analyzer_cache.save(KEY, fail)
    assert list(tmp_path.iterdir()) == []


def test_entry_may_be_written_by_another_process_first(tmp_path):
    analyzer_cache = AnalyzerCache(tmp_path)

    def slow(folder):
        write(folder)
        AnalyzerCache(tmp_path).save(KEY, write)

    analyzer_cache.save(KEY, slow)
    assert analyzer_cache.load(KEY, lambda folder: None)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_of_a_killed_process_are_removed_after_a_day(tmp_path):
    for name, age in (("tmp-old", 25), ("tmp-new", 1)):
        write_to = tmp_path / name
        write_to.mkdir()
        write(write_to)
        os.utime(write_to, (time.time() - age * 3600,) * 2)
    AnalyzerCache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tmp-new"]


def test_key_differs_in_everything_that_an_entry_depends_on():
    first = ("file", "rows", "graph", ["operation", {"epsilon": 0.1}])
    keys = {entry_key(*first)}
    for position, other in enumerate(["f", "r", "g", ["operation", {"epsilon": 0.2}]]):
        keys.add(entry_key(*first[:position], other, *first[position + 1 :]))
    assert len(keys) == 5 and entry_key(*first) in keys
    assert all(json.dumps(key) for key in keys)


class GuardedRows(BatchRows):
    """Rows that must not be read if they are in `unreadable`."""

    unreadable: frozenset[str] = frozenset()

    def feed(self, batch: pa.RecordBatch, names):
        assert not {value[0] for value in batch["row"].to_pylist()} & self.unreadable
        return super().feed(batch, names)


def scaled(inputs):
    """Analyzers in two phases: the second depends on the results of the first for all files."""
    z = tft.scale_to_z_score(inputs["x"])
    return {"sum": tft.sum(z * z), "max": tft.max(inputs["sparse"])}


def mean(inputs):
    return {"mean": tft.mean(inputs["x"])}


@pytest.fixture
def files():
    return [[batch(rows(40)[start : start + 10])] for start in range(0, 40, 10)]


def forbid(monkeypatch, rows_):
    monkeypatch.setattr(GuardedRows, "unreadable", frozenset(rows_))
    monkeypatch.setattr("tests.transform.analysis.constants.BatchRows", GuardedRows)


def test_cached_files_are_not_read(files, tmp_path, monkeypatch):
    keys = ["a", "b", "c", "d"]
    first = local_constants(mean, files[:3], analyzer_cache=tmp_path, keys=keys[:3])
    want = local_constants(mean, files)
    # `constants` transforms row 0 afterwards.
    forbid(monkeypatch, range(1, 30))
    assert local_constants(mean, files, analyzer_cache=tmp_path, keys=keys) == want != first
    # In another order the files have the same content and other indices.
    swapped = [files[k] for k in (3, 1, 0, 2)]
    assert local_constants(mean, swapped, analyzer_cache=tmp_path, keys=[keys[k] for k in (3, 1, 0, 2)])[
        "mean"
    ] == pytest.approx(want["mean"])


def test_phase_that_depends_on_other_files_reads_all_files_again(files, tmp_path, monkeypatch):
    keys = ["a", "b", "c", "d"]
    local_constants(scaled, files[:3], analyzer_cache=tmp_path, keys=keys[:3])
    want = local_constants(scaled, files)
    assert local_constants(scaled, files, analyzer_cache=tmp_path, keys=keys) == want
    forbid(monkeypatch, range(1, 40))
    assert local_constants(scaled, files, analyzer_cache=tmp_path, keys=keys) == want
    with pytest.raises(AssertionError):
        local_constants(scaled, files[:2], analyzer_cache=tmp_path, keys=keys[:2])


def test_files_without_a_key_are_not_cached(files, tmp_path, monkeypatch):
    local_constants(mean, files, analyzer_cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
    forbid(monkeypatch, range(1, 40))
    with pytest.raises(AssertionError):
        local_constants(mean, files, analyzer_cache=tmp_path)


def test_entries_for_another_batch_size_are_not_used(files, tmp_path, monkeypatch):
    keys = ["a", "b", "c", "d"]
    local_constants(mean, files, analyzer_cache=tmp_path, keys=keys)
    forbid(monkeypatch, range(1, 40))
    with pytest.raises(AssertionError):
        local_constants(mean, files, analyzer_cache=tmp_path, keys=keys, batch_rows=3)
    assert CONFIG.tensor_representations
