"""A preprocess run over all kinds of features by each engine, which many tests look at."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.transform.preprocess_runs import FEATURES, TEST_ROWS, TRAIN_ROWS, VALID_ROWS, Run, run, table


@pytest.fixture(scope="session")
def splits() -> dict[str, pa.Table]:
    """Rows of which valid has another distribution than train."""
    return {"train": table(TRAIN_ROWS, 1, 0.0), "valid": table(VALID_ROWS, 2, 4.0), "test": table(TEST_ROWS, 3, 0.0)}


@pytest.fixture(scope="session", params=["local", "beam"])
def all_kinds(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, splits: dict[str, pa.Table]
) -> Run:
    """All kinds of features, preprocessed by the local engine and by Beam's in-process runner."""
    return run(tmp_path_factory.mktemp(request.param), splits, features=FEATURES, engine=request.param)
