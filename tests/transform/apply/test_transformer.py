"""The planned transform gives the bits that TensorFlow computes row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.transform.apply.graphs import WORDS, Function, make_table, transform_with_tensorflow, write_graph
from tests.transform.apply.random_functions import functions
from tidemill.errors import Code, TidemillError
from tidemill.transform.apply import saved_transform
from tidemill.transform.apply.transformer import Transformer
from tidemill.transform.graph import TRANSFORM_FN, TransformGraph
from tidemill.transform.raw import RawColumn

pytestmark = pytest.mark.tensorflow
_PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
"""No shrinking: each example writes and loads a SavedModel."""
_STRINGS = st.sampled_from([*WORDS, b"\x00", b"\x00a", b"line\nbreak", "日本".encode(), b"\xff\xfe", b" a "])
_INTEGERS = st.sampled_from([0, 1, 5, -3, 12, -7, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1]) | st.integers(-9, 40)
_FLOATS = st.sampled_from([0.0, -0.0, 1.0, 2.5, float("nan"), float("inf"), -float("inf"), 1e-42, 3e38]) | st.floats(
    -9, 9, width=32
)
_VALUES = {"s": _STRINGS | st.binary(max_size=15), "t": _STRINGS, "n": _INTEGERS, "m": _INTEGERS, "f": _FLOATS}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Draws rows of `graphs.COLUMNS`."""
    rows = draw(st.sampled_from([1, 1, 2, 3, 17, 64, 65]))
    columns = {}
    for name, values in _VALUES.items():
        kind = draw(st.sampled_from(["some", "some", "all", "none"]))
        values = {"some": values | st.none(), "all": values, "none": st.none()}[kind]
        columns[name] = draw(st.lists(values, min_size=rows, max_size=rows))
    return make_table(columns)


def assert_same(made: pa.Table, expected: pa.Table, plan: str = "") -> None:
    assert made.schema.equals(expected.schema)
    assert made.num_rows == expected.num_rows
    for name in expected.column_names:
        # Bits are compared, so that NaN equals NaN and 0 does not equal -0.
        a, b = (t[name].to_numpy().view(np.int32) for t in (made, expected))
        wrong = np.flatnonzero(a != b)
        assert not len(wrong), (plan, name, wrong[:5], made[name].take(wrong[:5]), expected[name].take(wrong[:5]))


def check(folder: Path, function: Function, table: pa.Table, **writing: object) -> Transformer:
    """Asserts that a transformer computes what TensorFlow computes on the rows, and returns the transformer."""
    graph = write_graph(folder, function)
    source = folder / "source.parquet"
    pq.write_table(table, source, **writing)
    transformer = Transformer(graph, threads=3)
    assert transformer.threads == 3
    try:
        expected = transform_with_tensorflow(graph, source, folder / "expected.parquet")
    except tf.errors.InvalidArgumentError:
        # tf.searchsorted rejects a batch without values.
        return transformer
    transformer.files([(source, folder / "made.parquet")])
    assert_same(pq.read_table(folder / "made.parquet"), expected, transformer.summary)
    return transformer


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), phases=_PHASES)
@given(function=functions(), table=tables(), dictionary=st.booleans())
def test_random_functions(
    tmp_path_factory: pytest.TempPathFactory, function: Function, table: pa.Table, dictionary: bool
):
    check(tmp_path_factory.mktemp("any"), function, table, use_dictionary=dictionary)


@pytest.mark.full
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), phases=_PHASES)
@given(function=functions(), table=tables(), dictionary=st.booleans())
def test_many_random_functions(
    tmp_path_factory: pytest.TempPathFactory, function: Function, table: pa.Table, dictionary: bool
):
    check(tmp_path_factory.mktemp("often"), function, table, use_dictionary=dictionary)


@pytest.mark.full
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), phases=_PHASES)
@given(function=functions(), seed=st.integers(0, 1000), dictionary=st.booleans())
def test_random_functions_of_many_rows(
    tmp_path_factory: pytest.TempPathFactory, function: Function, seed: int, dictionary: bool
):
    """The rows are enough for windows of integers and for several pieces."""
    check(tmp_path_factory.mktemp("many"), function, many_rows(seed), use_dictionary=dictionary)


