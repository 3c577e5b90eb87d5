"""The trace of a preprocessing_fn: the analyzes it requests, and its graph, into which their results are bound.

Imports TensorFlow.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tidemill.errors import Code, TidemillError
from tidemill.transform.tft import private, traced_function
from tidemill.transform.tft.subgraph import GraphFunction, Subgraph, TensorType, parts
from tidemill.transform.tft.traced_function import TracedFunction

_CHECKED_OPS = 500
"""Smaller graphs are traced twice, to check that the function calls its analyzers in the same order each time, as Beam
requires. Larger graphs are traced once, where the order does not matter."""


@dataclass(frozen=True)
class Sink:
    """A tensor whose value an analysis computes.

    Attributes:
        name: The tensor's name; the same in each trace of the function.
        tensor: The tensor.
        node: TFT's node of the value, which describes how it is computed.
        is_asset: Whether the value is the path of a file.
    """

    name: str
    tensor: tf.Tensor
    node: private.ValueNode
    is_asset: bool


class Trace:
    """A traced preprocessing_fn.

    `bind` traces the function again if a vocabulary file is used by anything except TFT's own lookup. Then `graph`,
    `inputs`, `outputs` and `sinks` are new objects, so read them again after each `bind`.

    Args:
        preprocessing_fn: The function, as TFT takes it.
        specs: The types of its inputs.
        work: An existing folder for vocabularies and temporary files. It must exist as long as the trace is used.
        on_tokens: See `trace_function`. Defaults to None.

    Attributes:
        graph: The `FuncGraph`.
        inputs: The raw inputs' placeholders, by name.
        outputs: The transformed features, by name.
        sinks: The sinks that are not bound, in the order in which the function made them.
        token_filter: See `TracedFunction`.
        digests: Cache of `fingerprint`, cleared by `bind`.

    Raises:
        TidemillError: `unsupported` for an analyzer that is a Beam PTransform.
        ValueError: The function does not return a dict of tensors, or has trainable variables.
    """

    def __init__(
        self,
        preprocessing_fn: Callable[[dict[str, Any]], Any],
        specs: Mapping[str, tf.TypeSpec],
        work: Path,
        on_tokens: traced_function.OnTokens | None = None,
    ):
        if not specs:
            raise ValueError("The input metadata is empty.")
        self.specs = dict(specs)
        self._function = preprocessing_fn
        self._work = Path(work) / uuid.uuid4().hex
        self._work.mkdir()
        self._vocabularies = 0
        self._values: dict[str, Any] = {}
        self._known: dict[str, Sink] = {}
        self.digests: dict[str, str] = {}
        self._ready: dict[str, bool] = {}
        """Cache of `ready`, like `_waiting`; cleared by `bind`."""
        self._waiting: set[str] = set()
        self._sources: dict[str, frozenset[str]] | None = None
        self._trace(on_tokens)
        if len(self.graph.get_operations()) < _CHECKED_OPS:
            self.retrace()
        _check_outputs(self.traced)
        for sink in self.sinks:
            _refuse_ptransforms(sink.node)

    @property
    def graph(self) -> private.FuncGraph:
        return self.traced.graph

    @property
    def inputs(self) -> dict[str, TensorType]:
        return self.traced.inputs

    @property
    def outputs(self) -> dict[str, TensorType]:
        return self.traced.outputs

    @property
    def token_filter(self) -> dict[str, bool]:
        return self.traced.token_filter

    def vocabulary_path(self, filename: str, file_format: str) -> Path:
        """Returns a new path for a vocabulary file with the name that TFT uses.

        Args:
            filename: The analyzer's `vocab_filename`.
            file_format: `text` or `tfrecord_gzip`.
        """
        folder = self._work / f"vocabulary_{self._vocabularies}"
        folder.mkdir()
        self._vocabularies += 1
        return folder / (f"{filename}.tfrecord.gz" if file_format == "tfrecord_gzip" else filename)

    def ready(self, tensor: tf.Tensor) -> bool:
        """Returns whether a tensor depends on no unbound sink."""
        tensor = self.current(tensor)
        if not self._ready:
            self._waiting = {sink.tensor.op.name for sink in self.sinks}
            self._waiting |= {lookup.size.op.name for lookup in self.traced.lookups}
        if tensor.name not in self._ready:
            self._ready[tensor.name] = not any(op.name in self._waiting for op in private.ancestors([tensor]))
        return self._ready[tensor.name]

    def bind(self, values: Mapping[str, Any]) -> None:
        """Sets the values of sinks. Tensors that depend on them can be computed afterwards.

        Args:
            values: By sink name, an array of the sink's dtype or the path of the written file. Values are read one
                after the other, in the order of the sinks, when they are needed.
        """
        names = set(values)
        if unknown := names - {sink.name for sink in self.sinks}:
            raise ValueError(f"no open sinks: {sorted(unknown)}")
        self.digests.clear()
        self._ready.clear()
        bound = [sink for sink in self.sinks if sink.name in names]
        if any(sink.is_asset and traced_function.has_other_uses(sink.tensor, self.traced.lookups) for sink in bound):
            self._values.update(values)
            self.retrace()
            return
        for sink in bound:
            self._values[sink.name] = value = values[sink.name]
            if sink.is_asset:
                self._bind_asset(sink, Path(value))
            else:
                # Captured, as in TFT's own final trace. TensorFlow would turn a division by a constant of the graph
                # into a product with its rounded inverse.
                eager = tf.constant(value, sink.tensor.dtype)
                with self.graph.as_default():
                    self._replace(sink.tensor, self.graph.capture(eager))
        self.sinks = [sink for sink in self.sinks if sink.name not in names]

    def _bind_asset(self, sink: Sink, path: Path) -> None:
        traced_function.replace_asset(self.graph, sink.tensor, tf.constant(str(path)))
        for lookup in self.traced.lookups:
            if lookup.asset is sink.tensor:
                values, size = traced_function.close_lookup(self.traced, lookup, self.current(lookup.keys), path)
                self._replace(lookup.values, values)
                self._replace(lookup.size, size)

    def _replace(self, old: tf.Tensor, new: tf.Tensor) -> None:
        private.rewire(old, new)
        self._replaced[old.name] = new

    def current(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns the tensor that replaces a tensor of the trace after `bind`."""
        return self._replaced.get(tensor.name, tensor)

    def function(self, fetches: Sequence[tf.Tensor], feeds: Sequence[tf.Tensor] = ()) -> GraphFunction:
        """Returns a function that computes tensors of the graph.

        Args:
            fetches: The tensors. Each must be ready.
            feeds: Tensors at which the graph is cut, whose values the caller passes.
        """
        fetches, cut = [self.current(tensor) for tensor in fetches], {tensor.name for tensor in feeds}
        needed = {op.name for op in private.ancestors(fetches, cut)}
        names = [name for name, value in self.inputs.items() if any(p.op.name in needed for p in parts(value))]
        for outer, inner in self.graph.captures:
            if inner.op.name in needed:
                traced_function.fill(self.traced, outer)
        placeholders = [part for name in names for part in parts(self.inputs[name])]
        return GraphFunction(Subgraph(self.graph, [*placeholders, *feeds], fetches), names, feeds)

    def reserved_tokens(self, name: str) -> np.ndarray:
        """Returns the tokens that a vocabulary reserves: `[tokens]` bytes.

        Args:
            name: The node's `name`: the vocabulary's file name.
        """
        return self.evaluate([private.reserved_tokens(self.graph, name)])[0]

    def evaluate(self, tensors: Sequence[tf.Tensor]) -> list[np.ndarray]:
        """Returns the values of tensors that depend on no row.

        A tensor that depends on rows is computed for one row of zeros and empty strings.
        """
        if not tensors:
            return []
        function = self.function(list(tensors))
        return [value.numpy() for value in function(private.missing_inputs(self.inputs, function.inputs))]

    def retrace(self) -> None:
        """Traces the function again with the bound values, as TFT does before it saves."""
        self._trace()

    def _trace(self, on_tokens: traced_function.OnTokens | None = None) -> None:
        evaluated = {}
        for name, value in self._values.items():
            sink = self._known[name]
            evaluated[name] = tf.constant(str(value) if sink.is_asset else value, sink.tensor.dtype)
        self.traced = traced_function.trace_function(self._function, self.specs, self._work, evaluated, on_tokens)
        sources = self._input_sources()
        if self._sources is not None and sources != self._sources:
            moved = sorted(set(sources.items()) ^ set(self._sources.items()))[0][0]
            raise RuntimeError(
                f"The order of analyzers in your `preprocessing_fn` appears to be non-deterministic: {moved!r} is not"
                " computed from the same columns each time. Call analyzers in the same order, or name each."
            )
        self._sources = sources
        sinks = private.sinks(self.graph)
        self.sinks = [Sink(s.tensor.name, s.tensor, s.future, s.is_asset_filepath) for s in sinks]
        self._known |= {sink.name: sink for sink in self.sinks}
        self._replaced: dict[str, tf.Tensor] = {}
        self._ready.clear()

    def _input_sources(self) -> dict[str, frozenset[str]]:
        """Returns the raw inputs that each analyzer's result depends on, by the result's name. Follows open lookups."""
        keys = {lookup.values.op.name: lookup.keys for lookup in self.traced.lookups}
        names = {part.op.name: name for name, value in self.inputs.items() for part in parts(value)}

        def inputs_of(tensors: Sequence[tf.Tensor]) -> frozenset[str]:
            seen: set[str] = set()
            while tensors:
                new = {op.name for op in private.ancestors(tensors)} - seen
                seen |= new
                tensors = [keys[name] for name in new if name in keys]
            return frozenset(names[name] for name in seen if name in names)

        return {name: inputs_of(tensors) for name, tensors in private.sources(self.graph).items()}


