"""Token streams that are a raw column with some values replaced, which can be counted without running the graph.

Imports TensorFlow.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from tidemill.transform.apply.facts import ROWS, Elements, Facts, Level
from tidemill.transform.apply.probes import named_values, other_values, run_on
from tidemill.transform.tft import private

_DTYPES = {tf.string: "string", tf.int64: "int64", tf.float32: "float32"}


@dataclass(frozen=True)
class Substitution:
    """A stream of tokens that equals one raw column with some values replaced.

    A present value `v` becomes the token `replaced.get(v, v)`. `tidemill.transform.raw` defines which values are
    missing.

    Attributes:
        column: The raw column's name.
        dtype: The column's dtype, `string` or `int64`.
        as_string: Whether the tokens of an int64 column are its decimal digits. Otherwise they stay integers.
        replaced: Raw values (bytes or int) and their tokens (bytes, or int for integer tokens). Holds no value that is
            its own token.
        missing: The token of each row without a value; None if such rows have no token.
    """

    column: str
    dtype: str
    as_string: bool
    replaced: Mapping[bytes | int, bytes | int]
    missing: bytes | int | None


class TracedGraph(Protocol):
    """A traced preprocessing_fn, see `tft.trace.Trace`."""

    @property
    def graph(self) -> private.FuncGraph: ...

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    def ready(self, tensor: tf.Tensor) -> bool:
        """Returns whether a tensor can be computed."""
        ...


def substitution(trace: TracedGraph, tensor: tf.Tensor, flat: Collection[str]) -> Substitution | None:
    """Returns the substitution that turns a raw column into a stream of tokens.

    The graph's structure proves that all values are their own tokens, except those that the graph names. Their tokens
    come from running the graph.

    Args:
        trace: The trace of the tensor.
        tensor: The tokens, in any shape.
        flat: The names of the inputs that have at most one value per row.

    Returns:
        The substitution; None if the stream is not proven to be one.
    """
    facts, fact = _raw(trace, tensor, flat)
    if fact is None:
        return None
    (column,) = fact.columns
    dtype = _DTYPES[trace.inputs[column].dtype]
    if dtype == "float32" or not fact.is_total:
        return None
    named = named_values(facts, fact.sources, dtype, lambda table: None)
    if named is None:
        return None
    others = other_values(named, 2)
    raw = [*named.to_pylist(), *others]
    tokens, missing = run_on(trace.graph, trace.inputs[column], tensor, raw, fact.stream == ROWS)
    as_string = dtype == "int64" and tensor.dtype == tf.string
    own = [b"%d" % value for value in raw] if as_string else raw
    if tokens[-len(others) :] != own[-len(others) :]:
        return None
    replaced = {value: token for value, token, same in zip(raw, tokens, own, strict=True) if token != same}
    return Substitution(column, dtype, as_string, replaced, missing)


def _raw(trace: TracedGraph, tensor: tf.Tensor, flat: Collection[str]) -> tuple[Facts, Elements | None]:
    # Inputs that are not flat may be dense tensors, which cannot be hashed.
    facts = _facts(trace.graph, tuple((name, value) for name, value in trace.inputs.items() if name in flat))
    fact = facts.of(tensor) if trace.ready(tensor) else None
    if isinstance(fact, Elements) and fact.level is Level.RAW and len(fact.columns) == 1:
        return facts, fact
    return facts, None


@functools.lru_cache(maxsize=1)
def _facts(graph: tf.Graph, inputs: tuple[tuple[str, Any], ...]) -> Facts:
    return Facts(graph, dict(inputs), is_width_one=False)
