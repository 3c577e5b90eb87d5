"""Drawn rows and drawn functions by both engines. What fails is shown as drawn: to shrink it takes minutes of Beam."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.transform.equality.case import Case
from tests.transform.equality.compare import assert_same_artifact, assert_same_rows
from tests.transform.equality.data import give
from tests.transform.equality.drawn import PROGRAMS, Program, rows
from tests.transform.equality.engines import batch_rows, by_beam, by_local

_SETTINGS = {
    "deadline": None,
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
    "suppress_health_check": list(HealthCheck),
}


def same_by_both(drawn: tuple[pa.Table, list[int], int], program: Program) -> None:
    table, parts, group_rows = drawn
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = give(table, folder / "given", parts=parts, group_rows=group_rows)
        beam = by_beam(program, told, folder / "beam")
        for name, rows in (("parquet", None), ("batches", batch_rows(told))):
            local = by_local(program, told, folder / name, rows)
            assert_same_artifact(folder / "beam", folder / name)
            assert_same_rows(Case(name, program), table, beam, local)


@settings(max_examples=2, **_SETTINGS)
@given(rows(), PROGRAMS)
def test_a_few(drawn, program):
    same_by_both(drawn, program)


@pytest.mark.slow
@settings(max_examples=12, **_SETTINGS)
@given(rows(), PROGRAMS)
def test_many(drawn, program):
    same_by_both(drawn, program)
