"""Token streams that are a raw column with some values replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf
import tensorflow_transform as tft
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transform.apply.test_facts import dense
from tidemill.transform.apply import probes
from tidemill.transform.apply.substitution import Substitution, substitution
from tidemill.transform.tft.trace import Trace

pytestmark = pytest.mark.tensorflow
SPECS = {
    name: tf.SparseTensorSpec([None, None], dtype)
    for name, dtype in [("s", tf.string), ("n", tf.int64), ("f", tf.float32)]
}


def digits(i: dict) -> tf.Tensor:
    return tf.strings.as_string(dense(i["n"], -1))


SUBSTITUTIONS = {
    "dense": (lambda i: dense(i["s"], ""), Substitution("s", "string", False, {}, b"")),
    "sparse": (lambda i: i["s"], Substitution("s", "string", False, {}, None)),
    "values": (lambda i: i["s"].values, Substitution("s", "string", False, {}, None)),
    "replaced": (
        lambda i: tf.where(tf.equal(dense(i["s"], "?"), ""), "\x00", dense(i["s"], "?")),
        Substitution("s", "string", False, {b"": b"\x00"}, b"?"),
    ),
    "missing and replaced": (
        lambda i: tf.where(tf.not_equal(dense(i["s"], ""), ""), dense(i["s"], ""), "none"),
        Substitution("s", "string", False, {b"": b"none"}, b"none"),
    ),
    "integers": (lambda i: dense(i["n"], -1), Substitution("n", "int64", False, {}, -1)),
    "digits": (digits, Substitution("n", "int64", True, {}, b"-1")),
    "digits, replaced": (
        lambda i: tf.where(tf.equal(digits(i), "7"), "seven", tf.where(tf.equal(digits(i), "007"), "x", digits(i))),
        Substitution("n", "int64", True, {7: b"seven"}, b"-1"),
    ),
    "two columns of one dimension": (
        lambda i: dense(i["s"], "a")[:, tf.newaxis],
        Substitution("s", "string", False, {}, b"a"),
    ),
}
OTHER_TOKENS = {
    "lower": lambda i: tf.strings.lower(dense(i["s"], "")),
    "joined": lambda i: tf.strings.join([dense(i["s"], ""), digits(i)]),
    "width": lambda i: tf.sparse.to_dense(i["s"], "")[:, 0],
    "one of two": lambda i: tf.where(tf.equal(dense(i["s"], ""), "a"), "b", "c"),
    "all the same": lambda i: tf.where(tf.equal(dense(i["s"], ""), dense(i["s"], "")), "b", dense(i["s"], "")),
    "without the first": lambda i: i["s"].values[1:],
    "unique": lambda i: tf.unique(i["s"].values).y,
    "twice": lambda i: tf.concat([i["s"].values, i["s"].values], 0),
    "only present values": lambda i: tf.boolean_mask(i["s"].values, tf.not_equal(i["s"].values, "")),
    "numbers": lambda i: dense(i["n"], 0) + 1,
    "wide digits": lambda i: tf.strings.as_string(dense(i["n"], 0), width=3, fill="0"),
    "after an analysis": lambda i: tf.where(
        tf.equal(dense(i["n"], 0), tf.cast(tft.max(i["n"].values), tf.int64)), dense(i["n"], 0), 3
    ),
}


def traced(function: Callable, folder: Path) -> tuple[Trace, tf.Tensor]:
    """Returns the trace of a function with one vocabulary, and the tokens of that vocabulary."""

    def preprocessing_fn(inputs: dict) -> dict:
        return {"id": tft.compute_and_apply_vocabulary(function(inputs))}

    trace = Trace(preprocessing_fn, SPECS, folder)
    (name,) = trace.token_filter
    return trace, trace.graph.get_tensor_by_name(name)


@pytest.mark.parametrize(("function", "expected"), SUBSTITUTIONS.values(), ids=SUBSTITUTIONS)
def test_substitution_of_a_column_is_recognized(function: Callable, expected: Substitution, tmp_path: Path):
    trace, tokens = traced(function, tmp_path)
    assert substitution(trace, tokens, set(SPECS)) == expected
    assert substitution(trace, tokens, set(SPECS) - {expected.column}) is None


@pytest.mark.parametrize("function", OTHER_TOKENS.values(), ids=OTHER_TOKENS)
def test_other_tokens_are_not_recognized(function: Callable, tmp_path: Path):
    assert substitution(*traced(function, tmp_path), set(SPECS)) is None


def trace_without_analyzers(function: Callable) -> tuple[SimpleNamespace, tf.Tensor]:
    """Returns the attributes of a trace that `substitution` reads, and the function's output."""
    concrete = tf.function(function, input_signature=[SPECS], autograph=False).get_concrete_function()
    (inputs,), _ = concrete.structured_input_signature
    inputs = tf.nest.pack_sequence_as(inputs, concrete.graph.inputs, expand_composites=True)
    return SimpleNamespace(graph=concrete.graph, inputs=inputs, ready=lambda tensor: True), concrete.graph.outputs[0]


