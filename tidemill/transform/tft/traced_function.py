"""Tracing a preprocessing_fn with TensorFlow Transform, once. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from tidemill.transform.tft import private
from tidemill.transform.tft.shortcuts import quick_ops, quick_trace, replaced

_TRAINABLE = tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES
OnTokens = Callable[[Mapping[str, Any], tf.Tensor], None]
"""Takes the raw inputs, as tensors of the graph that is being traced, and the tokens `[values]`."""


@dataclass
class Lookup:
    """A vocabulary lookup whose table is not made yet.

    TFT makes the table of a temporary file while it traces, takes its size for a constant, and traces anew for the
    table of the true file. Here `values` and `size` stand in for what the lookup will give.

    Attributes:
        construct: Makes the table, from the vocabulary file's path as an eager tensor.
        asset: The tensor of the sink that the vocabulary comes from.
        guard: The op by which the lookup depends on `asset`.
        keys: What is looked up.
        scope: The lookup's name scope.
    """

    construct: Callable[[tf.Tensor], Any]
    asset: tf.Tensor
    guard: tf.Operation
    keys: tf.Tensor
    values: tf.Tensor
    size: tf.Tensor
    scope: str


@dataclass
class TracedFunction:
    """A traced preprocessing_fn.

    Attributes:
        inputs: The placeholders of the raw inputs.
        returned: What the function returned, before tf.function wrapped it.
        outputs: What the graph's outputs are, in the same structure.
        lookups: Those that wait for their vocabulary, or did.
        token_filter: By the name of each tensor `[values]` of tokens that are counted by nothing but how often they
            occur, whether TFT leaves out empty tokens and those with a line break. The graph does not.
        module: What `tft.make_and_track_object` attached by name.
        resources: Tables and the like that the function made.
        objects: What `tft.make_and_track_object` made without a name.
        variables: The variables that the function made.
        trainable: Those among them that TFT refuses.
        empty: The tables that are not filled yet, by the id of their handles.
    """

    graph: private.FuncGraph
    inputs: dict[str, Any]
    returned: Any
    outputs: Any
    lookups: list[Lookup]
    token_filter: dict[str, bool]
    module: tf.Module
    resources: list[Any] = field(default_factory=list)
    objects: list[Any] = field(default_factory=list)
    variables: list[tf.Variable] = field(default_factory=list)
    trainable: list[tf.Variable] = field(default_factory=list)
    empty: dict[int, Any] = field(default_factory=dict)


def trace_function(
    preprocessing_fn: Callable[[Mapping[str, Any]], Any],
    specs: Mapping[str, tf.TypeSpec],
    work: Path,
    evaluated: Mapping[str, tf.Tensor],
    on_tokens: OnTokens | None = None,
) -> TracedFunction:
    """Traces a preprocessing_fn as TFT does, with lookups in vocabularies that are not known yet left open.

    Args:
        preprocessing_fn: The function.
        specs: Its inputs.
        work: A folder for the temporary assets that TFT writes.
        evaluated: The analyzers' results that are known, as eager tensors by the name of the analyzer's tensor.
        on_tokens: Told of the tokens of each vocabulary that is ordered by frequency, as soon as they are traced.
            Defaults to nobody.
    """
    module, returned = tf.Module(), []
    lookups: list[Lookup] = []
    token_filter: dict[str, bool] = {}
    given: dict[str, Any] = {}

    def recorded(inputs: Mapping[str, Any]) -> Any:
        given.update(inputs)
        returned.append(preprocessing_fn(inputs))
        return returned[-1]

    resources, objects, variables = private.ResourceTracker(), private.ObjectTracker(), []

    def create_variable(next_creator: Callable[..., tf.Variable], **arguments: Any) -> tf.Variable:
        variables.append(next_creator(**arguments))
        return variables[-1]

    def note(tokens: tf.Tensor, is_filtered: bool) -> None:
        token_filter[tokens.name] = is_filtered
        if on_tokens is not None:
            on_tokens(given, tokens)

    before = tf.compat.v1.get_collection(_TRAINABLE)
    context = private.TFGraphContext(module, str(work), dict(evaluated))
    with (
        quick_trace(),
        private.resource_tracker_scope(resources),
        private.object_tracker_scope(objects),
        tf.variable_creator_scope(create_variable),
        replaced(private.LOOKUPS, "construct_and_lookup_table", lambda original: _open_lookup(original, lookups)),
        replaced(private.ANALYZERS, "_get_vocabulary_analyzer_inputs", lambda original: _plain_tokens(original, note)),
    ):
        concrete = private.traced_function(recorded, dict(specs), context).get_concrete_function()
    # This collection is the process's, not the graph's: what one function adds, the next would be refused for.
    collection = concrete.graph.get_collection_ref(_TRAINABLE)
    trainable, collection[:] = [v for v in collection if not any(v is other for other in before)], before
    return TracedFunction(
        concrete.graph,
        dict(private.structured_inputs(concrete.graph)),
        returned[-1],
        concrete.structured_outputs,
        lookups,
        token_filter,
        module,
        list(resources.resources),
        list(objects.trackable_objects),
        variables,
        trainable,
    )


def close_lookup(traced: TracedFunction, waiting: Lookup, keys: tf.Tensor, path: Path) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes the table of a vocabulary file and looks up in it, in the graph of `traced`, which keeps the table.

    The table of a text file stays empty until `fill`: to save it, its content is not needed.

    Args:
        traced: What the lookup belongs to.
        waiting: The lookup.
        keys: What is looked up.
        path: The file.

    Returns:
        The values, and the table's size.
    """
    resources, objects = private.ResourceTracker(), private.ObjectTracker()
    scope = tf.compat.v1.name_scope(f"{waiting.scope}/" if waiting.scope else None)
    with quick_ops(), traced.graph.as_default(), scope:
        with tf.init_scope(), private.resource_tracker_scope(resources), private.object_tracker_scope(objects):
            with replaced(private.InitializableTable, "_initialize", lambda original: lambda table: None):
                table = waiting.construct(tf.constant(str(path)))
            tables = [r for r in resources.resources if isinstance(r, private.InitializableTable)]
            if all(isinstance(made._initializer, private.TextFileInitializer) for made in tables):
                traced.empty |= {id(made.resource_handle): made for made in tables}
                size = _lines(path) + getattr(table, "_num_oov_buckets", 0)
            else:
                for made in tables:
                    made._initialize()
                size = table.size().numpy()
        traced.resources.extend(resources.resources)
        traced.objects.extend(objects.trackable_objects)
        return table.lookup(keys), tf.constant(size, tf.int64)