def many_rows(seed: int) -> pa.Table:
    """Returns rows with thousands of words, and with integers of which most are close to each other."""
    rng = np.random.default_rng(seed)
    rows = 20_000

    def with_nulls(values: np.ndarray) -> list:
        return np.where(rng.random(rows) < 0.1, None, values).tolist()

    words = np.array([*WORDS, *(b"word %d" % number for number in range(3000))], object)
    n = rng.lognormal(3, 3, rows).astype(np.int64)
    n[rows // 2 :: 50] = -n[rows // 2 :: 50] - 1  # below the window, which has the smallest value of the first rows
    return make_table(
        {
            "s": with_nulls(rng.choice(words, rows)),
            "t": with_nulls(rng.choice(words[:5], rows)),
            "n": with_nulls(n.astype(object)),
            "m": rng.integers(-500, 500, rows).tolist(),
            "f": with_nulls(rng.normal(0, 9, rows).astype(np.float32).astype(object)),
        }
    )


@pytest.mark.parametrize("dictionary", [False, True])
def test_functions_of_many_rows(tmp_path: Path, dictionary: bool):
    """Results for the integers of a window are computed once; other integers and missing values are computed apart."""

    def function(i: dict, tables: object) -> dict:
        n, m = dense(i["n"], -7), dense(i["m"], 0)
        return {
            "quotient": tf.math.floormod(n // 3, 1 << 30),
            "third": tf.cast(n, tf.float32) / 3,
            "found number": tables.lookup_number(n),
            "inside": tf.math.floormod(m * 5, 1 << 30),
            "word": tables.lookup(dense(i["s"], "zz"), 3),
            "lower": tf.strings.to_hash_bucket_fast(tf.strings.lower(dense(i["s"], "")), 97),
            "joined": tf.strings.to_hash_bucket_fast(tf.strings.join([dense(i["s"], ""), dense(i["t"], "?")]), 97),
            "root": tf.sqrt(tf.abs(dense(i["f"], 2.0))),
        }

    transformer = check(tmp_path, function, many_rows(0), use_dictionary=dictionary, row_group_size=5000)
    assert sorted(transformer._windows) == ["m", "n"]


def dense(x: tf.SparseTensor, fill: object) -> tf.Tensor:
    return tf.sparse.to_dense(x, tf.constant(fill, x.dtype))[:, 0]


ROWS = {"s": [b"a", None, b"zz"], "t": [b"1", b"2", None], "n": [5, None, -3], "m": [1, 2, 3], "f": [1.0, None, -2.0]}


def transformed(folder: Path, function: Function, table: pa.Table) -> pa.RecordBatch:
    return Transformer(write_graph(folder, function), threads=1).batch(table.to_batches()[0])


def test_summary_counts_the_outputs_by_the_way_they_are_computed(tmp_path: Path):
    def function(i: dict, tables: object) -> dict:
        return {
            "class": tables.lookup(dense(i["s"], ""), 1),
            "number class": tables.lookup_number(dense(i["n"], 0)),
            "value": tf.cast(dense(i["m"], 0), tf.float32) / 3,
            "row": tf.strings.to_hash_bucket_fast(tf.strings.join([dense(i["s"], ""), dense(i["t"], "")]), 9),
            "batch": dense(i["f"], 0.0) - tf.reduce_mean(dense(i["f"], 0.0)),
        }

    transformer = check(tmp_path, function, make_table(ROWS))
    assert transformer.summary == "2 outputs by named value, 1 by value, 2 by row"


def test_row_does_not_depend_on_other_rows(tmp_path: Path):
    """TensorFlow computes a logarithm at the end of an array with another last bit than inside it."""

    def function(i: dict, tables: object) -> dict:
        x, m = dense(i["f"], 2.0), tf.cast(dense(i["m"], 0), tf.float32)
        return {
            "log": tf.math.log1p(tf.abs(x)),
            "exp": tf.exp(tf.cast(x, tf.float64) / 7),
            "of two": tf.math.log1p(tf.abs(x)) * tf.tanh(m / 9),
        }

    def cast(i: dict, tables: object) -> dict:
        return {name: tf.cast(x, tf.float32) for name, x in function(i, tables).items()}

    rng = np.random.default_rng(0)
    rows = 3001
    floats = np.where(rng.random(rows) < 0.2, None, rng.normal(0, 3, rows).astype(np.float32).astype(object)).tolist()
    columns = {"s": [None] * rows, "t": [None] * rows, "n": [None] * rows, "m": rng.integers(0, 99, rows).tolist()}
    table = make_table(columns | {"f": floats}).combine_chunks()
    transformer = Transformer(write_graph(tmp_path, cast), threads=1)
    (batch,) = table.to_batches()
    whole = transformer.batch(batch)
    for start, count in [(0, 1), (7, 3), (100, 65), (2990, 11), (1, 3000)]:
        assert transformer.batch(batch.slice(start, count)).equals(whole.slice(start, count))
    pq.write_table(table, tmp_path / "source.parquet")
    expected = transform_with_tensorflow(
        TransformGraph(tmp_path / "graph"), tmp_path / "source.parquet", tmp_path / "expected.parquet"
    )
    for name in ("log", "exp", "of two"):
        np.testing.assert_allclose(whole[name].to_numpy(), expected[name].to_numpy(), rtol=3e-7)


def test_function_that_may_fail_gets_only_values_that_occur(tmp_path: Path):
    def function(i: dict, tables: object) -> dict:
        return {
            "number": tf.strings.to_number(dense(i["t"], "")),
            "part": tf.cast(100 // dense(i["m"], 0), tf.float32),
            "of values": dense(i["t"].with_values(tf.strings.to_number(i["t"].values)), 7.0),
        }

    rows = ROWS | {"t": [b"1", b"2.5", b"-3"]}
    check(tmp_path / "all", function, make_table(rows))
    transformer = Transformer(write_graph(tmp_path / "some", function), threads=1)
    with pytest.raises(tf.errors.InvalidArgumentError):
        transformer.batch(make_table(rows | {"t": [b"1", None, b"2"]}).to_batches()[0])
    with pytest.raises(tf.errors.InvalidArgumentError):
        transformer.batch(make_table(rows | {"m": [1, 0, 2]}).to_batches()[0])
    # A dictionary may hold values that do not occur.
    (batch,) = make_table(rows).to_batches()
    text = pa.DictionaryArray.from_arrays(pa.array([1, 2, 1]), pa.array([b"no number", b"4", b"5"]))
    batch = batch.set_column(batch.schema.get_field_index("t"), "t", text)
    assert transformer.batch(batch)["number"].to_pylist() == [4, 5, 4]


def test_assertions_are_kept(tmp_path: Path):
    def function(i: dict, tables: object) -> dict:
        with tf.control_dependencies([tf.debugging.assert_less(dense(i["n"], 0), tf.constant(9, tf.int64))]):
            checked = tf.identity(dense(i["m"], 0))
        return {"id": tables.lookup(dense(i["s"], ""), 1), "checked": checked}

    check(tmp_path / "all", function, make_table(ROWS))
    with pytest.raises(tf.errors.InvalidArgumentError):
        transformed(tmp_path / "some", function, make_table(ROWS | {"n": [5, 9, 1]}))


def test_python_function_does_not_slow_down_other_outputs(tmp_path: Path):
    def function(i: dict, tables: object) -> dict:
        double = tf.numpy_function(lambda x: x * 2, [dense(i["m"], 0)], tf.int64)
        return {"id": tables.lookup(dense(i["s"], ""), 1), "double": tf.ensure_shape(double, [None])}

    transformer = check(tmp_path, function, make_table(ROWS))
    assert transformer.summary == "1 outputs by named value, 0 by value, 1 by row"


def ids(i: dict, tables: object) -> dict:
    return {"id": tables.lookup(dense(i["s"], ""), 0)}


@pytest.mark.parametrize(
    ("label", "code"),
    [
        (pa.array([0, 1, 2]), Code.LABEL_TYPE),
        (pa.array([0, None, 1]), Code.LABEL_NULL),
        (pa.array(["0", "1", "1"]), Code.LABEL_TYPE),
    ],
)
def test_rejects_bad_labels(tmp_path: Path, label: pa.Array, code: Code):
    with pytest.raises(TidemillError) as caught:
        transformed(tmp_path, ids, make_table(ROWS).set_column(5, "y", label))
    assert caught.value.code is code


def test_rejects_ids_outside_of_their_domain(tmp_path: Path):
    def function(i: dict, tables: object) -> dict:
        return {"id": dense(i["m"], 0) - 2}

    assert transformed(tmp_path / "in", function, make_table(ROWS))["id"].to_pylist() == [0, 1, 2]
    with pytest.raises(TidemillError, match="ids from -4"):
        transformed(tmp_path / "out", function, make_table(ROWS | {"m": [1, -3, 3]}))


def test_ids_outside_of_their_domain_are_rejected_only_if_they_occur(tmp_path: Path):
    def function(i: dict, tables: object) -> dict:
        return {"id": tables.lookup(dense(i["s"], "a"), 0) * 2}

    rows = make_table(ROWS | {"s": [b"a", b"b", None]})
    assert transformed(tmp_path / "in", function, rows)["id"].to_pylist() == [1, 3, 1]
    with pytest.raises(TidemillError, match="ids from -1"):
        transformed(tmp_path / "out", function, make_table(ROWS | {"s": [b"a", b"unknown", None]}))


def test_rejects_an_output_of_another_length(tmp_path: Path):
    def function(i: dict, tables: object) -> dict:
        return {"id": i["m"].values[1:]}

    with pytest.raises(TidemillError, match="2 values for 3 rows"):
        transformed(tmp_path, function, make_table(ROWS))
    pq.write_table(make_table(ROWS), tmp_path / "source.parquet")
    with pytest.raises(TidemillError, match="2 values for 3 rows"):
        transform_with_tensorflow(TransformGraph(tmp_path / "graph"), tmp_path / "source.parquet", tmp_path / "made")


def test_rejects_a_missing_column(tmp_path: Path):
    with pytest.raises(TidemillError) as caught:
        transformed(tmp_path, ids, make_table(ROWS).drop_columns(["s"]))
    assert caught.value.code is Code.MISSING_COLUMN


def test_two_outputs_of_one_tensor(tmp_path: Path):
    def function(i: dict, tables: object) -> dict:
        x = tables.lookup(dense(i["s"], ""), 1)
        return {"a": x, "b": x, "c": tf.reshape(x, [-1, 1])}

    check(tmp_path, function, make_table(ROWS))


def test_batch_without_rows(tmp_path: Path):
    table = make_table({name: [] for name in ROWS})
    batch = pa.RecordBatch.from_arrays([pa.array([], f.type) for f in table.schema], schema=table.schema)
    assert Transformer(write_graph(tmp_path, ids), threads=1).batch(batch).num_rows == 0


def test_graph_that_preprocess_writes(all_kinds, tmp_path: Path):
    """The graph has all kinds of features. It is loaded without `tf.saved_model.load`."""
    transformer = Transformer(all_kinds.graph, threads=2)
    assert saved_transform._PlainSavedModel.load(all_kinds.graph.path / TRANSFORM_FN) is not None
    for split, entry in all_kinds.examples.splits.items():
        pairs = [(all_kinds.examples.path / f.name, tmp_path / f"{split}-{n}") for n, f in enumerate(entry.files)]
        transformer.files(pairs)
        for source, target in pairs:
            assert_same(
                pq.read_table(target), transform_with_tensorflow(all_kinds.graph, source, tmp_path / "expected")
            )


def test_column_of_lists(tmp_path: Path):
    """TensorFlow transforms the lists; outputs of other columns are planned as before."""
    columns = (RawColumn("s", "string"), RawColumn("l", "string", is_list=True))

    def function(i: dict, tables: object) -> dict:
        ids = i["l"].with_values(tables.lookup(i["l"].values, 1))
        return {"first": tf.sparse.reduce_max(ids, axis=1), "id": tables.lookup(dense(i["s"], ""), 0)}

    lists = [[b"a", b"zz"], [], None, [None, b"b", b"\x00", b"not there"]]
    table = pa.table({"s": pa.array([b"a", None, b"b", b"?"]), "l": pa.array(lists), "y": pa.array([0, 1, 0, 1])})
    graph, source = write_graph(tmp_path, function, columns), tmp_path / "source.parquet"
    pq.write_table(table, source)
    transformer = Transformer(graph, threads=2)
    transformer.files([(source, tmp_path / "made.parquet")])
    expected = transform_with_tensorflow(graph, source, tmp_path / "expected.parquet")
    assert_same(pq.read_table(tmp_path / "made.parquet"), expected)
    assert transformer.summary == "1 outputs by named value, 0 by value, 1 by row"