def _check_outputs(traced: TracedFunction) -> None:
    """Rejects outputs that a preprocessing_fn must not return, as TFT does on Beam.

    Raises:
        ValueError: Outputs that are not a dict, an empty dict, a dtype or shape that no feature can have, or trainable
            variables.
        TypeError: An output that is not a tensor.
    """
    outputs = traced.outputs
    if not isinstance(outputs, dict):
        want = "Dict[str, Union[tf.Tensor, tf.SparseTensor, tf.RaggedTensor]]"
        raise ValueError(f"A `preprocessing_fn` must return a {want}. Got: {outputs}")
    if not outputs:
        raise ValueError("The preprocessing function returned an empty dict")
    if traced.trainable:
        raise ValueError(f"The preprocessing function contained trainable variables {traced.trainable}")
    private.infer_schema(outputs, {}, {}, [], None, is_evaluation_complete=False)


def _refuse_ptransforms(node: private.ValueNode) -> None:
    operation = node.parent_operation
    if private.is_ptransform(operation.operation_def):
        got = f"an analyzer that is a Beam PTransform ({operation.operation_def.label})"
        raise TidemillError(Code.UNSUPPORTED, "preprocessing_fn", got, "use the beam engine, which can run it")
    for value in operation.inputs:
        _refuse_ptransforms(value)
