"""Warm start: initializes a training run from an earlier model's weights.

Embeddings are matched by token: a token's vector is copied to its row in the new table if both vectors have the same
size. Other weights are copied if both models have the same features, and either the same labels or one label each;
each of them only if its shape is the same.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from pydantic import ValidationError

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.artifacts.model import PUBLISHED, ModelDocument
from tidemill.errors import Code, TidemillError
from tidemill.models.core.inputs import Layout, TableSizes
from tidemill.models.core.neural import NeuralModel, embeddings_of, tables_of
from tidemill.models.core.registry import ENSEMBLE, new_model, parse_config
from tidemill.transform.features_function import vocabulary_name
from tidemill.transform.graph import TRANSFORM_FN, TransformGraph

WHERE = "training.warm_start"


class EarlierModel:
    """A published network whose weights initialize another one. Imports TensorFlow.

    Args:
        uri: Folder of a published version.

    Attributes:
        layout: Its features and labels.
        network: The network with its weights.
        vocabularies: The tokens of id features, in the order of their ids.

    Raises:
        TidemillError: `no-model` if the folder has no published model, `incomplete-artifact`, `invalid-value` for a
            model that is not one network, and `unsupported` if this version cannot read the model.
    """

    def __init__(self, uri: str):
        if not storage.exists(storage.join(uri, storage.MANIFEST)):
            got, want = f"{uri!r}, where no model is published", "name a published model"
            raise TidemillError(Code.NO_MODEL, WHERE, got, want)
        with tempfile.TemporaryDirectory(prefix="tidemill-warm-") as scratch:
            path = storage.local_path(uri)
            if path is None:
                path = Path(scratch) / "model"
                storage.download_folder(uri, path)
            artifact.open_folder(path)
            document = ModelDocument.read(path / PUBLISHED)
            try:
                config = parse_config(document.config)
            except ValidationError as error:
                got = f"{uri!r}, a model that this version cannot read: {error.errors()[0]['msg']}"
                raise TidemillError(Code.UNSUPPORTED, WHERE, got, "name a model of this version") from error
            self.layout = Layout.of(document.features, document.labels)
            model = None if document.config["family"] == ENSEMBLE else new_model(config, self.layout)
            if not isinstance(model, NeuralModel):
                got = f"{uri!r}, a model of family {document.family}"
                raise TidemillError(Code.INVALID_VALUE, WHERE, got, "name a model that is one network")
            assert document.embeddings is not None
            self.network = model.build(_saved_sizes(document.embeddings["features"], self.layout))
            _load_weights(self.network, path)
            self.vocabularies = read_vocabularies(path / "assets", self.layout)


def transfer(earlier: EarlierModel, network: keras.Model, layout: Layout, graph: TransformGraph) -> dict[str, Any]:
    """Transfers weights of an earlier network to a new one.

    Args:
        earlier: The earlier model.
        network: The new network.
        layout: Its features and labels.
        graph: The transform graph of its features.

    Returns:
        JSON for the model's document: `features`, with `rows` and `words` for each feature whose vectors were
        transferred: the number of its table's rows that were set, and how many of its tokens the earlier vocabulary
        has; and `weights`, the number of other variables that were transferred.
    """
    vocabularies = read_vocabularies(graph.path / TRANSFORM_FN / "assets", layout)
    features: dict[str, dict[str, int]] = {}
    for layer in embeddings_of(network):
        old = next((other for other in embeddings_of(earlier.network) if other.name == layer.name), None)
        if old is None:
            continue
        tables = [variable.numpy() for variable in layer.tables_by_size]
        for i, name in enumerate(layout.ids):
            if layer.tables[i] != i or name not in earlier.layout.ids:
                continue
            old_index = earlier.layout.ids.index(name)
            if old.dims[old_index] != layer.dims[i]:
                continue
            matches = _match_ids(
                earlier.vocabularies.get(name),
                vocabularies.get(name),
                earlier.layout.num_ids[old_index],
                layout.num_ids[i],
            )
            if matches is None:
                continue
            old_ids, words = matches
            ids = np.flatnonzero(old_ids >= 0)[::-1]  # reversed: of the ids that share a row, the first one decides
            source = old.tables_by_size[old.table_of(old_index)].numpy()[old.rows_of(old_index)[old_ids[ids]]]
            target = layer.rows_of(i)[ids]
            tables[layer.table_of(i)][target] = source
            features[name] = {"rows": len(np.unique(target)), "words": int(words)}
        for variable, table in zip(layer.tables_by_size, tables, strict=True):
            variable.assign(table)
    return {"features": features, "weights": _transfer_dense(earlier, network, layout)}


def read_vocabularies(assets: Path, layout: Layout) -> dict[str, list[bytes]]:
    """Reads the vocabularies of id features, in the order of their ids.

    Finds those of `features`, and those of a transform module whose file has the feature's name.
    """
    vocabularies = {}
    files = {path.name: path for path in assets.iterdir()} if assets.is_dir() else {}
    for name in layout.ids:
        pattern = re.compile(r"vocabulary_\d{3}_" + re.escape(vocabulary_name(0, name).split("_", 2)[2]))
        matching = [file for file in files if file == name or pattern.fullmatch(file)]
        if len(matching) == 1:
            vocabularies[name] = files[matching[0]].read_bytes().split(b"\n")[:-1]
    return vocabularies


def _match_ids(
    old: list[bytes] | None, new: list[bytes] | None, old_ids: int, new_ids: int
) -> tuple[np.ndarray, int] | None:
    """Matches new ids with old ones.

    Returns:
        For each new id the old id whose vector it gets, or -1; and the number of new tokens in the old vocabulary.
        None if the ids cannot be matched.
    """
    if old is None or new is None:
        return (np.arange(new_ids), new_ids) if old is new and old_ids == new_ids else None
    id_of = {word: i for i, word in enumerate(old)}
    ids = np.full(new_ids, -1, np.int64)
    ids[: len(new)] = [id_of.get(word, -1) for word in new]
    words = int(np.sum(ids[: len(new)] >= 0))
    if old_ids > len(old):
        # For the earlier model, a new token was out of vocabulary.
        ids[ids < 0] = len(old)
        if old_ids - len(old) == new_ids - len(new):
            ids[len(new) :] = np.arange(len(old), old_ids)
    return ids, words


def _saved_sizes(features: Mapping[str, Mapping[str, Any]], layout: Layout) -> TableSizes:
    """Returns the table sizes that a model's document lists. Slots are zeros, to be overwritten by the weights."""
    entries = [features[name] for name in layout.ids]
    tables = [layout.ids.index(entry.get("table_of", name)) for name, entry in zip(layout.ids, entries, strict=True)]
    cut = any(entry["rows"] < entry["ids"] for entry in entries)
    slots = tuple(np.zeros(entry["ids"], np.int32) for entry in entries) if cut else ()
    dims, rows = (tuple(entry[key] for entry in entries) for key in ("dim", "rows"))
    return TableSizes(dims, rows, tuple(tables), dims, slots)


