"""Each function by both engines: the same files, schema and rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transform.equality import numbers, steps, words
from tests.transform.equality.case import Case
from tests.transform.equality.compare import assert_same_artifact, assert_same_rows
from tests.transform.equality.data import Given, awkward_table, give
from tests.transform.equality.engines import batch_rows, by_beam, by_local

CASES = [*numbers.CASES, *words.CASES]
FAST = ("scalers", "applied_vocabularies", "phases")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """The awkward rows."""
    return give(awkward_table(), tmp_path_factory.mktemp("given"))


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name, marks=[] if c.name in FAST else pytest.mark.slow) for c in CASES]
)
def test_local_equals_beam(case: Case, given: Given, tmp_path: Path):
    beam = by_beam(case, given, tmp_path / "beam")
    for name, rows in (("parquet", None), ("batches", batch_rows(given))):
        local = by_local(case, given, tmp_path / name, rows)
        assert_same_artifact(tmp_path / "beam", tmp_path / name, bool(case.near or case.quantiles))
        assert_same_rows(case, given.table, beam, local)


@pytest.mark.slow
def test_the_step_on_flights(tmp_path: Path):
    experiment = steps.flights()
    assert list(steps.by_both(experiment, steps.read(experiment, tmp_path), tmp_path))[-1] == "the same"


@pytest.mark.slow
def test_the_step_on_rows_like_criteo(tmp_path: Path):
    experiment = steps.criteo(30_000, tmp_path)
    assert list(steps.by_both(experiment, steps.read(experiment, tmp_path), tmp_path))[-1] == "the same"
