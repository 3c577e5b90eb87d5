"""The analyzer cache of a root in a bucket and in a local folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill import storage
from tidemill.transform.analyzer_cache import AnalyzerCache, entry_key, open_analyzer_cache


def save(analyzer_cache: AnalyzerCache, file: str, operation: str, text: str) -> None:
    analyzer_cache.save(entry_key(file, "rows", "graph", operation), lambda folder: (folder / "x").write_text(text))


def load(analyzer_cache: AnalyzerCache, file: str, operation: str) -> str | None:
    texts: list[str] = []
    analyzer_cache.load(
        entry_key(file, "rows", "graph", operation), lambda folder: texts.append((folder / "x").read_text())
    )
    return texts[0] if texts else None


@pytest.fixture(params=["bucket", "folder"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a root in a bucket, and of a local one."""
    return request.getfixturevalue("bucket") + "/root" if request.param == "bucket" else str(tmp_path / "root")


def test_loads_the_entries_of_earlier_runs(root: str):
    with open_analyzer_cache(root, ["monday", "tuesday"]) as folder:
        assert load(AnalyzerCache(folder), "monday", "sum") is None
        save(AnalyzerCache(folder), "monday", "sum", "1")
        save(AnalyzerCache(folder), "tuesday", "sum", "2")
    with open_analyzer_cache(root, ["tuesday", "wednesday"]) as folder:
        assert load(AnalyzerCache(folder), "tuesday", "sum") == "2"
        save(AnalyzerCache(folder), "tuesday", "max", "3")
        save(AnalyzerCache(folder), "wednesday", "sum", "4")
    with open_analyzer_cache(root, ["monday", "tuesday", "wednesday"]) as folder:
        found = [load(AnalyzerCache(folder), f, o) for f in ("monday", "tuesday", "wednesday") for o in ("sum", "max")]
    assert found == ["1", None, "2", "3", "4", None]


def test_a_failed_run_keeps_its_entries(root: str):
    with pytest.raises(RuntimeError, match="mid-way"), open_analyzer_cache(root, ["monday"]) as folder:
        save(AnalyzerCache(folder), "monday", "sum", "1")
        raise RuntimeError("mid-way")
    with open_analyzer_cache(root, ["monday"]) as folder:
        assert load(AnalyzerCache(folder), "monday", "sum") == "1"


def test_does_not_fetch_or_change_archives_of_other_files(bucket: str, tmp_path: Path):
    root = f"{bucket}/root"
    with open_analyzer_cache(root, ["monday"]) as folder:
        save(AnalyzerCache(folder), "monday", "sum", "1")
    (archive,) = storage.list_files(f"{root}/analyzer_cache/**/*.tar")
    with open_analyzer_cache(root, ["tuesday"]) as folder:
        assert [p for p in folder.rglob("*") if p.is_file()] == []
    assert [file.version for file in storage.list_files(f"{root}/analyzer_cache/**/*.tar")] == [archive.version]
