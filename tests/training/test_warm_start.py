"""Beginning with what an earlier model has learned."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.training.conftest import GBDT, MODELS, ROWS, Shop, make_shop, shop_rows
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.models import load_model
from tidemill.models.core.inputs import Layout, TableSizes
from tidemill.models.core.registry import open_model
from tidemill.models.core.sizes import table_sizes
from tidemill.training.warm_start import EarlierModel, transfer
from tidemill.transform.graph import TransformGraph

DEEPFM = MODELS["deepfm"]


def publish(model: Path, version: Path) -> str:
    """As the publish step lays out a version."""
    shutil.copytree(model / "Format-Serving", version)
    (version / "tidemill").mkdir()
    shutil.copyfile(model / "model.json", version / "tidemill" / "model.json")
    artifact.seal(version, {})
    return str(version)


@pytest.fixture
def earlier(shop) -> str:
    shop.train(DEEPFM, "earlier")
    return publish(shop.folder / "earlier", shop.folder / "published")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Shop:
    """A shop with two sites fewer, one site that is new, and sites in another order of frequency."""

    def change(table: pa.Table, seed: int) -> pa.Table:
        numbers = pc.cast(pc.replace_substring(table["site"], "site ", ""), pa.int64())
        often = np.random.default_rng(seed).random(table.num_rows) < 0.5
        sites = pc.if_else(pa.array(often), pa.scalar(7, pa.int64()), pc.add(pc.bit_wise_and(numbers, 7), 2))
        names = pc.binary_join_element_wise("site", pc.cast(pc.add(sites, 4), pa.string()), " ")
        return table.set_column(table.schema.get_field_index("site"), "site", names)

    tables = {split: change(shop_rows(rows, seed + 9), seed) for seed, (split, rows) in enumerate(ROWS.items())}
    return make_shop(tmp_path_factory.mktemp("other"), tables)


def test_the_same_features_give_the_same_model(shop, earlier):
    graph, data = TransformGraph(shop.graph), Dataset(shop.transformed)
    layout = Layout.of(data.metadata["features"], shop.labels)
    model = open_model(shop.spec(DEEPFM).model, layout)
    model.network = model.build(table_sizes(model.config, layout))
    found = transfer(EarlierModel(earlier), model.network, layout, graph)
    assert set(found["features"]) == set(layout.ids) and found["weights"] > 0
    assert model.predict(data, "valid") == pytest.approx(
        load_model(shop.folder / "earlier").predict(data, "valid"), abs=1e-6
    )


def test_vectors_follow_their_words(shop, earlier, other):
    graph, data = TransformGraph(other.graph), Dataset(other.transformed)
    layout = Layout.of(data.metadata["features"], shop.labels)
    model = open_model(shop.spec(DEEPFM).model, layout)
    model.network = model.build(table_sizes(model.config, layout))
    fresh = model.network.get_layer("embeddings").tables_by_size[0].numpy()
    begun = EarlierModel(earlier)
    found = transfer(begun, model.network, layout, graph)
    place = layout.ids.index("site")

    def vectors(network, features: Layout, assets: Path) -> dict[bytes, np.ndarray]:
        layer = network.get_layer("embeddings")
        at = features.ids.index("site")
        (file,) = assets.glob("vocabulary_*_site")
        words = file.read_bytes().split(b"\n")[:-1]
        table = layer.tables_by_size[0].numpy()[layer.offsets[at] :]
        return dict(zip([*words, b"unknown"], table, strict=False))

    old = vectors(begun.network, begun.layout, Path(earlier) / "assets")
    new = vectors(model.network, layout, Path(other.graph) / "transform_fn" / "assets")
    assert list(old)[:5] != list(new)[:5] and b"site 13" in new
    for word, vector in new.items():
        assert np.array_equal(vector, old.get(word, old[b"unknown"])), word
    assert found["features"]["site"]["words"] == len(set(old) & set(new)) - 1
    layer = model.network.get_layer("embeddings")
    start = layer.offsets[place]
    assert not np.array_equal(layer.tables_by_size[0].numpy()[start : start + 2], fresh[start : start + 2])


def test_ids_that_share_a_row_keep_the_new_models_rows(shop, other):
    """Where tables are cut, which id has which row is decided by this training's frequencies, not by the earlier's."""
    small = DEEPFM | {"max_embedding_bytes": 300}
    shop.train(small, "small")
    begun = EarlierModel(publish(shop.folder / "small", shop.folder / "published_small"))
    graph, layout = TransformGraph(shop.graph), begun.layout
    model = open_model(shop.spec(small).model, layout)
    fitted = json.loads((shop.folder / "small" / "model.json").read_text())["embeddings"]["features"]
    rows = [fitted[name]["rows"] for name in layout.ids]
    assert any(count < of for count, of in zip(rows, layout.num_ids, strict=True))
    # The other way round: the last ids have rows of their own.
    cuts = zip(rows, layout.num_ids, strict=True)
    slots = [np.maximum(np.arange(of) - (of - count), 0).astype(np.int32) for count, of in cuts]
    told = begun.network.get_layer("embeddings")
    found = TableSizes(tuple(told.dims), tuple(rows), tuple(told.tables), tuple(told.dims), tuple(slots))
    model.network = model.build(found)
    transfer(begun, model.network, layout, graph)
    layer = model.network.get_layer("embeddings")
    assert np.array_equal(np.asarray(layer.slots), np.concatenate(slots))
    for place, of in enumerate(layout.num_ids):
        last = layer.tables_by_size[0].numpy()[layer.rows_of(place)[of - 1]]
        assert np.array_equal(last, told.tables_by_size[0].numpy()[told.rows_of(place)[of - 1]])


OWN = """
from typing import Literal
import keras
from tidemill.models import Network

