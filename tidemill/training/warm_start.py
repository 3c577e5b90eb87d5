"""Beginning a training with what an earlier model has learned. Imports TensorFlow where it reads the model's weights.

Embeddings are matched by word: the vector of a token goes to where the token is in the new vocabulary. Other weights
are taken over where the features are the same ones, and the labels too or one on both sides, whatever it is called.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
from pydantic import ValidationError

from tidemill import models, storage
from tidemill.artifacts import artifact
from tidemill.errors import Code, TidemillError
from tidemill.models.core.family import Network
from tidemill.models.core.inputs import Layout
from tidemill.models.core.layers import Embeddings
from tidemill.models.core.sizes import Sizes
from tidemill.transform.features_function import vocabulary_name
from tidemill.transform.graph import TRANSFORM_FN, TransformGraph

WHERE = "training.warm_start"


class Earlier:
    """A published model to begin with.

    Args:
        uri: Folder of a published version.

    Raises:
        TidemillError: `no-model` where nothing is there, `incomplete-artifact`, `invalid-value` for a model that is no
            single network, and `unsupported` for one of another version whose family differs.
    """

    def __init__(self, uri: str):
        if not storage.exists(storage.join(uri, artifact.MANIFEST)):
            raise TidemillError(Code.NO_MODEL, WHERE, f"{uri!r}, where no model is published", "name a published one")
        with tempfile.TemporaryDirectory(prefix="tidemill-warm-") as scratch:
            path = storage.local_path(uri)
            if path is None:
                path = Path(scratch) / "model"
                storage.download_folder(uri, path)
            artifact.open_folder(path)
            document = json.loads((path / "tidemill" / models.DOCUMENT).read_text(encoding="utf-8"))
            try:
                config = models.config_of(document["config"])
            except ValidationError as error:
                got = f"{uri!r}, a model that this version cannot read: {error.errors()[0]['msg']}"
                raise TidemillError(Code.UNSUPPORTED, WHERE, got, "name one of this version") from error
            # Models of earlier versions have one label, and name it otherwise.
            self.layout = Layout.of(document["features"], document.get("labels") or [document["label"]])
            model = config.open(self.layout) if document["config"]["family"] != "ensemble" else None
            if not isinstance(getattr(model, "config", None), Network):
                got = f"{uri!r}, a model of family {document['family']}"
                raise TidemillError(Code.INVALID_VALUE, WHERE, got, "begin with a model that is one network")
            found = _sizes(document["embeddings"]["features"], self.layout)
            self.network: keras.Model = model.build(found)
            _load(self.network, path)
            self.vocabularies = vocabularies(path / "assets", self.layout)


def take_over(earlier: Earlier, network: keras.Model, layout: Layout, graph: TransformGraph) -> dict:
    """Puts what the earlier network has learned into a new one.

    Args:
        earlier: The earlier model.
        network: The new network.
        layout: Its features.
        graph: The transform graph that makes them.

    Returns:
        JSON for the model's document: `features`, for each whose vectors were taken over `rows` and `words`, the number
        of its table's rows that come from the earlier one, and of those that are of the same word; `weights`, how many
        others were taken over.
    """
    found = vocabularies(graph.path / TRANSFORM_FN / "assets", layout)
    report: dict[str, dict[str, int]] = {}
    for layer in _embeddings(network):
        old = next((other for other in _embeddings(earlier.network) if other.name == layer.name), None)
        if old is None:
            continue
        tables = [variable.numpy() for variable in layer.weights_of]
        for place, name in enumerate(layout.ids):
            if layer.tables[place] != place or name not in earlier.layout.ids:
                continue
            at = earlier.layout.ids.index(name)
            if old.dims[at] != layer.dims[place]:
                continue
            ids = _matches(
                earlier.vocabularies.get(name), found.get(name), earlier.layout.num_ids[at], layout.num_ids[place]
            )
            if ids is None:
                continue
            ids, words = ids
            taken = np.flatnonzero(ids >= 0)[::-1]  # of ids that share a row, the first decides
            source = old.weights_of[_group(old, at)].numpy()[old.rows_of(at)[ids[taken]]]
            target = layer.rows_of(place)[taken]
            tables[_group(layer, place)][target] = source
            report[name] = {"rows": len(np.unique(target)), "words": int(words)}
        for variable, table in zip(layer.weights_of, tables, strict=True):
            variable.assign(table)
    return {"features": report, "weights": _take_weights(earlier, network, layout)}


def vocabularies(assets: Path, layout: Layout) -> dict[str, list[bytes]]:
    """The vocabularies of id features, in the order of their ids: those of `features`, and of a transform module those
    whose file is called like the feature."""
    found = {}
    files = {path.name: path for path in assets.iterdir()} if assets.is_dir() else {}
    for name in layout.ids:
        pattern = re.compile(r"vocabulary_\d{3}_" + re.escape(vocabulary_name(0, name).split("_", 2)[2]))
        matching = [file for file in files if file == name or pattern.fullmatch(file)]
        if len(matching) == 1:
            found[name] = files[matching[0]].read_bytes().split(b"\n")[:-1]
    return found


def _matches(
    old: list[bytes] | None, new: list[bytes] | None, old_ids: int, new_ids: int
) -> tuple[np.ndarray, int] | None:
    """For each new id the old one whose vector it gets, or -1, and how many are of the same word. None where the ids
    cannot be matched."""
    if old is None or new is None:
        return (np.arange(new_ids), new_ids) if old is new and old_ids == new_ids else None
    places = {word: place for place, word in enumerate(old)}
    ids = np.full(new_ids, -1, np.int64)
    of_words = [places.get(word, -1) for word in new]
    ids[: len(new)] = of_words
    words = int(np.sum(ids[: len(new)] >= 0))
    if old_ids > len(old):
        # A word that was not known then was one of the unknown ones.
        ids[ids < 0] = len(old)
        if old_ids - len(old) == new_ids - len(new):
            ids[len(new) :] = np.arange(len(old), old_ids)
    return ids, words


def _sizes(features: Mapping[str, dict], layout: Layout) -> Sizes:
    told = [features[name] for name in layout.ids]
    tables = [layout.ids.index(each.get("table_of", name)) for name, each in zip(layout.ids, told, strict=True)]
    cut = any(each["rows"] < each["ids"] for each in told)
    slots = tuple(np.zeros(each["ids"], np.int32) for each in told) if cut else ()
    dims, rows = (tuple(each[name] for each in told) for name in ("dim", "rows"))
    return Sizes(dims, rows, tuple(tables), dims, slots)


def _load(network: keras.Model, path: Path) -> None:
    """The weights of a published network: a SavedModel lists them in the network's order."""
    import tensorflow as tf

    if keras.config.backend() != "tensorflow":
        # It would take the memory of a GPU that another framework trains on.
        tf.config.set_visible_devices([], "GPU")
    checkpoint = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    for place, variable in enumerate(network.variables):
        variable.assign(checkpoint.get_tensor(f"_variables/{place}/.ATTRIBUTES/VARIABLE_VALUE"))


