"""One trace of a preprocessing_fn: what it wants analysed, and its graph, into which the results are bound.

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
"""A graph below this size is traced twice, to find out whether the function calls its analyzers in the same order each
time, as Beam needs it. A larger one is traced once, which such a function does not hurt."""


@dataclass(frozen=True)
class Sink:
    """A tensor whose value an analysis gives.

    Attributes:
        name: The tensor's name; stays the same when the function is traced anew.
        tensor: The tensor.
        node: TFT's node of the value: how it is computed.
        is_asset: Whether the value is the path of a file.
    """

    name: str
    tensor: tf.Tensor
    node: private.ValueNode
    is_asset: bool


class Trace:
    """A traced preprocessing_fn.

    `bind` may trace the function anew, where a vocabulary file goes elsewhere than into TFT's own lookup; `graph`,
    `inputs`, `outputs` and `sinks` are new objects then. Read them again after each `bind`.

    Args:
        preprocessing_fn: The function, as TFT takes it.
        specs: What its inputs are.
        work: An existing folder for vocabularies and temporary files, as long as the trace is in use.
        on_tokens: See `trace_function`. Defaults to None.

    Attributes:
        graph: The `FuncGraph`.
        inputs: The raw inputs' placeholders, by name.
        outputs: The transformed features, by name.
        sinks: Those that are not bound, in the order in which the function made them.
        token_filter: See `traced_function.Traced`.
        digests: What `fingerprint` remembers until the next `bind`.

    Raises:
        TidemillError: `unsupported` for an analyzer that is a Beam PTransform.
        ValueError: The function does not return a dict of tensors, or has trainable variables.
    """

    def __init__(
        self,
        preprocessing_fn: Callable[[Mapping[str, TensorType]], Any],
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
        self._values: dict[str, np.ndarray | Path] = {}
        self._known: dict[str, Sink] = {}
        self.digests: dict[str, str] = {}
        self._ready: dict[str, bool] = {}
        """What `ready` remembers until the next `bind`, as `_waiting` does."""
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
        """A new path for a vocabulary file, whose name is the one that TFT gives it.

        Args:
            filename: The analyzer's `vocab_filename`.
            file_format: `text` or `tfrecord_gzip`.
        """
        folder = self._work / f"vocabulary_{self._vocabularies}"
        folder.mkdir()
        self._vocabularies += 1
        return folder / (f"{filename}.tfrecord.gz" if file_format == "tfrecord_gzip" else filename)

    def ready(self, tensor: tf.Tensor) -> bool:
        """Whether a tensor depends on no sink that is not bound."""
        tensor = self.current(tensor)
        if not self._ready:
            self._waiting = {sink.tensor.op.name for sink in self.sinks}
            self._waiting |= {lookup.size.op.name for lookup in self.traced.lookups}
        if tensor.name not in self._ready:
            self._ready[tensor.name] = not any(op.name in self._waiting for op in private.ancestors([tensor]))
        return self._ready[tensor.name]

    def bind(self, values: Mapping[str, np.ndarray | Path]) -> None:
        """Gives sinks their values; what depends on them can be computed afterwards.

        Args:
            values: By sink name an array of the sink's dtype, or the path of the file that was written. Each is asked
                for when it is needed, in the order of the sinks.
        """
        names = set(values)
        if unknown := names - {sink.name for sink in self.sinks}:
            raise ValueError(f"no open sinks: {sorted(unknown)}")
        self.digests.clear()
        self._ready.clear()
        bound = [sink for sink in self.sinks if sink.name in names]
        if any(sink.is_asset and traced_function.goes_elsewhere(sink.tensor, self.traced.lookups) for sink in bound):
            self._values.update(values)
            self.retrace()
            return
        for sink in bound:
            self._values[sink.name] = value = values[sink.name]
            if sink.is_asset:
                self._bind_asset(sink, Path(value))
            else:
                # Captured as TFT's own final trace does: TensorFlow would turn a division by a constant of the graph
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
        """What stands for a tensor of the trace after what has been bound."""
        return self._replaced.get(tensor.name, tensor)

    def function(self, fetches: Sequence[tf.Tensor], feeds: Sequence[tf.Tensor] = ()) -> GraphFunction:
        """A function that computes tensors of the graph.

        Args:
            fetches: The tensors. Each must be ready.
            feeds: Tensors at which to cut the graph, given by the caller.
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
        """The tokens that a vocabulary reserves: `[tokens]` bytes.

        Args:
            name: The node's `name`: the vocabulary's file name.
        """
        return self.evaluate([private.reserved_tokens(self.graph, name)])[0]

    def evaluate(self, tensors: Sequence[tf.Tensor]) -> list[np.ndarray]:
        """The values of tensors that depend on no row; where one does, of one row of zeros and empty strings."""
        if not tensors:
            return []
        function = self.function(list(tensors))
        return [value.numpy() for value in function(private.missing_inputs(self.inputs, function.inputs))]

    def retrace(self) -> None:
        """Traces the function anew, with what is bound, as TFT does before it saves."""
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
        found = private.sinks(self.graph)
        self.sinks = [Sink(s.tensor.name, s.tensor, s.future, s.is_asset_filepath) for s in found]
        self._known |= {sink.name: sink for sink in self.sinks}
        self._replaced: dict[str, tf.Tensor] = {}
        self._ready.clear()

    def _input_sources(self) -> dict[str, frozenset[str]]:
        """By the name of each analyzer's result the raw inputs that it depends on, through lookups that wait too."""
        keys = {lookup.values.op.name: lookup.keys for lookup in self.traced.lookups}
        names = {part.op.name: name for name, value in self.inputs.items() for part in parts(value)}

        def inputs_of(tensors: Sequence[tf.Tensor]) -> frozenset[str]:
            seen: set[str] = set()
            while tensors:
                found = {op.name for op in private.ancestors(tensors)} - seen
                seen |= found
                tensors = [keys[name] for name in found if name in keys]
            return frozenset(names[name] for name in seen if name in names)

        return {name: inputs_of(tensors) for name, tensors in private.sources(self.graph).items()}


def _check_outputs(traced: TracedFunction) -> None:
    """Refuses what a preprocessing_fn must not return, as TFT does on Beam.

    Raises:
        ValueError: no dict, an empty one, a dtype or shape that no feature can have, or trainable variables.
        TypeError: an output that is no tensor.
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