_TEXTS = ["", "a", "b", "7", "-1", "\x00", "zz"]
_STEPS = [
    lambda x, p, q: tf.where(tf.equal(x, p), tf.constant(q), x),
    lambda x, p, q: tf.where(tf.not_equal(x, p), x, tf.constant(q)),
    lambda x, p, q: tf.where(tf.equal(x, p), x, tf.where(tf.equal(x, q), tf.constant(p), x)),
    lambda x, p, q: tf.where(tf.logical_or(tf.equal(x, p), tf.equal(x, q)), tf.constant("both"), x),
    lambda x, p, q: tf.where(tf.equal(x, p), tf.constant(q), tf.constant(p)),
    lambda x, p, q: tf.where(tf.equal(tf.where(tf.equal(x, p), tf.constant(q), x), q), tf.constant("hidden"), x),
    lambda x, p, q: tf.reshape(tf.identity(x), [-1]),
]


@settings(max_examples=60, deadline=None)
@given(
    is_number=st.booleans(),
    is_dense=st.booleans(),
    fill=st.sampled_from(_TEXTS),
    steps=st.lists(st.tuples(st.sampled_from(_STEPS), st.sampled_from(_TEXTS), st.sampled_from(_TEXTS)), max_size=4),
    values=st.lists(st.none() | st.sampled_from([b"", b"a", b"b", b"7", b"q", b"zz"]), min_size=1, max_size=9),
)
def test_random_substitutions_give_the_tokens_of_the_graph(
    is_number: bool, is_dense: bool, fill: str, steps: list, values: list[bytes | None]
):
    name = "n" if is_number else "s"
    column: list = [None if v is None else (len(v) * 7 - 7 if is_number else v) for v in values]

    def function(i: dict) -> tf.Tensor:
        x = tf.strings.as_string(i[name].values) if is_number else i[name].values
        x = dense(i[name], fill, x) if is_dense else x
        for step, p, q in steps:
            x = step(x, p, q)
        return x

    trace, tensor = trace_without_analyzers(function)
    result = substitution(trace, tensor, set(SPECS))
    if result is None:
        # Two values that no constant names get the same token.
        assert any(step is _STEPS[4] for step, _, _ in steps)
        return
    present = [(row, value) for row, value in enumerate(column) if value is not None]
    inputs = {
        other: tf.SparseTensor(
            tf.constant([[row, 0] for row, _ in present] if other == name else [], tf.int64, [len(present), 2])
            if other == name
            else tf.zeros([0, 2], tf.int64),
            tf.constant([value for _, value in present] if other == name else [], spec.dtype),
            tf.constant([len(column), 1], tf.int64),
        )
        for other, spec in SPECS.items()
    }
    expected = tf.function(function, autograph=False)(inputs).numpy().tolist()
    tokens = [result.replaced.get(v, b"%d" % v if is_number else v) for _, v in present]
    missing = [] if result.missing is None else [result.missing] * (len(column) - len(present))
    assert sorted([*tokens, *missing]) == sorted(expected)


def test_graph_is_probed_once_for_columns_that_are_treated_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Columns with other constants, or with other values to probe, need a run of their own."""

    def function(inputs: dict) -> dict:
        tokens = {name: dense(inputs[name], "") for name in "abc"}
        tokens["d"] = dense(inputs["d"], "?")
        tokens["e"] = tf.where(tf.equal(dense(inputs["e"], ""), "x"), "y", dense(inputs["e"], ""))
        tokens["f"] = tf.where(tf.equal(dense(inputs["f"], ""), "x"), "z", dense(inputs["f"], ""))
        return tokens

    runs, run_on = [], probes._run_on
    monkeypatch.setattr(probes, "_run_on", lambda *arguments: (runs.append(None), run_on(*arguments))[1])
    trace = Trace(function, {name: tf.SparseTensorSpec([None, None], tf.string) for name in "abcdef"}, tmp_path)
    substitutions = {name: substitution(trace, tensor, "abcdef") for name, tensor in trace.outputs.items()}
    same = {name: Substitution(name, "string", False, {}, b"") for name in "abc"}
    assert substitutions == same | {
        "d": Substitution("d", "string", False, {}, b"?"),
        "e": Substitution("e", "string", False, {b"x": b"y"}, b""),
        "f": Substitution("f", "string", False, {b"x": b"z"}, b""),
    }
    assert len(runs) == 4