def _take_weights(earlier: Earlier, network: keras.Model, layout: Layout) -> int:
    if earlier.layout.columns != layout.columns:
        return 0
    labels, old_labels = layout.labels, earlier.layout.labels
    if labels != old_labels and not len(labels) == len(old_labels) == 1:
        return 0  # which weight is of which label, only the family knows
    given, taking = _dense(earlier.network), _dense(network)
    if earlier.network.name == network.name and [*map(_kind, given)] == [*map(_kind, taking)]:
        # Of the same structure. Keras numbers layers without a name through a process, so paths would not do.
        pairs = list(zip(taking, given, strict=True))
    else:
        of_path = {variable.path: variable for variable in given}
        pairs = [(variable, of_path[variable.path]) for variable in taking if variable.path in of_path]
    pairs = [(variable, other) for variable, other in pairs if variable.shape == other.shape]
    for variable, other in pairs:
        variable.assign(other.numpy())
    return len(pairs)


def _dense(network: keras.Model) -> list[keras.Variable]:
    """What is trained beside embedding tables."""
    tables = {id(table) for layer in _embeddings(network) for table in layer.weights_of}
    return [variable for variable in network.trainable_variables if id(variable) not in tables]


def _kind(variable: keras.Variable) -> tuple:
    return variable.name, tuple(variable.shape)


def _embeddings(network: keras.Model) -> list[Embeddings]:
    return [layer for layer in network.layers if isinstance(layer, Embeddings)]


def _group(layer: Embeddings, place: int) -> int:
    return next(i for i, group in enumerate(layer.groups) if place in group)
