"""The same bits for any number of threads, for units that end in any order, and with what is kept of files."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.transform.conformance.case import Case
from tests.transform.conformance.compare import assert_same_bits
from tests.transform.conformance.engines import by_local, parquet_rows
from tests.transform.conformance.rows import Given, awkward_table, give
from tests.transform.conformance.test_equality import CASES

FILES = 10
FAST = ("vocabularies", "phases")


def marked(cases: list[Case]) -> list:
    return [pytest.param(c, id=c.name, marks=[] if c.name in FAST else pytest.mark.slow) for c in cases]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """The awkward rows in ten files, one of them without rows."""
    parts = [170, 0, 210, 130, 190, 160, 200, 180, 140, 120]
    return give(awkward_table(sum(parts)), tmp_path_factory.mktemp("given"), parts=parts, group_rows=64)


@pytest.mark.parametrize("case", marked(CASES))
def test_threads_do_not_matter(case: Case, given: Given, tmp_path: Path):
    one = by_local(case, given, tmp_path / "1", threads=1)
    for threads in (2, 5):
        many = by_local(case, given, tmp_path / str(threads), threads=threads)
        assert_same_bits(tmp_path / "1", one, tmp_path / str(threads), many)


class _Late:
    """A unit whose batches come after a while."""

    def __init__(self, unit, moments: random.Random):
        self._unit, self._moments, self.rows = unit, moments, unit.rows

    def batches(self, *arguments) -> Iterator[pa.RecordBatch]:
        for batch in self._unit.batches(*arguments):
            time.sleep(self._moments.uniform(0, 0.01))
            yield batch


def test_the_order_in_which_units_end_does_not_matter(given: Given, tmp_path: Path):
    case = next(c for c in CASES if c.name == "moments")
    one = by_local(case, given, tmp_path / "one", threads=1)
    rows, moments = parquet_rows(given), random.Random()
    rows.files = tuple(replace(file, units=tuple(_Late(unit, moments) for unit in file.units)) for file in rows.files)
    late = by_local(case, given, tmp_path / "late", rows, threads=5)
    assert_same_bits(tmp_path / "one", one, tmp_path / "late", late)
    assert not [t for t in threading.enumerate() if t.name.startswith("tidemill-pass")]


def keys(version: int = 0) -> list[str]:
    return [f"{number}:{version if number == 3 else 0}" for number in range(FILES)]


@pytest.mark.parametrize("case", marked(CASES))
def test_nine_of_ten_files_are_kept(case: Case, given: Given, tmp_path: Path):
    whole = by_local(case, given, tmp_path / "whole", parquet_rows(given, keys=keys()))
    nine = replace(given, files=given.files[:-1])
    analyzer_cache = tmp_path / "analyzer_cache"
    by_local(case, nine, tmp_path / "nine", parquet_rows(nine, keys=keys()[:-1]), analyzer_cache=analyzer_cache)
    kept = by_local(case, given, tmp_path / "kept", parquet_rows(given, keys=keys()), analyzer_cache=analyzer_cache)
    assert_same_bits(tmp_path / "whole", whole, tmp_path / "kept", kept)
    again = by_local(case, given, tmp_path / "again", parquet_rows(given, keys=keys()), analyzer_cache=analyzer_cache)
    assert_same_bits(tmp_path / "whole", whole, tmp_path / "again", again)


ONE_PHASE = [case for case in CASES if case.name in ("reductions", "moments", "quantiles", "vocabularies", "weighted")]


@pytest.mark.parametrize("case", marked(ONE_PHASE))
def test_what_is_kept_is_not_read(case: Case, given: Given, tmp_path: Path):
    """Files are changed behind the back of their keys: nobody notices. With another key, one is read anew."""
    told = other_files(given, tmp_path)
    analyzer_cache = tmp_path / "analyzer_cache"
    first = by_local(case, given, tmp_path / "first", parquet_rows(given, keys=keys()), analyzer_cache=analyzer_cache)
    unseen = by_local(case, given, tmp_path / "unseen", parquet_rows(told, keys=keys()), analyzer_cache=analyzer_cache)
    # The rows themselves are transformed as they are now.
    assert_same_bits(tmp_path / "first", first, tmp_path / "unseen", unseen, is_row_wise=False)
    one = replace(given, files=[*given.files[:3], told.files[3], *given.files[4:]])
    expected = by_local(case, one, tmp_path / "expected", parquet_rows(one))
    seen = by_local(case, one, tmp_path / "seen", parquet_rows(one, keys=keys(1)), analyzer_cache=analyzer_cache)
    assert_same_bits(tmp_path / "expected", expected, tmp_path / "seen", seen)


def other_files(given: Given, folder: Path) -> Given:
    """Files of as many rows with other values."""
    files, seed = [], 100
    for path in given.files:
        seed += 1
        files.append(folder / path.name)
        table = awkward_table(max(1, pq.read_metadata(path).num_rows), seed)
        pq.write_table(table.slice(0, pq.read_metadata(path).num_rows), files[-1], row_group_size=64)
    return replace(given, files=files)


@pytest.mark.parametrize("case", marked([case for case in CASES if case.name in ("moments", "vocabularies", "phases")]))
def test_what_is_damaged_is_not_used(case: Case, given: Given, tmp_path: Path):
    analyzer_cache, moments = tmp_path / "analyzer_cache", random.Random(0)
    whole = by_local(case, given, tmp_path / "whole", parquet_rows(given, keys=keys()), analyzer_cache=analyzer_cache)
    damages = [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"[]"),
    ]
    files = [path for path in sorted(analyzer_cache.rglob("*")) if path.is_file() and path.stat().st_size]
    assert files
    for path in files:
        moments.choice(damages)(path)
    mended = by_local(case, given, tmp_path / "mended", parquet_rows(given, keys=keys()), analyzer_cache=analyzer_cache)
    assert_same_bits(tmp_path / "whole", whole, tmp_path / "mended", mended)
