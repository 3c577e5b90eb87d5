"""What the analysis keeps of each file, in a bucket: fetched for the files that are read, and never lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill import storage
from tidemill.transform.analyzer_cache import AnalyzerCache, entry_key, open_analyzer_cache


def keep(analyzer_cache: AnalyzerCache, file: str, operation: str, text: str) -> None:
    analyzer_cache.save(entry_key(file, "rows", "graph", operation), lambda folder: (folder / "x").write_text(text))


def find(analyzer_cache: AnalyzerCache, file: str, operation: str) -> str | None:
    found: list[str] = []
    analyzer_cache.load(
        entry_key(file, "rows", "graph", operation), lambda folder: found.append((folder / "x").read_text())
    )
    return found[0] if found else None


@pytest.fixture(params=["bucket", "folder"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A root in a bucket and one on this machine, which behave alike."""
    return request.getfixturevalue("bucket") + "/root" if request.param == "bucket" else str(tmp_path / "root")


def test_what_is_kept_comes_back(root: str):
    with open_analyzer_cache(root, ["monday", "tuesday"]) as folder:
        assert find(AnalyzerCache(folder), "monday", "sum") is None
        keep(AnalyzerCache(folder), "monday", "sum", "1")
        keep(AnalyzerCache(folder), "tuesday", "sum", "2")
    with open_analyzer_cache(root, ["tuesday", "wednesday"]) as folder:
        assert find(AnalyzerCache(folder), "tuesday", "sum") == "2"
        keep(AnalyzerCache(folder), "tuesday", "max", "3")
        keep(AnalyzerCache(folder), "wednesday", "sum", "4")
    with open_analyzer_cache(root, ["monday", "tuesday", "wednesday"]) as folder:
        found = [find(AnalyzerCache(folder), f, o) for f in ("monday", "tuesday", "wednesday") for o in ("sum", "max")]
    assert found == ["1", None, "2", "3", "4", None]


def test_a_run_that_fails_keeps_what_it_has(root: str):
    with pytest.raises(RuntimeError, match="mid-way"), open_analyzer_cache(root, ["monday"]) as folder:
        keep(AnalyzerCache(folder), "monday", "sum", "1")
        raise RuntimeError("mid-way")
    with open_analyzer_cache(root, ["monday"]) as folder:
        assert find(AnalyzerCache(folder), "monday", "sum") == "1"


def test_archives_of_other_files_are_left_alone(bucket: str, tmp_path: Path):
    root = f"{bucket}/root"
    with open_analyzer_cache(root, ["monday"]) as folder:
        keep(AnalyzerCache(folder), "monday", "sum", "1")
    (archive,) = storage.list_files(f"{root}/analyzer_cache/**/*.tar")
    with open_analyzer_cache(root, ["tuesday"]) as folder:
        assert [p for p in folder.rglob("*") if p.is_file()] == []
    assert [file.version for file in storage.list_files(f"{root}/analyzer_cache/**/*.tar")] == [archive.version]
