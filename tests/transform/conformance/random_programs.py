"""Hypothesis strategies for rows and for preprocessing_fns over them.

A function is drawn as data, so that a failing one can be printed and recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from hypothesis import strategies as st

from tests.transform.conformance.case import Inputs, dense, repeat, repeat_joined

MOST_ROWS = 40
_EXTREMES = [2**63 - 1, -(2**63) + 1, -(2**63), 0, 1, -1, 7, 10]
_WORDS = st.one_of(
    st.sampled_from(["", "a", "b", "A", " ", "\n", "a\nb", "\r", "\x00", "ß", "日本", "x" * 500, "-1", "0", "10"]),
    st.text(max_size=6),
    st.integers(0, 10**6).map(lambda number: f"{'long ' * 20}{number}"),
)
_NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 0.1, 1e-3, float("nan"), float("inf"), float("-inf")]),
    st.floats(-1000, 1000, width=32),
)


@st.composite
def random_rows(draw) -> tuple[pa.Table, list[int], int]:
    """Draws rows, the number of rows of each file, and the number of rows of a row group."""
    count = draw(st.integers(1, MOST_ROWS))

    def column(values: st.SearchStrategy, type_: pa.DataType) -> pa.Array:
        return pa.array(draw(st.lists(values, min_size=count, max_size=count)), type_)

    table = pa.table(
        {
            "row": pa.array(np.arange(count), pa.int64()),
            "word": column(st.none() | _WORDS, pa.string()),
            "number": column(st.none() | _NUMBERS, pa.float32()),
            "whole": column(st.none() | st.integers(-50, 50), pa.int64()),
            "huge": column(st.none() | st.sampled_from(_EXTREMES), pa.int64()),
            "bag": column(st.none() | st.lists(_WORDS, max_size=4), pa.list_(pa.string())),
            "odd": column(st.lists(_NUMBERS, max_size=3), pa.list_(pa.float32())),
            "key": column(st.sampled_from(["k", "l", "ß", ""]), pa.string()),
            "label": column(st.integers(0, 1), pa.int64()),
            "weight": column(st.sampled_from([0.5, 1.0, 2.25]), pa.float32()),
        }
    )
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=3)))
    parts = np.diff([0, *cuts, count]).tolist()
    return table, parts, draw(st.integers(1, 16))


def _sparse(values: Callable) -> Callable:
    """Applies a function to the values of a sparse column."""
    return lambda x: tf.SparseTensor(x.indices, values(x.values), x.dense_shape)


TOKENS: dict[str, Callable[[Inputs], tf.Tensor | tf.SparseTensor]] = {
    "word": lambda i: i["word"],
    "word filled": lambda i: dense(i["word"], "missing"),
    "word filled with a": lambda i: dense(i["word"], "a"),
    "empty replaced": lambda i: tf.where(
        tf.equal(dense(i["word"], "?"), ""), tf.constant("\x00"), dense(i["word"], "?")
    ),
    "lower": lambda i: _sparse(tf.strings.lower)(i["word"]),
    "start": lambda i: _sparse(lambda v: tf.strings.substr(v, 0, 1, unit="UTF8_CHAR"))(i["word"]),
    "letters": lambda i: tf.strings.regex_replace(dense(i["word"], ""), "[a-c]", "*"),
    "bag": lambda i: i["bag"],
    "key": lambda i: i["key"],
    "cross": lambda i: tf.strings.join([i["key"], dense(i["word"], "-")], "|"),
    "whole": lambda i: i["whole"],
    "whole as text": lambda i: tf.strings.as_string(dense(i["whole"], -99)),
    "huge": lambda i: i["huge"],
    "huge as text": lambda i: _sparse(tf.strings.as_string)(i["huge"]),
    "rounded": lambda i: _sparse(lambda v: tf.cast(v / 10, tf.int64))(i["number"]),
}
NUMBERS: dict[str, Callable[[Inputs], tf.Tensor | tf.SparseTensor]] = {
    "number": lambda i: i["number"],
    "number filled": lambda i: dense(i["number"], -1.0),
    "whole": lambda i: i["whole"],
    "whole as float": lambda i: _sparse(lambda v: tf.cast(v, tf.float32))(i["whole"]),
    "absolute": lambda i: _sparse(tf.abs)(i["number"]),
    "logarithm": lambda i: tf.math.log1p(tf.abs(dense(i["number"], 3.0))),
    "scaled": lambda i: tft.scale_to_0_1(dense(i["number"], 0.0)),
    "ids": lambda i: tft.compute_and_apply_vocabulary(dense(i["word"], "missing"), num_oov_buckets=1),
    "bucket": lambda i: tft.bucketize(dense(i["number"], 0.0), 3),
}


@dataclass(frozen=True)
class Step:
    """One analyzer of a program.

    Attributes:
        analysis: Name of the analyzer, a key of `_OUTPUTS`.
        source: Name of the input, a key of `TOKENS` or `NUMBERS`.
        settings: Settings of the analyzer.
    """

    analysis: str
    source: str
    settings: tuple = ()


_TOP_K = st.sampled_from([None, 1, 2, 5])
_THRESHOLD = st.sampled_from([None, 1, 2, 3])
_TOKEN_STEPS = st.one_of(
    st.builds(Step, st.just("ids"), st.sampled_from(list(TOKENS)), st.tuples(_TOP_K, _THRESHOLD, st.integers(0, 2))),
    st.builds(Step, st.sampled_from(["file", "counts", "shuffled"]), st.sampled_from(list(TOKENS)), st.tuples(_TOP_K)),
    st.builds(Step, st.just("records"), st.sampled_from(["word", "bag", "word filled"]), st.tuples(_TOP_K)),
    st.builds(Step, st.just("weighted"), st.sampled_from(["word filled", "key", "cross"]), st.tuples(_TOP_K)),
    st.builds(Step, st.just("labelled"), st.sampled_from(["word filled", "key", "bag"]), st.tuples(_TOP_K)),
    st.builds(Step, st.just("covered"), st.sampled_from(["word", "cross"]), st.tuples(st.integers(1, 2))),
    st.builds(Step, st.just("approximate"), st.sampled_from(["word", "bag", "whole", "key"])),
    st.builds(Step, st.just("per key"), st.sampled_from(["word", "key", "whole", "huge"])),
    st.builds(Step, st.just("hash"), st.sampled_from(["word filled", "key", "cross"])),
)
_NUMBER_STEPS = st.one_of(
    st.builds(Step, st.sampled_from(["min", "max", "sum", "size", "mean", "var"]), st.sampled_from(list(NUMBERS))),
    st.builds(Step, st.sampled_from(["zscore", "minmax"]), st.sampled_from(list(NUMBERS))),
    st.builds(
        Step,
        st.sampled_from(["zscore per key", "minmax per key", "bucket per key", "quantiles"]),
        st.sampled_from(["number filled", "logarithm", "scaled"]),
    ),
    st.builds(Step, st.just("bucketize"), st.sampled_from(list(NUMBERS)), st.tuples(st.integers(2, 6))),
    st.builds(Step, st.sampled_from(["extremes", "odd"]), st.just("")),
)


@dataclass(frozen=True)
class Program:
    """A preprocessing_fn of several independent steps."""

    steps: tuple[Step, ...]

    def __call__(self, inputs: Inputs) -> dict:
        """Returns the outputs of all steps and the output `row`."""
        outputs = {}
        for number, step in enumerate(self.steps):
            for name, tensor in _OUTPUTS[step.analysis](inputs, step, number).items():
                outputs[f"{number} {name}"] = tensor
        return {**outputs, "row": inputs["row"]}

    def to_json(self) -> list:
        """Returns the steps as JSON."""
        return [[step.analysis, step.source, list(step.settings)] for step in self.steps]

    @classmethod
    def from_json(cls, steps: list) -> Program:
        """Returns the program that `to_json` described."""
        return cls(tuple(Step(analysis, source, tuple(settings)) for analysis, source, settings in steps))


PROGRAMS = st.lists(_TOKEN_STEPS | _NUMBER_STEPS, min_size=2, max_size=8).map(lambda steps: Program(tuple(steps)))


def _ids(inputs: Inputs, step: Step, number: int) -> dict:
    top_k, threshold, oov = step.settings
    tokens = TOKENS[step.source](inputs)
    ids = tft.compute_and_apply_vocabulary(tokens, top_k=top_k, frequency_threshold=threshold, num_oov_buckets=oov)
    return {"ids": ids}


def _file(**settings) -> Callable:
    def make(inputs: Inputs, step: Step, number: int) -> dict:
        tokens = TOKENS[step.source](inputs)
        arguments = {name: inputs[value] if isinstance(value, str) else value for name, value in settings.items()}
        if arguments.pop("records", False):
            arguments["file_format"] = "tfrecord_gzip"
        top_k = step.settings[0]
        tft.vocabulary(tokens, top_k=top_k, vocab_filename=f"file_{number}", **arguments)
        return {}

    return make


def _covered(inputs: Inputs, step: Step, number: int) -> dict:
    key_fn = lambda token: token[:1]  # noqa: E731
    tokens = TOKENS[step.source](inputs)
    ids = tft.compute_and_apply_vocabulary(tokens, top_k=2, key_fn=key_fn, coverage_top_k=step.settings[0])
    return {"ids": ids}


def _approximate(inputs: Inputs, step: Step, number: int) -> dict:
    tokens = TOKENS[step.source](inputs)
    return {"ids": tft.experimental.compute_and_apply_approximate_vocabulary(tokens, top_k=1000)}


def _per_key(inputs: Inputs, step: Step, number: int) -> dict:
    tokens = TOKENS[step.source](inputs)
    keys, counts = tft.count_per_key(getattr(tokens, "values", tokens))
    return {"keys": repeat_joined(keys, inputs), "counts": repeat_joined(counts, inputs)}


def _hash(inputs: Inputs, step: Step, number: int) -> dict:
    return {"hash": tft.hash_strings(TOKENS[step.source](inputs), 100)}


def _reduced(analyzer: Callable) -> Callable:
    return lambda inputs, step, number: {"constant": repeat(analyzer(NUMBERS[step.source](inputs)), inputs)}


def _mapped(mapper: Callable) -> Callable:
    return lambda inputs, step, number: {"mapped": mapper(NUMBERS[step.source](inputs), inputs, step)}


def _quantiles(inputs: Inputs, step: Step, number: int) -> dict:
    boundaries = tft.quantiles(NUMBERS[step.source](inputs), 4, 0.01)
    return {"quantiles": repeat(tf.reshape(boundaries, [3]), inputs)}


def _extremes(inputs: Inputs, step: Step, number: int) -> dict:
    return {a.__name__: repeat(a(inputs["huge"]), inputs) for a in (tft.min, tft.max, tft.sum, tft.size)}


def _odd(inputs: Inputs, step: Step, number: int) -> dict:
    return {a.__name__: repeat(a(inputs["odd"]), inputs) for a in (tft.min, tft.max, tft.size, tft.mean)}


# Recorded programs hold these names.
_OUTPUTS: dict[str, Callable[[Inputs, Step, int], dict]] = {
    "ids": _ids,
    "file": _file(),
    "counts": _file(store_frequency=True),
    "shuffled": _file(fingerprint_shuffle=True),
    "records": _file(records=True),
    "weighted": _file(weights="weight", store_frequency=True),
    "labelled": _file(labels="label", min_diff_from_avg=0, store_frequency=True),
    "covered": _covered,
    "approximate": _approximate,
    "per key": _per_key,
    "hash": _hash,
    **{a.__name__: _reduced(a) for a in (tft.min, tft.max, tft.sum, tft.size, tft.mean, tft.var)},
    "zscore": _mapped(lambda x, inputs, step: tft.scale_to_z_score(x)),
    "minmax": _mapped(lambda x, inputs, step: tft.scale_by_min_max(x, -1.0, 1.0)),
    "zscore per key": _mapped(lambda x, inputs, step: tft.scale_to_z_score_per_key(x, inputs["key"])),
    "minmax per key": _mapped(lambda x, inputs, step: tft.scale_to_0_1_per_key(x, inputs["key"])),
    "bucket per key": _mapped(lambda x, inputs, step: tft.bucketize_per_key(x, inputs["key"], 3)),
    "bucketize": _mapped(lambda x, inputs, step: tft.bucketize(x, step.settings[0])),
    "quantiles": _quantiles,
    "extremes": _extremes,
    "odd": _odd,
}
