"""The DuckDB store: files that stay readable, and buffers that are flushed when they hold too much."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.transform.analysis.count_store import CountStore


@pytest.mark.parametrize("has_links", [True, False])
def test_pinned_file_is_readable_after_it_is_removed(has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError("no links")

    if not has_links:
        monkeypatch.setattr(os, "link", fail)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1, 2]}), path)
    (tmp_path / "store").mkdir()
    with CountStore(tmp_path / "store", 1 << 28, 1) as store:
        source = store.pin_file(path)
        path.unlink()
        assert store.rows(f"SELECT x FROM {source} ORDER BY x") == [(1,), (2,)]


class CountedBuffer:
    """A buffer that counts how often it is flushed."""

    def __init__(self, held: int):
        self.held, self.flushes = held, 0

    def flush(self) -> None:
        self.held, self.flushes = 0, self.flushes + 1


def test_largest_buffers_are_flushed_until_an_eighth_of_the_memory_is_held(tmp_path: Path):
    small, large, other = (CountedBuffer(held << 20) for held in (10, 25, 99))
    with CountStore(tmp_path, 256 << 20, 1) as store:
        for buffer in (small, large, other):
            store.register(buffer)
        store.unregister(other)
        store.unregister(other)
        store.flush_buffers()
        store.flush_buffers()
    assert [buffer.flushes for buffer in (small, large, other)] == [0, 1, 0]


def test_no_extension_is_fetched_and_no_python_variable_is_read(tmp_path: Path):
    settings = ("autoinstall_known_extensions", "autoload_known_extensions", "python_enable_replacements")
    with CountStore(tmp_path, 1 << 28, 1) as store:
        values = [store.rows(f"SELECT current_setting('{name}')::VARCHAR") for name in settings]
    assert values == [[("false",)]] * 3
