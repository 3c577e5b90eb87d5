"""What the analysis keeps of each file, in a bucket: fetched for the files that are read, and never lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill import storage
from tidemill.transform.analysis.spans import Spans, entry_key
from tidemill.transform.spans import open_spans


def keep(spans: Spans, file: str, operation: str, text: str) -> None:
    spans.keep(entry_key(file, "rows", "graph", operation), lambda folder: (folder / "x").write_text(text))


def find(spans: Spans, file: str, operation: str) -> str | None:
    found: list[str] = []
    spans.load(entry_key(file, "rows", "graph", operation), lambda folder: found.append((folder / "x").read_text()))
    return found[0] if found else None


@pytest.fixture(params=["bucket", "folder"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A root in a bucket and one on this machine, which behave alike."""
    return request.getfixturevalue("bucket") + "/root" if request.param == "bucket" else str(tmp_path / "root")


def test_what_is_kept_comes_back(root: str):
    with open_spans(root, ["monday", "tuesday"]) as folder:
        assert find(Spans(folder), "monday", "sum") is None
        keep(Spans(folder), "monday", "sum", "1")
        keep(Spans(folder), "tuesday", "sum", "2")
    with open_spans(root, ["tuesday", "wednesday"]) as folder:
        assert find(Spans(folder), "tuesday", "sum") == "2"
        keep(Spans(folder), "tuesday", "max", "3")
        keep(Spans(folder), "wednesday", "sum", "4")
    with open_spans(root, ["monday", "tuesday", "wednesday"]) as folder:
        found = [find(Spans(folder), f, o) for f in ("monday", "tuesday", "wednesday") for o in ("sum", "max")]
    assert found == ["1", None, "2", "3", "4", None]


def test_a_run_that_fails_keeps_what_it_has(root: str):
    with pytest.raises(RuntimeError, match="mid-way"), open_spans(root, ["monday"]) as folder:
        keep(Spans(folder), "monday", "sum", "1")
        raise RuntimeError("mid-way")
    with open_spans(root, ["monday"]) as folder:
        assert find(Spans(folder), "monday", "sum") == "1"


def test_archives_of_other_files_are_left_alone(bucket: str, tmp_path: Path):
    root = f"{bucket}/root"
    with open_spans(root, ["monday"]) as folder:
        keep(Spans(folder), "monday", "sum", "1")
    (archive,) = storage.list_files(f"{root}/spans/**/*.tar")
    with open_spans(root, ["tuesday"]) as folder:
        assert [p for p in folder.rglob("*") if p.is_file()] == []
    assert [file.version for file in storage.list_files(f"{root}/spans/**/*.tar")] == [archive.version]
