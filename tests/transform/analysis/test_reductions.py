"""Reductions over all rows and per key compute what TFT's combiners compute row by row, for any units and files."""

from __future__ import annotations

import functools
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_transform import analyzers

from tidemill.transform.analysis.combine import combine_reduction
from tidemill.transform.analysis.per_key import check_inputs, per_key_reduction
from tidemill.transform.tft import combiners

pytestmark = pytest.mark.tensorflow


def sums(shape=()):
    return analyzers.NumPyCombiner(functools.partial(np.sum, dtype=np.int64), 0, [np.int64], [shape])


def extremes(shape=()):
    return analyzers.NumPyCombiner(np.max, -np.inf, [np.float32, np.float32], [shape, shape])


def present(shape=()):
    return analyzers.NumPyCombiner(np.nanmax, np.nan, [np.float32], [shape])


def means(shape=()):
    return analyzers.WeightedMeanAndVarCombiner(np.float32, shape)


def thirds(weighted=False):
    return analyzers.QuantilesCombiner(3, 0.01, np.float32, has_weights=weighted, output_shape=(2,))


FLOATS = st.floats(-1e3, 1e3, width=32) | st.sampled_from([np.inf, -np.inf, 0.0])
KEYS = st.sampled_from([b"", b"a", b"b", b"\xff", "é".encode()])


def unique(arrays):
    """Keeps one row for each key: for these combiners, TensorFlow reduces each batch by key before."""
    _, first = np.unique(arrays[0], return_index=True)
    return tuple(array[np.sort(first)] for array in arrays)


def batches(columns, reduced):
    """Returns a strategy for batches of keys and columns."""
    row = st.tuples(KEYS, *(values for values, _ in columns))

    def arrays(rows):
        keys = np.array([r[0] for r in rows], object)
        made = (keys, *(np.array([r[k] for r in rows], t) for k, (_, t) in enumerate(columns, 1)))
        return unique(made) if reduced else made

    return st.lists(st.lists(row, max_size=8).map(arrays), max_size=9)


COUNT = st.integers(0, 5)
CASES = {
    "sums": (sums, [(st.integers(-9, 9), np.int64)], True),
    "extremes": (extremes, [(FLOATS, np.float32), (FLOATS, np.float32)], True),
    "present": (present, [(FLOATS | st.just(np.nan), np.float32)], True),
    "means": (
        means,
        [(COUNT, np.int64), (st.floats(-9, 9), np.float32), (st.floats(0, 9), np.float32), (st.just(0.0), np.float32)],
        True,
    ),
    "quantiles": (thirds, [(FLOATS | st.just(np.nan), np.float32)], False),
    "weighted": (functools.partial(thirds, True), [(FLOATS, np.float32), (st.floats(-1, 3), np.float32)], False),
}


def run(reduction, files):
    """Feeds the units of files to a reduction and returns it."""
    for index, file in enumerate(files):
        for unit in file:
            partial = reduction.start()
            for batch in unit:
                partial = reduction.add(partial, batch)
            reduction.collect(index, reduction.finish(partial))
        reduction.close(index)
    return reduction


def cut(items, sizes):
    """Returns items in consecutive groups of some sizes; the last group has the rest."""
    made, start = [], 0
    for size in sizes:
        made.append(items[start : start + size])
        start += size
    return [*made, items[start:]]


def row_by_row(combiner, given_batches):
    accumulators = {}
    for keys, *columns in given_batches:
        for index, key in enumerate(keys):
            accumulator = accumulators.get(key) or combiner.create_accumulator()
            accumulators[key] = combiner.add_input(accumulator, [column[index] for column in columns])
    merged = {k: combiner.merge_accumulators([combiner.create_accumulator(), a]) for k, a in accumulators.items()}
    return {key: [np.asarray(output) for output in combiner.extract_output(a)] for key, a in merged.items()}


