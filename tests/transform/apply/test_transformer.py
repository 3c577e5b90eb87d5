"""The planned transform against TensorFlow on the rows, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.transform.apply.functions import functions
from tests.transform.apply.graphs import WORDS, Function, by_tensorflow, rows_of, write_graph
from tidemill.errors import Code, TidemillError
from tidemill.transform.apply.transformer import Transformer

_PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
"""Each example writes and loads a SavedModel, which is too slow to shrink with."""
_STRINGS = st.sampled_from([*WORDS, b"\x00", b"\x00a", b"line\nbreak", "日本".encode(), b"\xff\xfe", b" a "])
_INTEGERS = st.sampled_from([0, 1, 5, -3, 12, -7, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1]) | st.integers(-9, 40)
_FLOATS = st.sampled_from([0.0, -0.0, 1.0, 2.5, float("nan"), float("inf"), -float("inf"), 1e-42, 3e38]) | st.floats(
    -9, 9, width=32
)
_VALUES = {"s": _STRINGS | st.binary(max_size=15), "t": _STRINGS, "n": _INTEGERS, "m": _INTEGERS, "f": _FLOATS}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.sampled_from([1, 1, 2, 3, 17, 64, 65]))
    columns = {}
    for name, values in _VALUES.items():
        kind = draw(st.sampled_from(["some", "some", "all", "none"]))
        values = {"some": values | st.none(), "all": values, "none": st.none()}[kind]
        columns[name] = draw(st.lists(values, min_size=rows, max_size=rows))
    return rows_of(columns)


def assert_same(found: pa.Table, expected: pa.Table, where: str = "") -> None:
    assert found.schema.equals(expected.schema)
    assert found.num_rows == expected.num_rows
    for name in expected.column_names:
        # The bits, so that NaN equals NaN and 0 does not equal -0.
        a, b = (t[name].to_numpy().view(np.int32) for t in (found, expected))
        wrong = np.flatnonzero(a != b)
        assert not len(wrong), (where, name, wrong[:5], found[name].take(wrong[:5]), expected[name].take(wrong[:5]))


def check(folder: Path, function: Function, table: pa.Table, **writing: object) -> Transformer:
    graph = write_graph(folder, function)
    source = folder / "source.parquet"
    pq.write_table(table, source, **writing)
    transformer = Transformer(graph, threads=2)
    try:
        expected = by_tensorflow(graph, source, folder / "expected.parquet")
    except tf.errors.InvalidArgumentError:
        # Reshapes in tf.searchsorted refuse a batch without values.
        return transformer
    transformer.files([(source, folder / "found.parquet")])
    assert_same(pq.read_table(folder / "found.parquet"), expected, transformer.summary)
    return transformer


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=_PHASES)
@given(function=functions(), table=tables(), dictionary=st.booleans())
def test_any_function(tmp_path_factory: pytest.TempPathFactory, function: Function, table: pa.Table, dictionary: bool):
    check(tmp_path_factory.mktemp("any"), function, table, use_dictionary=dictionary)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), phases=_PHASES)
@given(function=functions(), table=tables(), dictionary=st.booleans())
def test_any_function_often(
    tmp_path_factory: pytest.TempPathFactory, function: Function, table: pa.Table, dictionary: bool
):
    check(tmp_path_factory.mktemp("often"), function, table, use_dictionary=dictionary)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), phases=_PHASES)
@given(function=functions(), seed=st.integers(0, 1000), dictionary=st.booleans())
def test_many_rows(tmp_path_factory: pytest.TempPathFactory, function: Function, seed: int, dictionary: bool):
    """Enough rows for windows of integers and several pieces."""
    rng = np.random.default_rng(seed)
    rows = 20_000

    def some(values: np.ndarray) -> list:
        return np.where(rng.random(rows) < 0.1, None, values).tolist()

    words = np.array([*WORDS, *(b"word %d" % number for number in range(3000))], object)
    table = rows_of(
        {
            "s": some(rng.choice(words, rows)),
            "t": some(rng.choice(words[:5], rows)),
            "n": some(rng.lognormal(3, 3, rows).astype(np.int64).astype(object)),
            "m": rng.integers(-500, 500, rows).tolist(),
            "f": some(rng.normal(0, 9, rows).astype(np.float32).astype(object)),
        }
    )
    check(tmp_path_factory.mktemp("many"), function, table, use_dictionary=dictionary)
