"""The exported model: signatures, missing values, names that TensorFlow does not accept, and the gate against skew."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import MODELS, NAMES
from tidemill.artifacts.examples import Dataset
from tidemill.artifacts.model import read_inputs
from tidemill.errors import Code, TidemillError
from tidemill.models import load_model
from tidemill.serving.replay import TOLERANCE, replay, sample, to_examples
from tidemill.serving.signatures import signature_names
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import SENTINELS, RawColumn, to_dense

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("name", NAMES)
def test_both_signatures_score_raw_rows_and_missing_values(trained, name):
    shop = trained(name)
    folder = shop.folder / "model"
    inputs = read_inputs(folder / "Format-Serving")
    names = {each.name: each.input for each in inputs}
    assert names["weight (kg)"] == "column_1" and names["price"] == "price"
    columns = [RawColumn(each.name, each.dtype) for each in inputs]
    raw = to_dense(next(Dataset(shop.examples).batches("test")), columns)
    expected = load_model(folder).predict(Dataset(shop.transformed), "test")[:, 0]
    served = tf.saved_model.load(str(folder / "Format-Serving"))
    score_dense = served.signatures["serving_default"]
    dense = score_dense(**{names[n]: tf.constant(v) for n, v in raw.items()})["score"]
    texts = served.signatures["serialized_examples"](examples=tf.constant(to_examples(raw, columns)))["score"]
    assert dense.dtype == texts.dtype == tf.float32
    np.testing.assert_allclose(dense, expected, atol=TOLERANCE)
    np.testing.assert_allclose(texts, expected, atol=TOLERANCE)
    for rows in (0, 3):
        missing = {each.input: tf.constant([SENTINELS[each.dtype]] * rows, each.dtype) for each in inputs}
        scores = score_dense(**missing)["score"].numpy()
        assert scores.shape == (rows,) and np.isfinite(scores).all()


def test_reports_skew_of_other_weights_and_of_shifted_rows(trained, shop):
    folder = trained("dcn_v2").folder / "model"
    graph, raw, data = TransformGraph(shop.graph), Dataset(shop.examples), Dataset(shop.transformed)
    scored = sample(load_model(folder), raw, data)
    result = replay(folder / "Format-Serving", graph, raw, scored)
    assert result.rows == 400 and result.largest_difference <= TOLERANCE
    other, _ = shop.fit(MODELS["dcn_v2"], epochs=1, seed=1)
    shifted = shop.with_rows(lambda split, table: table.take([*range(1, table.num_rows), 0]))
    for wrong in (sample(other, raw, data), sample(load_model(folder), raw, Dataset(shifted.transformed))):
        with pytest.raises(TidemillError) as error:
            replay(folder / "Format-Serving", graph, raw, wrong)
        assert error.value.code is Code.SERVING_SKEW
        assert {"row", "serving", "training", "split", "signature"} <= set(error.value.details)


def test_inputs_are_named_by_columns_if_tensorflow_accepts_them(tmp_path):
    columns = ["a", "A", "b c", "é", "column_2", "9", "ok_1", "class", "self", "cls", "name", "args", "kwargs", "None"]
    names = signature_names([*columns, "inputs", "training", "match", "id"])
    assert names["ok_1"] == "ok_1" and names["class"] == "column_7" and names["column_2"] == "column_2"
    spec = {name: tf.TensorSpec([None], tf.float32, name=name) for name in names.values()}
    function = tf.function(lambda values: {"sum": tf.add_n(list(values.values()))}, input_signature=[spec])
    signatures = {"serving_default": function.get_concrete_function()}
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures=signatures)
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    assert loaded(**{name: tf.ones([2]) for name in names.values()})["sum"].numpy().tolist() == [len(names)] * 2
    assert len({name.lower() for name in names.values()}) == len(names)
    assert names["b c"] == "column_2_" and names["a"] == "column_0"


def test_the_exported_model_lists_its_inputs(trained):
    folder = trained("lr").folder / "model" / "Format-Serving"
    listed = json.loads((folder / "assets.extra" / "raw_columns.json").read_text())
    assert listed[:2] == [
        {"name": "price", "dtype": "float32"},
        {"name": "weight (kg)", "dtype": "float32", "input": "column_1"},
    ]
    assert json.loads((folder / "assets.extra" / "scores.json").read_text()) == [{"label": "bought", "output": "score"}]
