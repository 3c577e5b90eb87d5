"""The description of a transform graph that an engine has written: its inputs and outputs. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_transform as tft
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2, saved_object_graph_pb2, struct_pb2
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

from tidemill.errors import Code, TidemillError
from tidemill.transform.graph import RAW_METADATA, TRANSFORM_FN, GraphFacts, TransformedFeature
from tidemill.transform.raw import RawColumn

_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_TYPES = {"int64": schema_pb2.INT, "float32": schema_pb2.FLOAT, "string": schema_pb2.BYTES}


def describe(
    folder: Path,
    labels: Sequence[str],
    columns: Sequence[RawColumn],
    order: Sequence[str] | None,
    raw: schema_pb2.Schema,
) -> None:
    """Writes `metadata/` and `features.json` next to the engine's files.

    An output that TFT knows as a category (by a vocabulary or buckets) is an id. Every other output is a number.

    Args:
        folder: The folder with `transform_fn/` and `transformed_metadata/`.
        labels: The labels' names. An output with such a name is a label, not a feature.
        columns: The raw columns that the graph takes.
        order: The features' names in the order to list them. Defaults to the order of the transformed schema.
        raw: The examples' schema.

    Raises:
        TidemillError: `transform-failed` if the graph has no feature or no input, `leakage` if a feature is computed
            from a label, `unsupported` if the graph calls a Python function.
    """
    metadata_io.write_metadata(dataset_metadata.DatasetMetadata(_raw_schema(raw, columns)), str(folder / RAW_METADATA))
    outputs = {f.name: f for f in tft.TFTransformOutput(str(folder)).transformed_metadata.schema.feature}
    needed = needed_inputs(folder / TRANSFORM_FN)
    _refuse_python(folder / TRANSFORM_FN)
    names = [name for name in (order or outputs) if name not in labels]
    of_features = set().union(*(needed[name] for name in names))
    if label := next((label for label in labels if label in of_features), None):
        leaking = ", ".join(repr(name) for name in names if label in needed[name])
        got = f"a value computed from the label {label!r}"
        raise TidemillError(Code.LEAKAGE, f"output {leaking}", got, "compute it without the label")
    if not of_features:
        got = "outputs that depend on no column" if names else "no output except the label"
        raise TidemillError(Code.TRANSFORM_FAILED, "preprocessing_fn", got, "return at least one feature")
    computed = [label for label in labels if label in outputs]
    shifted = [name for name in names if _is_id(outputs[name]) and outputs[name].int_domain.min]
    GraphFacts(
        labels=list(labels),
        computed_labels={label: [c for c in columns if c.name in needed[label]] for label in computed},
        raw_columns=[column for column in columns if column.name in of_features],
        features=[_feature(outputs[name]) for name in names],
        offsets={name: -outputs[name].int_domain.min for name in shifted},
    ).write(folder)


def _refuse_python(saved_model: Path) -> None:
    """Rejects a graph that calls Python functions, which the SavedModel does not hold."""
    saved = saved_model_pb2.SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
        if node.op in _PYTHON_OPS:
            got = f"the Python function {node.name!r}, which a saved transform cannot hold"
            raise TidemillError(Code.UNSUPPORTED, "preprocessing_fn", got, "write it with TensorFlow's ops")


def _is_id(feature: schema_pb2.Feature) -> bool:
    return feature.HasField("int_domain") and feature.int_domain.is_categorical


def _feature(feature: schema_pb2.Feature) -> TransformedFeature:
    if not _is_id(feature):
        return {"name": feature.name, "kind": "number"}
    return {"name": feature.name, "kind": "id", "num_ids": feature.int_domain.max - feature.int_domain.min + 1}


def _raw_schema(given: schema_pb2.Schema, columns: Sequence[RawColumn]) -> schema_pb2.Schema:
    """Returns the schema of the raw columns, which keeps what the given schema says about them. All have variable
    length."""
    known = {feature.name: feature for feature in given.feature}
    schema = schema_pb2.Schema()
    for column in columns:
        feature = schema.feature.add()
        if column.name in known and known[column.name].type == _TYPES[column.dtype]:
            feature.CopyFrom(known[column.name])
            feature.ClearField("shape")
        feature.name, feature.type = column.name, _TYPES[column.dtype]
    return schema


_SAVED_MODEL = "saved_model.pb"
_FUNCTION = "transform_fn"


def needed_inputs(saved_model: Path) -> dict[str, set[str]]:
    """Returns the names of the inputs that each output of a transform graph is computed from.

    Reads only the file, in a tenth of the time of loading the model. Control dependencies do not count.

    Args:
        saved_model: The SavedModel's folder, as TensorFlow Transform writes it.
    """
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((saved_model / _SAVED_MODEL).read_bytes())
    graph = model.meta_graphs[0]
    name = _function_name(graph.object_graph_def)
    signature = graph.object_graph_def.concrete_functions[name]
    function = next(f for f in graph.graph_def.library.function if f.signature.name == name)
    # The signature's inputs are ((dict,), {}). Captured tensors come after them.
    inputs = list(_names(signature.canonicalized_input_signature.tuple_value.values[0].tuple_value.values[0]))
    arguments = dict(zip((argument.name for argument in function.signature.input_arg), inputs, strict=False))
    outputs = zip(_names(signature.output_signature), function.signature.output_arg, strict=True)
    nodes = {node.name: node for node in function.node_def}
    result: dict[str, set[str]] = {}
    for output, result_argument in outputs:
        sources = _sources(nodes, function.ret[result_argument.name])
        result.setdefault(output, set()).update(arguments[source] for source in sources if source in arguments)
    return result


def _function_name(objects: saved_object_graph_pb2.SavedObjectGraph) -> str:
    child = next(child for child in objects.nodes[0].children if child.local_name == _FUNCTION)
    node = objects.nodes[child.node_id]
    if node.WhichOneof("kind") == "function":
        return node.function.concrete_functions[0]
    return node.bare_concrete_function.concrete_function_name


def _names(features: struct_pb2.StructuredValue) -> Iterator[str]:
    """Yields the name of each feature in the function's order, once for each tensor that it consists of."""
    fields = features.dict_value.fields
    for name in sorted(fields):
        for _ in range(_tensors(fields[name])):
            yield name


def _tensors(spec: struct_pb2.StructuredValue) -> int:
    type_ = spec.type_spec_value
    if type_.type_spec_class == struct_pb2.TypeSpecProto.SPARSE_TENSOR_SPEC:
        return 3
    if type_.type_spec_class == struct_pb2.TypeSpecProto.RAGGED_TENSOR_SPEC:
        ragged_rank = type_.type_state.tuple_value.values[2]
        return 1 + ragged_rank.int64_value
    return 1


def _sources(nodes: Mapping[str, node_def_pb2.NodeDef], tensor: str) -> set[str]:
    """Returns the names of the arguments and nodes that a tensor of a function depends on."""
    seen: set[str] = set()
    stack = [tensor]
    while stack:
        name = stack.pop().split(":")[0]
        if name in seen:
            continue
        seen.add(name)
        if name in nodes:
            stack.extend(before for before in nodes[name].input if not before.startswith("^"))
    return seen