def _load_weights(network: keras.Model, path: Path) -> None:
    """Loads the weights of a published network: a SavedModel lists them in the network's order."""
    import tensorflow as tf

    if keras.config.backend() != "tensorflow":
        # TensorFlow would take the memory of the GPU that the other framework trains on.
        tf.config.set_visible_devices([], "GPU")
    checkpoint = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    for i, variable in enumerate(network.variables):
        variable.assign(checkpoint.get_tensor(f"_variables/{i}/.ATTRIBUTES/VARIABLE_VALUE"))


def _transfer_dense(earlier: EarlierModel, network: keras.Model, layout: Layout) -> int:
    """Transfers the weights other than embedding tables, and returns their number."""
    if earlier.layout.columns != layout.columns:
        return 0
    labels, old_labels = layout.labels, earlier.layout.labels
    if labels != old_labels and not len(labels) == len(old_labels) == 1:
        return 0  # only the family knows which weight belongs to which label
    old, new = _dense(earlier.network), _dense(network)
    if earlier.network.name == network.name and [*map(_kind, old)] == [*map(_kind, new)]:
        # Equal structures. Paths would not match, because Keras numbers unnamed layers throughout a process.
        pairs = list(zip(new, old, strict=True))
    else:
        by_path = {variable.path: variable for variable in old}
        pairs = [(variable, by_path[variable.path]) for variable in new if variable.path in by_path]
    pairs = [(variable, other) for variable, other in pairs if variable.shape == other.shape]
    for variable, other in pairs:
        variable.assign(other.numpy())
    return len(pairs)


def _dense(network: keras.Model) -> list[keras.Variable]:
    """Returns the trainable variables other than embedding tables."""
    tables = {id(table) for table in tables_of(network)}
    return [variable for variable in network.trainable_variables if id(variable) not in tables]


def _kind(variable: keras.Variable) -> tuple[str, tuple[int, ...]]:
    return variable.name, tuple(variable.shape)
