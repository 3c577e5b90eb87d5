"""Trainings that start with the weights of an earlier model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.sharing import once
from tests.training.conftest import MODELS, ROWS, Shop, make_shop, shop_rows
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.models import load_model
from tidemill.models.core.inputs import Layout, TableSizes
from tidemill.models.core.neural import NeuralModel
from tidemill.models.core.registry import new_model
from tidemill.models.core.sizes import table_sizes
from tidemill.training.warm_start import EarlierModel, transfer
from tidemill.transform.graph import TransformGraph

pytestmark = pytest.mark.tensorflow
DEEPFM = MODELS["deepfm"]


def publish(model: Path, version: Path) -> str:
    """Lays out a version like the publish step."""
    shutil.copytree(model / "Format-Serving", version)
    (version / "tidemill").mkdir()
    shutil.copyfile(model / "model.json", version / "tidemill" / "model.json")
    artifact.seal(version, {})
    return str(version)


@pytest.fixture
def earlier(shop, trained) -> str:
    """A published DeepFM."""
    return publish(trained("deepfm").folder / "model", shop.folder / "published")


@pytest.fixture(scope="session")
def other(tmp_path_factory) -> Shop:
    """A shop with two sites fewer, one new site, and sites in another order of frequency."""

    def change(table: pa.Table, seed: int) -> pa.Table:
        numbers = pc.cast(pc.replace_substring(table["site"], "site ", ""), pa.int64())
        often = np.random.default_rng(seed).random(table.num_rows) < 0.5
        sites = pc.if_else(pa.array(often), pa.scalar(7, pa.int64()), pc.add(pc.bit_wise_and(numbers, 7), 2))
        names = pc.binary_join_element_wise("site", pc.cast(pc.add(sites, 4), pa.string()), " ")
        return table.set_column(table.schema.get_field_index("site"), "site", names)

    tables = {split: change(shop_rows(rows, seed + 9), seed) for seed, (split, rows) in enumerate(ROWS.items())}
    folder = once(tmp_path_factory, "other-shop", lambda folder: make_shop(folder, tables))
    return Shop.at(folder, folder)


def initial_model(shop: Shop, layout: Layout, spec: dict = DEEPFM, sizes: TableSizes | None = None) -> NeuralModel:
    """Returns a model with initial weights."""
    model = new_model(shop.spec(spec).model, layout)
    model.network = model.build(sizes or table_sizes(model.config, layout))
    return model


def layout_of(shop: Shop) -> Layout:
    return Layout.of(Dataset(shop.transformed).metadata["features"], shop.labels)


def test_the_same_features_give_the_same_model(shop, earlier, trained):
    model, data = initial_model(shop, layout_of(shop)), Dataset(shop.transformed)
    transferred = transfer(EarlierModel(earlier), model.network, model.layout, TransformGraph(shop.graph))
    assert set(transferred["features"]) == set(model.layout.ids) and transferred["weights"] > 0
    expected = load_model(trained("deepfm").folder / "model").predict(data, "valid")
    assert model.predict(data, "valid") == pytest.approx(expected, abs=1e-6)


def test_vectors_follow_their_tokens(earlier, other):
    layout = layout_of(other)
    model = initial_model(other, layout)
    initial = model.network.get_layer("embeddings").tables_by_size[0].numpy()
    old_model = EarlierModel(earlier)
    transferred = transfer(old_model, model.network, layout, TransformGraph(other.graph))

    def vectors(network, layout: Layout, assets: Path) -> dict[bytes, np.ndarray]:
        layer = network.get_layer("embeddings")
        (file,) = assets.glob("vocabulary_*_site")
        tokens = file.read_bytes().split(b"\n")[:-1]
        table = layer.tables_by_size[0].numpy()[layer.offsets[layout.ids.index("site")] :]
        return dict(zip([*tokens, b"unknown"], table, strict=False))

    old = vectors(old_model.network, old_model.layout, Path(earlier) / "assets")
    new = vectors(model.network, layout, Path(other.graph) / "transform_fn" / "assets")
    assert list(old)[:5] != list(new)[:5] and b"site 13" in new
    for token, vector in new.items():
        assert np.array_equal(vector, old.get(token, old[b"unknown"])), token
    assert transferred["features"]["site"]["words"] == len(set(old) & set(new)) - 1
    layer = model.network.get_layer("embeddings")
    start = layer.offsets[layout.ids.index("site")]
    assert not np.array_equal(layer.tables_by_size[0].numpy()[start : start + 2], initial[start : start + 2])


def test_the_new_training_decides_which_ids_share_a_row(shop):
    """If tables are cut, the frequencies of the new training decide, not those of the earlier one."""
    small = DEEPFM | {"max_embedding_bytes": 300}
    shop.train(small, "small", epochs=1)
    old = EarlierModel(publish(shop.folder / "small", shop.folder / "published_small"))
    layout, features = old.layout, shop.document("small")["embeddings"]["features"]
    rows = [features[name]["rows"] for name in layout.ids]
    assert any(count < n for count, n in zip(rows, layout.num_ids, strict=True))
    # In the new model, the last ids have rows of their own instead of the first.
    slots = [
        np.maximum(np.arange(n) - (n - count), 0).astype(np.int32)
        for count, n in zip(rows, layout.num_ids, strict=True)
    ]
    old_layer = old.network.get_layer("embeddings")
    dims, tables = tuple(old_layer.dims), tuple(old_layer.tables)
    model = initial_model(shop, layout, small, TableSizes(dims, tuple(rows), tables, dims, tuple(slots)))
    transfer(old, model.network, layout, TransformGraph(shop.graph))
    layer = model.network.get_layer("embeddings")
    assert np.array_equal(np.asarray(layer.slots), np.concatenate(slots))
    for i, n in enumerate(layout.num_ids):
        last = layer.tables_by_size[0].numpy()[layer.rows_of(i)[n - 1]]
        assert np.array_equal(last, old_layer.tables_by_size[0].numpy()[old_layer.rows_of(i)[n - 1]])


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


def test_transfers_layers_without_names(shop):
    """Keras numbers unnamed layers throughout a process, so those of two networks have different names."""
    own, data = {"family": "own", "module": OWN}, Dataset(shop.transformed)
    shop.train(own, "own", epochs=1)
    old = EarlierModel(publish(shop.folder / "own", shop.folder / "published_own"))
    model = initial_model(shop, old.layout, own)
    assert transfer(old, model.network, old.layout, TransformGraph(shop.graph))["weights"] == 4
    expected = load_model(shop.folder / "own").predict(data, "valid")
    assert model.predict(data, "valid") == pytest.approx(expected, abs=1e-6)


def test_a_warm_start_has_a_smaller_loss_after_one_epoch(shop, earlier):
    short = {"epochs": 1, "optimizer": {"name": "adam", "learning_rate": 0.001}}
    _, cold = shop.fit(DEEPFM, **short)
    model, warm = shop.fit(DEEPFM, **short, warm_start=earlier)
    assert warm[0]["valid"]["log_loss"] < cold[0]["valid"]["log_loss"]
    assert model.facts()["warm_start"]["from"] == earlier


def test_rejects_what_is_not_one_published_network(shop, trained):
    with pytest.raises(TidemillError) as error:
        shop.train(DEEPFM, warm_start=str(shop.folder / "nothing"))
    assert error.value.code is Code.NO_MODEL
    trees = publish(trained("gbdt").folder / "model", shop.folder / "published_trees")
    with pytest.raises(TidemillError) as error:
        shop.train(DEEPFM, warm_start=trees)
    assert error.value.code is Code.INVALID_VALUE
    assert not (shop.folder / "model").exists()
