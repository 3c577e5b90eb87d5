"""User-defined families: modules that an experiment names."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.experiment import load
from tidemill.failure_record import FailureRecord
from tidemill.models import load_model
from tidemill.models.core.registry import read_weights
from tidemill.runtime import Progress

pytestmark = pytest.mark.tensorflow
TEXT = '''
from typing import Literal
import keras
from tidemill.models import Network
from tidemill.models.core.layers import register

@register
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x

class Small(Network):
    """One hidden layer."""
    family: Literal["small"]
    width: int = 8

    def logit(self, features):
        x = Doubled()(features.flat(features.embedded()))
        return keras.layers.Dense(1)(keras.layers.Dense(self.width, activation="relu")(x))

FAMILY = Small
'''
OWN = {"family": "own", "module": TEXT, "settings": {"width": 4, "embedding_dim": 2}}


def test_trains_exports_and_loads(shop):
    summary = shop.train(OWN)
    assert (summary.family, summary.name) == ("small", "own")
    assert summary.valid["auc"] > 0.6
    assert shop.document()["config"] == OWN | {"name": "own"}
    model = load_model(shop.folder / "model")
    assert model.fingerprint() == summary.fingerprint
    assert np.isfinite(model.predict(Dataset(shop.transformed), "valid")).all()


@pytest.mark.parametrize("xla", [False, True], ids=["", "xla"])
def test_embeddings_that_logit_does_not_use_do_not_change(shop, xla):
    module = TEXT.replace("features.flat(features.embedded())", "features.flat(features.embedded()[:1])")
    settings = {"embedding_dim": 2, "embedding_dims": {"device": 3}}
    model, _ = shop.fit(OWN | {"module": module, "settings": settings}, xla=xla, epochs=1)
    used, unused = model.network.get_layer("embeddings").tables_by_size
    assert {used.shape[1], unused.shape[1]} == {2, 3}
    assert np.abs(unused.numpy()).max() <= 0.05 < np.abs(used.numpy()).max()  # 0.05: the largest initial weight


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"module": "x = 1  # no FAMILY\n"}, "models.own.module"),
        ({"module": "FAMILY = 3\n"}, "models.own.module"),
        ({"module": "from tidemill.models.gbdt import FAMILY\n"}, "models.own.module"),
        ({"module": "def f(:  # FAMILY\n"}, "models.own.module, line 1"),
        ({"module": "import os  # FAMILY\n\nos.no_such()\n"}, "models.own.module, line 3"),
        ({"module": TEXT.replace("self.width", "self.widht")}, "models.own.module, line 19"),
        ({"module": TEXT.replace("Dense(1)", "Dense(2)")}, "models.own.module"),
        ({"module": TEXT.replace("FAMILY = Small", "FAMILY = Network")}, "models.own.module"),
        ({"module": TEXT + "import sys\nsys.exit(3)\n"}, "models.own.module, line 23"),
        ({"settings": {"widht": 4}}, "models.own.settings.widht"),
        ({"settings": {"width": "wide"}}, "models.own.settings.width"),
    ],
    ids=[
        "no family", "not a class", "not a network", "not Python", "an error", "an error in logit", "two logits",
        "abstract", "exits", "an unknown setting", "a setting of the wrong type",
    ],
)  # fmt: skip
def test_reports_mistakes_with_their_line(shop, changed, where):
    with pytest.raises(TidemillError) as error:
        shop.train(OWN | changed)
    assert error.value.code is Code.INVALID_VALUE
    assert error.value.where == where
    assert not (shop.folder / "model").exists()


@pytest.mark.parametrize(
    ("call", "decorator", "where", "reason"),
    [
        ("x + tf.reshape(tf.gather(x, [10**6]), (1, -1))", "@register", ", line 10", "InvalidArgumentError: indices"),
        ("2 * x", "", "", "TypeError: the layer class Doubled is not registered"),
    ],
    ids=["an op that fails", "a layer that cannot be read"],
)
def test_what_fails_in_training_is_tried_once(shop, tmp_path, call, decorator, where, reason):
    text = (
        TEXT.replace("return 2 * x", f"return {call}")
        .replace("@register", decorator)
        .replace("keras\n", "keras, tensorflow as tf\n", 1)
    )
    failures = FailureRecord(str(tmp_path), "train", "model")
    with pytest.raises(TidemillError) as error:
        shop.train(OWN | {"module": text}, progress=Progress("train", failures))
    assert error.value.where == f"models.own.module{where}" and error.value.got.startswith(reason)
    assert not (tmp_path / "failures").exists()


def test_two_modules_may_have_layers_of_one_name(shop):
    texts = [TEXT, TEXT.replace("2 * x", "0 * x")]
    models = [shop.fit(OWN | {"module": text}, epochs=1)[0] for text in texts]
    valid = Dataset(shop.transformed)
    for name, model in zip("ab", models, strict=True):
        (shop.folder / name).mkdir()
        model.save(shop.folder / name)
    for name, model in zip("ab", models, strict=True):
        loaded = read_weights(model.config, shop.folder / name, model.layout)
        assert np.array_equal(loaded.predict(valid, "valid"), model.predict(valid, "valid"))


@pytest.mark.process
def test_any_module_of_models_can_be_imported_first_without_a_framework():
    for first in ("tidemill.models.core.family", "tidemill.models.own", "tidemill.experiment"):
        code = f"import {first}, sys, tidemill.models as m; m.families(); assert 'keras' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)


def test_an_experiment_names_a_module_in_its_folder(tmp_path):
    (tmp_path / "small.py").write_text(TEXT)
    (tmp_path / "experiment.yaml").write_text(
        "name: x\nsource: {tables: {t: t.csv}}\nlabel: y\nfeatures: {a: {kind: numeric}}\n"
        "models: [{family: own, module: small.py}]\n"
    )
    assert load(tmp_path / "experiment.yaml").models[0].module == TEXT