def extremes_by_key(given_batches):
    """Returns the maxima of each key as TFT should compute them: it loses an infinity that comes first."""
    maxima = {}
    for keys, *columns in given_batches:
        for key, *row in zip(keys, *columns, strict=True):
            maxima[key] = [max(pair) for pair in zip(maxima.get(key, row), row, strict=True)]
    return {key: [-np.inf, -np.inf] if row[0] == -np.inf else row for key, row in maxima.items()}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_reduction_per_key_computes_what_the_combiner_computes_row_by_row(name, data):
    make, columns, reduced = CASES[name]
    given_batches = data.draw(batches(columns, reduced))
    sizes = st.lists(st.integers(0, 4), max_size=3)
    files = [cut(file, data.draw(sizes)) for file in cut(given_batches, data.draw(sizes))]
    if name == "means":
        # TensorFlow's mean of a part without values is 0.
        for _, count, *moments in given_batches:
            for moment in moments:
                moment[count == 0] = 0
    result = run(per_key_reduction(make(), ()), files).result()
    want = extremes_by_key(given_batches) if name == "extremes" else row_by_row(make(), given_batches)
    assert result.keys.tolist() == sorted(want)
    for index, key in enumerate(result.keys):
        for got, output in zip(result.outputs, want[key], strict=True):
            np.testing.assert_allclose(got[index], output, rtol=1e-5, atol=1e-5, err_msg=f"{key}")


@pytest.mark.parametrize("name", CASES)
def test_reduction_per_key_without_rows(name):
    make = CASES[name][0]
    result = run(per_key_reduction(make(), ()), [[], [[]]]).result()
    infos = make().output_tensor_infos()
    assert result.keys.tolist() == []
    assert [(len(o), o.dtype) for o in result.outputs] == [(0, info.dtype.as_numpy_dtype) for info in infos]


def test_reduction_of_vectors_per_key():
    keys = np.array([b"a", b"b"], object)
    first, second = np.array([[1.0, -5.0], [2.0, 2.0]], np.float32), np.array([[0.0, 7.0]], np.float32)
    reduction = run(per_key_reduction(extremes((2,)), ()), [[[(keys, first, -first)], [(keys[:1], second, -second)]]])
    result = reduction.result()
    assert result.outputs[0].tolist() == [[1.0, 7.0], [2.0, 2.0]]
    assert result.outputs[1].tolist() == [[0.0, 5.0], [-2.0, -2.0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((np.zeros((1, 1)),), "rank 1"),
        ((np.zeros(1), np.zeros(())), "rank >=1"),
        ((np.zeros(1), np.zeros(2)), "not equal to the size of the keys"),
    ],
)
def test_rejects_values_that_do_not_fit_the_keys(values, message):
    with pytest.raises(ValueError, match=message):
        check_inputs(values)


def test_many_keys_in_many_units_take_less_than_ten_seconds():
    random = np.random.default_rng(0)
    names = np.array([b"key %d" % k for k in range(20_000)], object)
    units = []
    for _ in range(200):
        chosen = random.permutation(len(names))[:2_000]
        units.append([(names[chosen], np.ones(2_000, np.int64))])
    started = time.perf_counter()
    result = run(per_key_reduction(sums(), ()), [units[:70], units[70:]]).result()
    assert result.outputs[0].sum() == 400_000 and len(result.keys) == len(names)
    assert time.perf_counter() - started < 10


class Longest:
    """A user's combiner, of which only the methods are known. Its result is the length of the longest batch."""

    def create_accumulator(self):
        return [np.zeros(0)]

    def add_input(self, accumulator, batch_values):
        return max([accumulator, [np.atleast_1d(batch_values[0])]], key=lambda a: len(a[0]))

    def merge_accumulators(self, accumulators):
        return max(accumulators, key=lambda a: len(a[0]))

    def compact(self, accumulator):
        return accumulator

    def extract_output(self, accumulator):
        return [np.int64(len(accumulator[0]))]

    def output_tensor_infos(self):
        import tensorflow as tf
        from tensorflow_transform.analyzer_nodes import TensorInfo

        return [TensorInfo(tf.int64, (), None)]


