"""Which rows are in which fold."""

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
    """Raw rows with a user, and transformed ones whose `x` is their place."""
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
    found = np.concatenate([*assignments(Fold(index=0, of=of, column=column, seed=seed), raw), np.empty(0, np.int64)])
    assert len(found) == rows and ((found >= 0) & (found < of)).all()
    if column:
        users = raw.read("train")["user"].to_pylist()
        assert len(set(zip(users, found.tolist(), strict=True))) == len(set(users))
    elif rows > 300:
        # 300 rows in 7 folds: a share outside of these bounds is more than five standard deviations away.
        shares = np.bincount(found, minlength=of) * of / rows
        assert (shares > 0.2).all() and (shares < 2).all()


def test_the_folds_are_those_of_the_seed(tmp_path):
    raw, _ = write(tmp_path, 500)
    one, same, other = (next(assignments(Fold(index=0, of=5, column=None, seed=s), raw)) for s in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_a_fold_is_left_out_and_nothing_else(tmp_path):
    raw, data = write(tmp_path, 500)
    held_out = []
    for index in range(3):
        found = write_fold(Fold(index=index, of=3, column=None, seed=0), raw, data, tmp_path / str(index))
        train, out = (found.read(split)["x"].to_numpy() for split in ("train", HELD_OUT))
        assert np.array_equal(np.sort(np.concatenate([train, out])), np.arange(500))
        assert (np.diff(train) > 0).all()
        assert found.rows("valid") == 3
        held_out.append(out)
    assert np.array_equal(np.sort(np.concatenate(held_out)), np.arange(500))


def test_a_fold_without_rows(tmp_path):
    raw, data = write(tmp_path, 1)
    with pytest.raises(TidemillError) as error:
        for index in range(2):
            write_fold(Fold(index=index, of=2, column=None, seed=0), raw, data, tmp_path / str(index))
    assert error.value.code is Code.EMPTY_SPLIT
