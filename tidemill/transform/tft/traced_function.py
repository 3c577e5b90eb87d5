"""One trace of a preprocessing_fn with TensorFlow Transform. Imports TensorFlow."""

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
"""Called with the raw inputs, as tensors of the graph that is being traced, and the tokens `[values]`."""


@dataclass
class Lookup:
    """An open vocabulary lookup, whose table does not exist yet.

    TFT makes the table from a temporary file during the trace, uses its size as a constant, and traces again for the
    table of the final file. Here `values` and `size` are placeholders of the lookup's results.

    Attributes:
        construct: Makes the table from the vocabulary file's path, an eager tensor.
        asset: The tensor of the sink that the vocabulary comes from.
        guard: The op that makes the lookup depend on `asset`.
        keys: The keys to look up.
        values: Stands for the ids.
        size: Stands for the table's size.
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
        graph: The `FuncGraph`.
        inputs: The placeholders of the raw inputs.
        returned: The function's result, before tf.function wrapped it.
        outputs: The graph's outputs, in the same structure.
        lookups: The lookups that were open at the trace.
        token_filter: By the name of a tensor `[values]` of tokens that are only counted: whether TFT drops empty tokens
            and tokens with a line break. The graph does not drop them.
        module: Holds what `tft.make_and_track_object` attached by name.
        resources: Tables and similar resources that the function made.
        objects: Objects that `tft.make_and_track_object` made without a name.
        variables: The variables that the function made.
        trainable: Those among them that TFT rejects.
        empty: Tables that are not filled yet, by the id of their handles.
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
    preprocessing_fn: Callable[[dict[str, Any]], Any],
    specs: Mapping[str, tf.TypeSpec],
    work: Path,
    evaluated: Mapping[str, tf.Tensor],
    on_tokens: OnTokens | None = None,
) -> TracedFunction:
    """Traces a preprocessing_fn as TFT does, and leaves lookups in unknown vocabularies open.

    Args:
        preprocessing_fn: The function.
        specs: The types of its inputs.
        work: A folder for the temporary assets that TFT writes.
        evaluated: Known results of analyzers, as eager tensors by the name of the analyzer's tensor.
        on_tokens: Called with the tokens of each vocabulary ordered by frequency as soon as they are traced. Defaults
            to None.
    """
    module, returned = tf.Module(), []
    lookups: list[Lookup] = []
    token_filter: dict[str, bool] = {}
    placeholders: dict[str, Any] = {}

    def recording_fn(inputs: Any) -> Any:
        placeholders.update(inputs)
        returned.append(preprocessing_fn(inputs))
        return returned[-1]

    resources, objects, variables = private.ResourceTracker(), private.ObjectTracker(), []

    def create_variable(next_creator: Callable[..., tf.Variable], **arguments: Any) -> tf.Variable:
        variables.append(next_creator(**arguments))
        return variables[-1]

    def report(tokens: tf.Tensor, is_filtered: bool) -> None:
        token_filter[tokens.name] = is_filtered
        if on_tokens is not None:
            on_tokens(placeholders, tokens)

    before = tf.compat.v1.get_collection(_TRAINABLE)
    context = private.TFGraphContext(module, str(work), dict(evaluated))
    with (
        quick_trace(),
        private.resource_tracker_scope(resources),
        private.object_tracker_scope(objects),
        tf.variable_creator_scope(create_variable),
        replaced(private.LOOKUPS, "construct_and_lookup_table", lambda f: _open_lookup(f, lookups)),
        replaced(private.ANALYZERS, "_get_vocabulary_analyzer_inputs", lambda f: _plain_tokens(f, report)),
    ):
        concrete: Any = private.traced_function(recording_fn, dict(specs), context).get_concrete_function()
    # This collection belongs to the process, not to the graph. Variables of one function must not make TFT reject the
    # next.
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


def close_lookup(traced: TracedFunction, lookup: Lookup, keys: tf.Tensor, path: Path) -> tuple[tf.Tensor, tf.Tensor]:
    """Builds the lookup table of a vocabulary file in the graph of `traced` and looks up keys in it.

    `traced` keeps the table alive. The table of a text file stays empty until `fill`: the graph can be saved without
    its entries.

    Args:
        traced: The function that the lookup belongs to.
        lookup: The lookup to close.
        keys: The keys to look up.
        path: The vocabulary file.

    Returns:
        The values and the table's size.
    """
    resources, objects = private.ResourceTracker(), private.ObjectTracker()
    scope = tf.compat.v1.name_scope(f"{lookup.scope}/" if lookup.scope else None)
    with quick_ops(), traced.graph.as_default(), scope:
        with tf.init_scope(), private.resource_tracker_scope(resources), private.object_tracker_scope(objects):
            with replaced(private.InitializableTable, "_initialize", lambda original: lambda table: None):
                table = lookup.construct(tf.constant(str(path)))
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
    """Fills the table of this handle if it is empty."""
    if table := traced.empty.pop(id(handle), None):
        table._initialize()


def _lines(path: Path) -> int:
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")


def has_other_uses(asset: tf.Tensor, lookups: Sequence[Lookup]) -> bool:
    """Returns whether a vocabulary's path is used by anything except open lookups."""
    guards = {lookup.guard.name for lookup in lookups if lookup.asset is asset}
    return any(op.name not in guards for op in asset.consumers())


def replace_asset(graph: private.FuncGraph, asset: tf.Tensor, path: tf.Tensor) -> None:
    """Replaces the temporary path by the final one in the list of files that the graph needs."""
    paths, temporary = private.asset_paths(graph), tf.get_static_value(asset)
    paths[:] = [path if other.numpy() == temporary else other for other in paths]


def _open_lookup(original: Callable[..., Any], lookups: list[Lookup]) -> Callable[..., Any]:
    """Returns a `tf_utils.construct_and_lookup_table` that leaves TFT's own lookups in unknown vocabularies open."""

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


def _plain_tokens(original: Callable[..., Any], report: Callable[[tf.Tensor, bool], None]) -> Callable[..., Any]:
    """Returns an `analyzers._get_vocabulary_analyzer_inputs` that reports tokens that are only counted and filters
    none."""

    def get_vocabulary_analyzer_inputs(
        vocab_ordering_type: int, x: Any, file_format: Any, labels: Any, weights: Any
    ) -> list[tf.Tensor]:
        if vocab_ordering_type != private.FREQUENCY:
            return original(vocab_ordering_type, x, file_format, labels, weights)
        tokens = tf.reshape(private.tensor_values(x), [-1])
        report(tokens, private.filter_regex(x.dtype, file_format) is not None)
        return [tokens]

    return get_vocabulary_analyzer_inputs