def fill(traced: TracedFunction, handle: tf.Tensor) -> None:
    """Fills the table of this handle, if it is one that is empty."""
    if table := traced.empty.pop(id(handle), None):
        table._initialize()


def _lines(path: Path) -> int:
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")


def goes_elsewhere(asset: tf.Tensor, lookups: Sequence[Lookup]) -> bool:
    """Whether a vocabulary's path goes into anything but lookups that wait for it."""
    guards = {lookup.guard.name for lookup in lookups if lookup.asset is asset}
    return any(op.name not in guards for op in asset.consumers())


def replace_asset(graph: private.FuncGraph, asset: tf.Tensor, path: tf.Tensor) -> None:
    """Notes among the files that the graph needs the true path instead of the temporary one."""
    paths, temporary = private.asset_paths(graph), tf.get_static_value(asset)
    paths[:] = [path if other.numpy() == temporary else other for other in paths]


def _open_lookup(original: Callable[..., Any], lookups: list[Lookup]) -> Callable[..., Any]:
    """`tf_utils.construct_and_lookup_table`, which leaves TFT's own lookups in unknown vocabularies open."""

    def construct_and_lookup_table(
        construct_table_callable: Callable[[Any], Any], asset_filepath: Any, x: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        dtype = private.TABLE_VALUES.get(getattr(construct_table_callable, "__qualname__", ""))
        graph = tf.compat.v1.get_default_graph()
        if dtype is None or not any(asset_filepath is sink.tensor for sink in private.sinks(graph)):
            return original(construct_table_callable, asset_filepath, x)
        guard = tf.identity(asset_filepath)
        zero = tf.constant("0") if dtype == tf.string else tf.constant(0, dtype)
        with tf.control_dependencies([guard]):
            values = tf.fill(tf.shape(x), zero)
        values.set_shape(x.shape)
        size = tf.raw_ops.PlaceholderWithDefault(input=tf.constant(1, tf.int64), shape=[])
        scope = graph.get_name_scope()
        lookups.append(Lookup(construct_table_callable, asset_filepath, guard.op, x, values, size, scope))
        return values, size

    return construct_and_lookup_table


def _plain_tokens(original: Callable[..., Any], note: Callable[[tf.Tensor, bool], None]) -> Callable[..., Any]:
    """`analyzers._get_vocabulary_analyzer_inputs`, which tells of tokens that are only counted, and filters none."""

    def get_vocabulary_analyzer_inputs(
        vocab_ordering_type: int, x: Any, file_format: str, labels: Any, weights: Any
    ) -> list[tf.Tensor]:
        if vocab_ordering_type != private.FREQUENCY:
            return original(vocab_ordering_type, x, file_format, labels, weights)
        tokens = tf.reshape(private.tensor_values(x), [-1])
        note(tokens, private.filter_regex(x.dtype, file_format) is not None)
        return [tokens]

    return get_vocabulary_analyzer_inputs
