"""The local engine against Beam: the same files, schema and rows for each case."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transform.conformance import step_comparison
from tests.transform.conformance.case import Case
from tests.transform.conformance.compare import assert_same_artifact, assert_same_rows
from tests.transform.conformance.engines import batch_rows, parquet_rows, run_local, transform_all
from tests.transform.conformance.recorded_runs import (
    CASES,
    CASES_WITHOUT_ROWS,
    RANDOM_PROGRAMS,
    read_random_program,
    sample_rows,
    write_no_rows,
)
from tests.transform.conformance.rows import RowFiles, awkward_table, write_rows
from tests.transform.recordings import Recording

pytestmark = pytest.mark.tensorflow
AS_BATCHES = ("scalers", "quantiles", "applied_vocabularies", "composite_tensors")
"""The cases whose record batches are compared in each test run, and not only in `make test-all`."""
COVERED = ("approximate", "bucketizers_per_key", "counts_per_key", "elementwise_reductions", "histograms", "tukey")
"""The cases whose analyzers `analysis.test_analyzers` compares with Beam's, also without rows."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> RowFiles:
    """The awkward rows."""
    return write_rows(awkward_table(), tmp_path_factory.mktemp("rows"))


def assert_like_beam(case: Case, rows: RowFiles, recording: Recording, folder: Path, source) -> None:
    """Analyzes and transforms rows with the local engine and compares the outputs with the recorded ones."""
    local = run_local(case, rows, folder / "local", source)
    beam = recording.extract(case.name, folder / "beam")
    assert_same_artifact(beam, folder / "local", bool(case.near or case.quantiles))
    assert_same_rows(case, rows.table, recording.table(f"{case.name}/rows.parquet"), sample_rows(local))


def parameters(cases: list[Case], full: tuple[str, ...]) -> list:
    """Returns the parameters of a test, of which some run only in `make test-all`."""
    return [pytest.param(c, id=c.name, marks=pytest.mark.full if c.name in full else []) for c in cases]


@pytest.mark.parametrize("case", parameters(CASES, COVERED))
def test_parquet_files_give_beams_outputs(case: Case, rows: RowFiles, tmp_path: Path):
    assert_like_beam(case, rows, Recording("cases"), tmp_path, parquet_rows(rows))


@pytest.mark.parametrize("case", parameters(CASES, tuple(c.name for c in CASES if c.name not in AS_BATCHES)))
def test_record_batches_give_beams_outputs(case: Case, rows: RowFiles, tmp_path: Path):
    assert_like_beam(case, rows, Recording("cases"), tmp_path, batch_rows(rows))


@pytest.mark.parametrize("case", parameters(CASES_WITHOUT_ROWS, (*COVERED, "moments", "quantiles")))
def test_an_analysis_without_rows_gives_beams_outputs(case: Case, rows: RowFiles, tmp_path: Path):
    """The result is applied to rows."""
    recording = Recording("cases_without_rows")
    run_local(case, write_no_rows(tmp_path / "nothing"), tmp_path / "local")
    assert_same_artifact(recording.extract(case.name, tmp_path / "beam"), tmp_path / "local")
    local = sample_rows(transform_all(tmp_path / "local", parquet_rows(rows)))
    beam = recording.table(f"{case.name}/rows.parquet")
    assert_same_rows(Case(case.name, case.function), rows.table, beam, local)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        pytest.param(form, str(number), marks=[] if number == tested else pytest.mark.full)
        for tested, form in ((0, "parquet"), (3, "batches"))
        for number in range(RANDOM_PROGRAMS)
    ],
)
def test_random_programs_give_beams_outputs(form: str, name: str, tmp_path: Path):
    recording = Recording("random_programs")
    program, rows = read_random_program(recording, name, tmp_path / "rows")
    source = parquet_rows(rows) if form == "parquet" else batch_rows(rows)
    local = run_local(program, rows, tmp_path / "local", source)
    assert_same_artifact(recording.extract(name, tmp_path / "beam"), tmp_path / "local")
    assert_same_rows(Case(name, program), rows.table, recording.table(f"{name}/rows.parquet"), local)


@pytest.mark.full
@pytest.mark.beam
def test_both_engines_preprocess_flights_alike(tmp_path: Path):
    step_comparison.assert_engines_agree(step_comparison.flights(), tmp_path)


@pytest.mark.full
@pytest.mark.beam
def test_both_engines_preprocess_rows_like_criteo_alike(tmp_path: Path):
    step_comparison.assert_engines_agree(step_comparison.criteo(30_000, tmp_path), tmp_path)
