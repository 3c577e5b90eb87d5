"""Training by JAX: the same as by TensorFlow, on any number of devices, and exported by TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tests.training import frameworks
from tests.training.conftest import DCN, MODELS, Shop
from tests.training.test_resume import COUNTING
from tests.training.test_warm_start import publish
from tidemill.artifacts.examples import Dataset
from tidemill.errors import EXIT_CODE, Code, TidemillError
from tidemill.experiment.training import Training
from tidemill.models import load_model
from tidemill.serving import export
from tidemill.serving.replay import TOLERANCE, sample, to_examples
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import to_dense

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed (tidemill[jax])")
SPAWNED = multiprocessing.get_context("spawn")
"""Processes without Keras."""


@pytest.fixture(scope="module")
def on_one(tmp_path_factory) -> dict:
    cases = frameworks.CASES | {"dropout": frameworks.DROPOUT}
    return frameworks.by_jax(cases, tmp_path_factory.mktemp("one"))


@needs_jax
@pytest.mark.parametrize("name", frameworks.CASES)
def test_the_same_steps_as_tensorflows(on_one, name):
    """With ids that occur several times in a batch, and some in none."""
    wanted, found = frameworks.trained(frameworks.CASES[name]), on_one[name]
    assert set(wanted) == set(found)
    for path in wanted:
        np.testing.assert_allclose(found[path], wanted[path], atol=3e-5, rtol=1e-4, err_msg=path)


@pytest.mark.parametrize("name", ["adam, and all settings", "two layers of tables", "penalty", "cut", "no tables"])
def test_compiled_by_xla_for_tensorflow(name):
    case = frameworks.CASES[name]
    compiled = case | {"training": case.get("training", {}) | {"xla": True}}
    wanted, found = frameworks.trained(case), frameworks.trained(compiled)
    for path in wanted:
        np.testing.assert_allclose(found[path], wanted[path], atol=3e-5, rtol=1e-4, err_msg=path)


@pytest.mark.slow
@needs_jax
def test_two_devices_give_what_one_gives(on_one, tmp_path):
    """Also where the last batch is odd, with dropout, and with a penalty that is a mean over the batch."""
    names = ["dropout", "two layers of tables", "adam, and all settings"]
    cases = {name: (frameworks.CASES | {"dropout": frameworks.DROPOUT})[name] for name in names}
    odd = {"model": frameworks.DROPOUT["model"], "training": {"batch_size": 63}}
    on_two = frameworks.by_jax(cases | {"odd": odd}, tmp_path, devices=2)
    assert on_two["odd"]["devices"] == 1
    for name in names:
        assert on_two[name].pop("devices") == 2 and on_one[name]["devices"] == 1
        for path, value in on_two[name].items():
            np.testing.assert_allclose(value, on_one[name][path], atol=3e-5, rtol=1e-4, err_msg=f"{name} {path}")


def train_by_jax(shop: Shop, model: dict, name: str = "model", **training: object) -> tuple[int, dict]:
    """The train step in a process of its own: the exit code, and the error."""
    spec = shop.spec(model, backend="jax", **training).model_dump_json()
    paths = [shop.examples, shop.transformed, shop.graph]
    error = shop.folder / f"error_{name}"
    arguments = (str(shop.folder / "root"), str(shop.folder / name), str(shop.folder / "events"), str(error))
    process = SPAWNED.Process(target=frameworks.train_step_told, args=(spec, paths, *arguments))
    process.start()
    process.join()
    return process.exitcode, json.loads(error.read_text()) if error.exists() else {}


@pytest.mark.slow
@needs_jax
@pytest.mark.parametrize(
    ("model", "told"),
    [
        (DCN, {}),
        (MODELS["final_mlp"], {"precision": "mixed_bfloat16"}),
        ({"family": "own", "module": COUNTING}, {"negative_rate": 0.5}),
    ],
    ids=["dcn_v2", "mixed_bfloat16", "own"],
)
def test_the_train_step_ends_in_a_saved_model(shop, model, told):
    assert train_by_jax(shop, model, **told) == (0, {})
    folder = shop.folder / "model"
    document = json.loads((folder / "model.json").read_text())
    assert document["backend"] == "jax" and {"jax", "jaxlib", "keras"} < set(document["versions"])
    graph, loaded = TransformGraph(shop.graph), load_model(folder)
    assert {layer.compute_dtype for layer in loaded.network.layers} <= {"float32", "int32"}
    assert loaded.fingerprint() == document["model_fingerprint"]
    data = Dataset(shop.transformed)
    expected = loaded.predict(data, "test")[:, 0]
    raw = to_dense(next(Dataset(shop.examples).batches("test")), graph.raw_columns)
    served = tf.saved_model.load(str(folder / "Format-Serving")).signatures["serialized_examples"]
    scores = served(examples=tf.constant(to_examples(raw, graph.raw_columns)))["score"]
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)
    assert document["valid"]["auc"] > 0.65


@pytest.mark.slow
@needs_jax
def test_a_warm_start_from_what_tensorflow_trained(shop):
    """With steps that change next to nothing the model says what the earlier one does."""
    shop.train(MODELS["deepfm"], "earlier", epochs=1)
    uri = publish(shop.folder / "earlier", shop.folder / "published")
    still = {"name": "sgd", "learning_rate": 1e-9}
    assert train_by_jax(shop, MODELS["deepfm"], warm_start=uri, optimizer=still, epochs=1) == (0, {})
    earlier, warm = (
        load_model(shop.folder / n).predict(Dataset(shop.transformed), "valid") for n in ("earlier", "model")
    )
    assert warm == pytest.approx(earlier, abs=1e-5)


@pytest.mark.slow
@needs_jax
def test_divergence(shop):
    code, error = train_by_jax(shop, DCN, optimizer={"name": "sgd", "learning_rate": 1e30})
    assert (code, error["code"]) == (EXIT_CODE, Code.TRAINING_DIVERGED.code)
    assert not (shop.folder / "model").exists()


@pytest.mark.slow
def test_skew_comes_back_from_the_process_that_exports(shop):
    shop.train(DCN, epochs=1)
    folder, graph, raw = shop.folder / "model", TransformGraph(shop.graph), Dataset(shop.examples)
    good = sample(load_model(folder), raw, Dataset(shop.transformed))
    shutil.rmtree(folder / "Format-Serving")
    with pytest.raises(TidemillError) as error:
        export.export_in_process(replace(good, scores=good.scores + 0.01), graph, raw, folder)
    assert error.value.code is Code.SERVING_SKEW
    assert {"row", "serving", "training"} <= set(error.value.details)


@needs_jax
def test_keras_has_one_backend_in_a_process(shop):
    with pytest.raises(TidemillError) as error:
        shop.train(DCN, backend="jax")
    assert error.value.code is Code.UNSUPPORTED
    assert error.value.where == "training.backend"


def test_trees_take_no_notice(shop):
    assert shop.train(MODELS["gbdt"], backend="jax").valid["auc"] > 0.7


WITHOUT_JAX = """
import sys

class No:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, No())
from tidemill.errors import TidemillError
from tidemill.experiment.training import Training
from tidemill.models.core import backend
try:
    backend.select("jax")
except TidemillError as error:
    print(error.code.code, error)
"""


def test_without_jax():
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", WITHOUT_JAX], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("missing-package training.backend: got 'jax' (No module named 'jax'); install")


def test_xla_is_no_setting_for_jax():
    with pytest.raises(ValidationError, match="leave it out"):
        Training(backend="jax", xla=True)
