"""Random preprocessing_fns over random rows, with both engines. Failing examples are not shrunk: Beam is too slow."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.transform.conformance.case import Case
from tests.transform.conformance.compare import assert_same_artifact, assert_same_rows
from tests.transform.conformance.engines import batch_rows, parquet_rows, run_beam, run_local
from tests.transform.conformance.random_programs import PROGRAMS, Program, random_rows
from tests.transform.conformance.rows import write_rows

pytestmark = [pytest.mark.full, pytest.mark.beam]


@settings(
    max_examples=14,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(random_rows(), PROGRAMS)
def test_both_engines_run_random_programs_alike(drawn: tuple[pa.Table, list[int], int], program: Program):
    table, file_rows, row_group_rows = drawn
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        rows = write_rows(table, folder / "rows", file_rows=file_rows, row_group_rows=row_group_rows)
        beam = run_beam(program, rows, folder / "beam")
        for form, source in (("parquet", parquet_rows(rows)), ("batches", batch_rows(rows))):
            local = run_local(program, rows, folder / form, source)
            assert_same_artifact(folder / "beam", folder / form)
            assert_same_rows(Case(form, program), table, beam, local)
