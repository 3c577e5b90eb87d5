"""Each function by both engines: the same files, schema and rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transform.equality import numbers, steps, words
from tests.transform.equality.case import Case
from tests.transform.equality.compare import assert_same_artifact, assert_same_rows
from tests.transform.equality.data import Given, awkward_table, give
from tests.transform.equality.engines import batch_rows, by_beam, by_local, parquet_rows, transformed

CASES = [*numbers.CASES, *words.CASES]
OF_NOTHING = ("moments", "quantiles", "tukey", "counts_per_key", "vocabularies", "weighted", "informative", "phases")
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
@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES if c.name in OF_NOTHING])
def test_no_rows_at_all(case: Case, tmp_path: Path, given: Given):
    """What comes of nothing, applied to rows."""
    nothing = give(awkward_table(0), tmp_path / "nothing", parts=[0, 0])
    by_beam(case, nothing, tmp_path / "beam")
    by_local(case, nothing, tmp_path / "local")
    assert_same_artifact(tmp_path / "beam", tmp_path / "local")
    beam, local = (transformed(tmp_path / engine, parquet_rows(given)) for engine in ("beam", "local"))
    assert_same_rows(Case(case.name, case.function), given.table, beam, local)


@pytest.mark.slow
def test_the_step_on_flights(tmp_path: Path):
    experiment = steps.flights()
    assert list(steps.by_both(experiment, steps.read(experiment, tmp_path), tmp_path))[-1] == "the same"


@pytest.mark.slow
def test_the_step_on_rows_like_criteo(tmp_path: Path):
    experiment = steps.criteo(30_000, tmp_path)
    assert list(steps.by_both(experiment, steps.read(experiment, tmp_path), tmp_path))[-1] == "the same"
