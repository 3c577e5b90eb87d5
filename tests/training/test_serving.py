"""The exported model: signatures, missing values, names that TensorFlow does not take, and the gate against skew."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.docs.samples import without_numbers
from tests.training.conftest import DCN, MODELS
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.models import load_model
from tidemill.serving.replay import TOLERANCE, replay, sample, to_examples
from tidemill.serving.signatures import signature_names
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import SENTINELS, RawColumn, to_dense


@pytest.mark.parametrize("name", MODELS)
def test_signatures_score_raw_rows(shop, name):
    shop.train(MODELS[name], epochs=1)
    folder = shop.folder / "model"
    listed = json.loads((folder / "Format-Serving" / "assets.extra" / "raw_columns.json").read_text())
    columns = [RawColumn(c["name"], c["dtype"]) for c in listed]
    inputs = {c["name"]: c.get("input", c["name"]) for c in listed}
    assert inputs["weight (kg)"] == "column_1" and inputs["price"] == "price"
    batch = next(Dataset(shop.examples).batches("test"))
    raw = to_dense(batch, columns)
    expected = load_model(folder).predict(Dataset(shop.transformed), "test")[:, 0]
    served = tf.saved_model.load(str(folder / "Format-Serving"))
    dense = served.signatures["serving_default"](**{inputs[n]: tf.constant(v) for n, v in raw.items()})["score"]
    texts = served.signatures["serialized_examples"](examples=tf.constant(to_examples(raw, columns)))["score"]
    assert dense.dtype == texts.dtype == tf.float32
    np.testing.assert_allclose(dense, expected, atol=TOLERANCE)
    np.testing.assert_allclose(texts, expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_no_row_and_nothing_known(shop, name):
    shop.train(MODELS[name], epochs=1)
    folder = shop.folder / "model" / "Format-Serving"
    score = tf.saved_model.load(str(folder)).signatures["serving_default"]
    columns = json.loads((folder / "assets.extra" / "raw_columns.json").read_text())

    def of(rows: int) -> np.ndarray:
        missing = {c.get("input", c["name"]): tf.constant([SENTINELS[c["dtype"]]] * rows, c["dtype"]) for c in columns}
        return score(**missing)["score"].numpy()

    assert of(0).shape == (0,)
    assert np.isfinite(of(3)).all() and of(3).shape == (3,)


def test_skew_is_noticed(shop):
    """The exported model of one training does not agree with the weights of another."""
    shop.train(DCN, "one", epochs=1)
    shop.train(DCN, "two", epochs=1, seed=1)
    graph, raw = TransformGraph(shop.graph), Dataset(shop.examples)
    sampled = sample(load_model(shop.folder / "one"), raw, Dataset(shop.transformed))
    found = replay(shop.folder / "one" / "Format-Serving", graph, raw, sampled)
    assert found.rows == 400 and found.largest_difference <= TOLERANCE
    with pytest.raises(TidemillError) as error:
        replay(shop.folder / "two" / "Format-Serving", graph, raw, sampled)
    assert error.value.code is Code.SERVING_SKEW
    assert {"row", "serving", "training", "split", "signature"} <= set(error.value.details)
    assert without_numbers(str(error.value)) == without_numbers(Code.SERVING_SKEW.value.example)


def test_skew_of_one_row_is_noticed(shop):
    """Transformed rows that are shifted by one against the raw rows do not pass."""
    shop.train(DCN, epochs=1)
    shifted = shop.with_rows(lambda split, table: table.take([*range(1, table.num_rows), 0]))
    raw = Dataset(shop.examples)
    sampled = sample(load_model(shop.folder / "model"), raw, Dataset(shifted.transformed))
    with pytest.raises(TidemillError) as error:
        replay(shop.folder / "model" / "Format-Serving", TransformGraph(shop.graph), raw, sampled)
    assert error.value.code is Code.SERVING_SKEW


def test_signature_names():
    names = signature_names(["a", "A", "b c", "é", "column_2", "9", "ok_1", "from"])
    assert names["ok_1"] == "ok_1" and names["from"] == "from" and names["column_2"] == "column_2"
    assert len({name.lower() for name in names.values()}) == len(names)
    assert names["b c"] == "column_2_" and names["a"] == "column_0"
