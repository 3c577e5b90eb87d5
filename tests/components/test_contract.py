"""Every step returns a result or raises a `TidemillError` on empty, one-row, one-class and all-null data.

Each step runs on the artifacts of the steps before it. If one of those rejects the data, it runs on the artifacts of
healthy rows. All failures are reported together.
"""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pytest

from tests.shop import Workspace, shop_experiment, shop_rows
from tests.shop_steps import ORDER, ShopSteps
from tidemill.artifacts.examples import SPLITS, Dataset, DatasetWriter
from tidemill.errors import Code, TidemillError

pytestmark = pytest.mark.tensorflow

HEALTHY = shop_rows(600)


def _one_class(rows: pa.Table) -> pa.Table:
    return rows.set_column(4, "bought", pa.array(np.ones(rows.num_rows, dtype=np.int64)))


def _all_null(rows: pa.Table) -> pa.Table:
    nulls = {name: pa.nulls(rows.num_rows, rows.schema.field(name).type) for name in ("price", "site", "device")}
    for name, column in nulls.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


DATA = {
    "healthy": HEALTHY,
    "empty": HEALTHY.slice(0, 0),
    "one row": HEALTHY.slice(1, 1),
    "one class": _one_class(HEALTHY),
    "all null": _all_null(HEALTHY),
}


def _examples(at, rows: pa.Table) -> None:
    """Writes all rows to each split. Ingest never writes such examples, and later steps must not rely on it."""
    with DatasetWriter(at / "examples", HEALTHY.schema) as writer:
        for split in SPLITS:
            writer.write(split, rows)


def test_every_step_accepts_or_rejects_degenerate_data(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.write(shop_experiment(), HEALTHY)
    steps = ShopSteps(workspace)
    healthy = tmp_path / "healthy"
    failures, rejected = [], {}
    for data, rows in DATA.items():
        at = tmp_path / data.replace(" ", "_")
        at.mkdir(exist_ok=True)
        _examples(at, rows)
        pa.csv.write_csv(rows, tmp_path / "rows.csv")
        for step in ORDER:
            before = {path.name for path in at.iterdir()}
            try:
                getattr(steps, step)(at)
            except TidemillError as error:
                rejected[data, step] = error.code
                left = {path.name for path in at.iterdir()} - before
                if any(name.endswith(".partial") for name in left):
                    failures.append(f"{step} on {data} data leaves {sorted(left)}")
            except Exception as error:
                failures.append(f"{step} on {data} data: {type(error).__name__}: {str(error)[:200]}")
            for path in healthy.iterdir():
                if not (at / path.name).exists():
                    copy = shutil.copytree if path.is_dir() else shutil.copy
                    copy(path, at / path.name)
            Dataset(at / "examples")  # raises if the step changed its input
    assert not failures, "\n".join(failures)
    assert not [step for data, step in rejected if data == "healthy"], rejected
    assert rejected["empty", "ingest"] is Code.EMPTY_INPUT
    assert rejected["one class", "ingest"] is Code.LABEL_ONE_CLASS
    assert rejected["all null", "preprocess"] is Code.FEATURE_ALL_NULL
    assert rejected["one class", "train_gbdt"] is rejected["one class", "train_dcn_v2"] is Code.LABEL_ONE_CLASS
    assert ("empty", "predict") not in rejected  # a day without rows has predictions without rows