class TwoLayers(Network):
    family: Literal["two_layers"]
    def logit(self, features):
        hidden = keras.layers.Dense(8, activation="relu")(features.flat(features.embedded()))
        return keras.layers.Dense(features.labels)(hidden)

FAMILY = TwoLayers
"""


def test_layers_without_names_are_taken_over(shop):
    """Keras numbers them through the process, so that those of two networks are called differently."""
    own = {"family": "own", "module": OWN}
    shop.train(own, "own")
    begun = EarlierModel(publish(shop.folder / "own", shop.folder / "published_own"))
    graph, data = TransformGraph(shop.graph), Dataset(shop.transformed)
    model = open_model(shop.spec(own).model, begun.layout)
    model.network = model.build(table_sizes(model.config, begun.layout))
    assert transfer(begun, model.network, begun.layout, graph)["weights"] == 4
    assert model.predict(data, "valid") == pytest.approx(
        load_model(shop.folder / "own").predict(data, "valid"), abs=1e-6
    )


def test_a_warm_start_is_ahead_and_is_told(shop, earlier, other):
    other = replace(other, folder=shop.folder)
    cold = other.train(DEEPFM, "cold", epochs=1)
    warm = other.train(DEEPFM, "warm", epochs=1, warm_start=earlier)
    assert warm.valid["log_loss"] < cold.valid["log_loss"]
    document = json.loads((shop.folder / "warm" / "model.json").read_text())
    assert document["warm_start"]["from"] == earlier


def test_what_cannot_be_begun_with(shop):
    with pytest.raises(TidemillError) as error:
        shop.train(DEEPFM, warm_start=str(shop.folder / "nothing"))
    assert error.value.code is Code.NO_MODEL
    shop.train(GBDT, "trees")
    trees = publish(shop.folder / "trees", shop.folder / "published_trees")
    with pytest.raises(TidemillError) as error:
        shop.train(DEEPFM, warm_start=trees)
    assert error.value.code is Code.INVALID_VALUE
    assert not (shop.folder / "model").exists()
