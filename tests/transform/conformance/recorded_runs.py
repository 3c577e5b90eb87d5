"""Beam's outputs for the cases and for random programs, as files to record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings

from tests.transform.conformance import number_cases, word_cases
from tests.transform.conformance.engines import parquet_rows, run_beam, transform_all
from tests.transform.conformance.random_programs import PROGRAMS, Program, random_rows
from tests.transform.conformance.rows import RowFiles, awkward_table, write_rows
from tests.transform.recordings import Recording, files_below, write_table

CASES = [*number_cases.CASES, *word_cases.CASES]
CASES_WITHOUT_ROWS = [
    case
    for case in CASES
    if case.name
    in ("moments", "quantiles", "tukey", "counts_per_key", "vocabularies", "weighted", "informative", "phases")
]
RANDOM_PROGRAMS = 5
_DRAWS = 20
"""Number of draws, of which the last are recorded: the first ones are the simplest."""
_SAMPLE = 8
"""Every how many rows a transformed row is recorded. All rows are analyzed."""


def record_cases(folder: Path) -> dict[str, bytes]:
    """Returns Beam's artifact and a sample of the transformed rows of each case."""
    rows = write_rows(awkward_table(), folder / "rows")
    files = {}
    for case in CASES:
        files |= _outputs(case.name, folder / case.name, sample_rows(run_beam(case, rows, folder / case.name)))
    return files


def record_cases_without_rows(folder: Path) -> dict[str, bytes]:
    """Returns Beam's artifact of an analysis without rows, and how it transforms a sample of rows."""
    rows = write_rows(awkward_table(), folder / "rows")
    nothing = write_no_rows(folder / "nothing")
    files = {}
    for case in CASES_WITHOUT_ROWS:
        run_beam(case, nothing, folder / case.name)
        transformed = transform_all(folder / case.name, parquet_rows(rows))
        files |= _outputs(case.name, folder / case.name, sample_rows(transformed))
    return files


def record_random_programs(folder: Path) -> dict[str, bytes]:
    """Returns random programs and rows, and what Beam makes of them."""
    draws: list[tuple[tuple[pa.Table, list[int], int], Program]] = []

    @settings(
        max_examples=_DRAWS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(random_rows(), PROGRAMS)
    def draw(drawn: tuple[pa.Table, list[int], int], program: Program) -> None:
        draws.append((drawn, program))

    draw()
    return _run_programs(draws[-RANDOM_PROGRAMS:], folder)


def rerun_random_programs(folder: Path) -> dict[str, bytes]:
    """Does what `record_random_programs` does for the programs that are recorded."""
    recording, draws = Recording("random_programs"), []
    for number in range(RANDOM_PROGRAMS):
        layout = json.loads(recording.read(f"{number}/input.json"))
        drawn = recording.table(f"{number}/input.parquet"), layout["file_rows"], layout["row_group_rows"]
        draws.append((drawn, Program.from_json(layout["program"])))
    return _run_programs(draws, folder)


def _run_programs(draws: list[tuple[tuple[pa.Table, list[int], int], Program]], folder: Path) -> dict[str, bytes]:
    files = {}
    for number, ((table, file_rows, row_group_rows), program) in enumerate(draws):
        name, layout = str(number), {"file_rows": file_rows, "row_group_rows": row_group_rows}
        rows = write_rows(table, folder / name / "rows", **layout)
        transformed = run_beam(program, rows, folder / name / "beam")
        files |= _outputs(name, folder / name / "beam", transformed)
        files[f"{name}/input.json"] = json.dumps({"program": program.to_json(), **layout}).encode()
        files[f"{name}/input.parquet"] = write_table(table)
    return files


def read_random_program(recording: Recording, name: str, folder: Path) -> tuple[Program, RowFiles]:
    """Returns a recorded random program, and writes its rows to a folder."""
    layout = json.loads(recording.read(f"{name}/input.json"))
    program = Program.from_json(layout.pop("program"))
    return program, write_rows(recording.table(f"{name}/input.parquet"), folder, **layout)


def sample_rows(table: pa.Table) -> pa.Table:
    """Returns the rows that are recorded."""
    return table.take(pa.array(range(0, table.num_rows, _SAMPLE)))


def write_no_rows(folder: Path) -> RowFiles:
    """Writes two files without rows."""
    return write_rows(awkward_table(0), folder, file_rows=[0, 0])


def _outputs(name: str, artifact: Path, transformed: pa.Table) -> dict[str, bytes]:
    files = files_below(artifact, name, ("transform_fn/assets", "transformed_metadata"))
    return files | {f"{name}/rows.parquet": write_table(transformed)}


GROUPS: dict[str, Callable[[Path], dict[str, bytes]]] = {
    "cases": record_cases,
    "cases_without_rows": record_cases_without_rows,
    "random_programs": record_random_programs,
}
