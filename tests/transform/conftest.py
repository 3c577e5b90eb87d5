"""A preprocess run with every kind of feature, which many tests inspect."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest

from tests.sharing import once
from tests.transform.preprocess_runs import (
    FEATURES,
    TEST_ROWS,
    TRAIN_ROWS,
    VALID_ROWS,
    Run,
    example_table,
    open_run,
    run,
)
from tidemill.transform.preprocess import PreprocessSummary


@pytest.fixture(scope="session")
def splits() -> dict[str, pa.Table]:
    """Rows of three splits; valid has another distribution than train."""
    return {
        "train": example_table(TRAIN_ROWS, 1, 0.0),
        "valid": example_table(VALID_ROWS, 2, 4.0),
        "test": example_table(TEST_ROWS, 3, 0.0),
    }


@pytest.fixture(scope="session", params=["local", pytest.param("beam", marks=[pytest.mark.full, pytest.mark.beam])])
def all_kinds(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, splits: dict[str, pa.Table]
) -> Run:
    """Every kind of feature, preprocessed by the local engine; in `make test-all` also by Beam's in-process runner."""

    def build(folder: Path) -> None:
        summary = run(folder, splits, features=FEATURES, engine=request.param).summary
        (folder / "summary.json").write_text(json.dumps(asdict(summary)))

    folder = once(tmp_path_factory, f"transform-all-kinds-{request.param}", build)
    return open_run(folder, PreprocessSummary(**json.loads((folder / "summary.json").read_text())))