def test_users_combiners_run_by_their_methods():
    unit = [(np.zeros(3),), (np.zeros(5),)]
    assert run(combine_reduction(Longest(), ()), [[unit], []]).result() == [5]
    keys = np.array([b"b", b"a", b"b"], object)
    result = run(per_key_reduction(Longest(), ()), [[[(keys, np.zeros((3, 4)))]]]).result()
    assert result.keys.tolist() == [b"a", b"b"] and result.outputs[0].tolist() == [4, 4]
    assert run(per_key_reduction(Longest(), ()), [[], [[]]]).result().keys.tolist() == []
    assert combiners.describe(type("Op", (), {"_fields": ["combiner"], "combiner": Longest()})()) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        ("a", "b"),
        (True, False),
        (None, 0),
        (0.1, 0.2),
        (float("nan"), float("inf")),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"b": 1}),
        (np.float32([1, 2]), np.float64([1, 2])),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (tf.float32, tf.float64),
        (tf.TensorShape([None, 1]), tf.TensorShape([None, 2])),
        (functools.partial(np.sum, axis=0), functools.partial(np.sum, axis=1)),
        (functools.partial(np.sum, axis=0), functools.partial(np.mean, axis=0)),
        (analyzers.QuantilesCombiner(3, 0.01, np.float32), analyzers.QuantilesCombiner(4, 0.01, np.float32)),
    ],
)
def test_operations_that_differ_in_one_parameter_have_different_descriptions(one: object, other: object):
    """The description is part of the key of cached accumulators."""

    def described(value: object) -> object:
        return combiners.describe(
            type("Op", (), {"_fields": ["parameter", "label"], "parameter": value, "label": "x"})()
        )

    assert described(one) is not None and described(one) == described(one)
    assert described(one) != described(other)


GLOBAL = {
    "sums": (sums, [(np.array(k),) for k in (3, -4, 9)]),
    "extremes": (extremes, [(np.float32(k), np.float32(-k)) for k in (3, -np.inf, 7)]),
    "means": (means, [(np.array(2), np.float32(k), np.float32(1), np.float32(0)) for k in (3, 4, 5)]),
    "quantiles": (thirds, [(np.array([k, np.nan, k + 1], np.float32),) for k in (3, 4, 5)]),
    "elementwise": (
        lambda: analyzers.QuantilesCombiner(3, 0.01, np.float32, output_shape=(2, 2), feature_shape=[2]),
        [(np.array([[k, -k], [k + 1, 0]], np.float32),) for k in (3, 4, 5)],
    ),
    "covariance": (
        lambda: analyzers.CovarianceCombiner((2, 2)),
        [(np.array([[k, -k], [k + 1, 0]], np.float32),) for k in (3, 4, 5)],
    ),
    "moments": (
        lambda: analyzers._LMomentsCombiner(np.float32, ()),
        [tuple(np.float32(v) for v in (4, k, 4, 1, 4, 0.1, 4, 0.2)) for k in (3, 4, 5)],
    ),
    "approximate": (
        lambda: combiners._experimental._VocabularyCombiner(5, "string", output_pylist=True),
        [(np.array([b"a", b"%d" % k], object), np.array([2, 1], np.int64)) for k in (3, 4, 3)],
    ),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_accumulator_is_read_as_it_was_written(name, tmp_path):
    make, values = GLOBAL[name]
    reduction = run(combine_reduction(make(), ()), [[[values[0]], [values[1]]], [[values[2]]], []])
    other = combine_reduction(make(), ())
    for file in range(3):
        folder = tmp_path / str(file)
        folder.mkdir()
        reduction.dump(file, folder)
        other.load(file, folder)
    want = [np.asarray(output).tolist() for output in reduction.result()]
    assert [np.asarray(output).tolist() for output in other.result()] == want
    accumulator = make().create_accumulator()
    for value in values:
        accumulator = make().add_input(accumulator, value)
    near = [np.asarray(output).tolist() for output in make().extract_output(accumulator)]
    if name == "approximate":
        assert want == near
    else:
        for got, output in zip(want, near, strict=True):
            np.testing.assert_allclose(got, output, rtol=1e-6)


@pytest.mark.parametrize("name", [*CASES, "users_combiner"])
def test_accumulator_per_key_is_read_as_it_was_written(name, tmp_path):
    make, columns, _ = CASES.get(name, (Longest, [(None, np.float64)], False))
    keys = np.array([b"b", b"a"], object)
    batch = (keys, *(np.array([1, 2], dtype) for _, dtype in columns))
    reduction = run(per_key_reduction(make(), ()), [[[batch]]])
    other = per_key_reduction(make(), ())
    reduction.dump(0, tmp_path)
    other.load(0, tmp_path)
    got, want = other.result(), reduction.result()
    assert got.keys.tolist() == want.keys.tolist() == [b"a", b"b"]
    assert [o.tobytes() for o in got.outputs] == [o.tobytes() for o in want.outputs]
