"""Slices: the rows, names and order of each."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.errors import Code, TidemillError
from tidemill.evaluation.slices import MISSING, OTHER, slice_rows


def dataset(folder, **columns) -> Dataset:
    table = pa.table(columns)
    with DatasetWriter(folder, table.schema, ("test",), row_group_rows=7) as writer:
        writer.write("test", table)
    return Dataset(folder)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None, ""]), st.sampled_from([1, 2, None])), max_size=40),
    st.integers(1, 6),
)
def test_slices_equal_those_of_a_plain_loop(tmp_path_factory, rows, most):
    folder = tmp_path_factory.mktemp("slices") / "d"
    data = dataset(folder, s=pa.array([s for s, _ in rows], pa.string()), n=pa.array([n for _, n in rows], pa.int64()))
    expected: dict[tuple[str, str], list[int]] = {}
    for i, (s, n) in enumerate(rows):
        key = (MISSING if s is None else s, MISSING if n is None else str(n))
        expected.setdefault(key, []).append(i)
    ranked = sorted(expected, key=lambda key: (-len(expected[key]), key))
    (slices,) = slice_rows(data, "test", [["s", "n"]], most)
    assert [each.values for each in slices if each.values] == ranked[:most]
    for each in slices:
        if each.values:
            assert each.rows.tolist() == expected[each.values]
            assert each.name == f"s={each.values[0]}, n={each.values[1]}"
    rest = sorted(i for key in ranked[most:] for i in expected[key])
    assert [each.rows.tolist() for each in slices if each.values is None] == ([rest] if rest else [])
    assert sorted(np.concatenate([[], *(each.rows for each in slices)])) == list(range(len(rows)))


def test_values_of_every_type_are_written_as_text(tmp_path):
    data = dataset(
        tmp_path / "d",
        flag=pa.array([True, False, None]),
        real=pa.array([1.5, float("nan"), 1.5]),
        day=pa.array([datetime.date(2013, 1, 2), None, datetime.date(2013, 1, 2)]),
        word=pa.array(["x", "x", None]).dictionary_encode(),
    )
    slices = slice_rows(data, "test", [["flag"], ["real"], ["day"], ["word"]], 10)
    names = [[each.name for each in slicing] for slicing in slices]
    assert names == [
        [f"flag={MISSING}", "flag=false", "flag=true"],
        ["real=1.5", f"real={MISSING}"],
        ["day=2013-01-02", f"day={MISSING}"],
        ["word=x", f"word={MISSING}"],
    ]


def test_remaining_rows_are_one_slice(tmp_path):
    data = dataset(tmp_path / "d", c=pa.array(["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"]))
    (slices,) = slice_rows(data, "test", [["c"]], 2)
    assert [(each.name, len(each.rows)) for each in slices] == [("c=a", 5), ("c=b", 4), (OTHER, 4)]


def test_refuses_a_missing_column(tmp_path):
    data = dataset(tmp_path / "d", c=pa.array(["a"]))
    with pytest.raises(TidemillError) as error:
        slice_rows(data, "test", [["c"], ["carrier"]], 2)
    assert error.value.code is Code.MISSING_COLUMN and "'carrier'" in str(error.value)


def test_refuses_a_column_of_lists(tmp_path):
    data = dataset(tmp_path / "d", c=pa.array([[1, 2]]))
    with pytest.raises(TidemillError) as error:
        slice_rows(data, "test", [["c"]], 2)
    assert error.value.code is Code.INVALID_VALUE


def test_accepts_no_slicings_and_no_rows(tmp_path):
    data = dataset(tmp_path / "d", c=pa.array([], pa.string()))
    assert slice_rows(data, "test", [], 2) == []
    assert slice_rows(data, "test", [["c"]], 2) == [[]]
