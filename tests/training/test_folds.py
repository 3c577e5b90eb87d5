"""The assignment of rows to folds, and the examples of a fold's training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.errors import Code, TidemillError
from tidemill.steps.train import Fold
from tidemill.training.folds import HELD_OUT, assignments, write_fold


def write(path: Path, rows: int) -> tuple[Dataset, Dataset]:
    """Writes raw rows with a user, and transformed rows whose `x` is their index."""
    user = pa.array([None if i % 13 == 0 else f"u{i % 17}" for i in range(rows)], pa.string())
    for name, table in {
        "raw": pa.table({"user": user, "y": np.zeros(rows, np.int64)}),
        "data": pa.table({"x": np.arange(rows, dtype=np.float32)}),
    }.items():
        with DatasetWriter(path / name, table.schema, row_group_rows=64, shard_rows=200) as writer:
            writer.write("train", table)
            writer.write("valid", table.slice(0, 3))
    return Dataset(path / "raw"), Dataset(path / "data")


@pytest.mark.parametrize("column", [None, "user"])
@given(rows=st.integers(0, 700), of=st.integers(2, 7), seed=st.integers(0, 2**31))
def test_every_row_is_in_one_fold(tmp_path_factory, column, rows, of, seed):
    raw, _ = write(tmp_path_factory.mktemp("folds"), rows)
    folds = np.concatenate([*assignments(Fold(index=0, of=of, column=column, seed=seed), raw), np.empty(0, np.int64)])
    assert len(folds) == rows and ((folds >= 0) & (folds < of)).all()
    if column:
        users = raw.read("train")["user"].to_pylist()
        assert len(set(zip(users, folds.tolist(), strict=True))) == len(set(users))
    elif rows > 300:
        # For 300 rows in 7 folds, these bounds are more than five standard deviations from the mean.
        shares = np.bincount(folds, minlength=of) * of / rows
        assert (shares > 0.2).all() and (shares < 2).all()


def test_folds_depend_on_the_seed(tmp_path):
    raw, _ = write(tmp_path, 500)
    one, same, other = (next(assignments(Fold(index=0, of=5, column=None, seed=s), raw)) for s in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_leaves_out_only_the_fold(tmp_path):
    raw, data = write(tmp_path, 500)
    held_out = []
    for index in range(3):
        written = write_fold(Fold(index=index, of=3, column=None, seed=0), raw, data, tmp_path / str(index))
        train, out = (written.read(split)["x"].to_numpy() for split in ("train", HELD_OUT))
        assert np.array_equal(np.sort(np.concatenate([train, out])), np.arange(500))
        assert (np.diff(train) > 0).all()
        assert written.rows("valid") == 3
        held_out.append(out)
    assert np.array_equal(np.sort(np.concatenate(held_out)), np.arange(500))


def test_rejects_a_fold_without_rows(tmp_path):
    raw, data = write(tmp_path, 1)
    with pytest.raises(TidemillError) as error:
        for index in range(2):
            write_fold(Fold(index=index, of=2, column=None, seed=0), raw, data, tmp_path / str(index))
    assert error.value.code is Code.EMPTY_SPLIT
