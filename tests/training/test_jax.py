"""Training by JAX: the same steps as by TensorFlow, on any number of devices, exported by TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tests.sharing import once
from tests.training import frameworks
from tests.training.conftest import DCN, MODELS, Shop
from tests.training.test_resume import COUNTING
from tests.training.test_warm_start import publish
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.experiment.training import Training
from tidemill.models import load_model
from tidemill.serving import export
from tidemill.serving.replay import TOLERANCE, sample, to_examples
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import to_dense

pytestmark = [pytest.mark.tensorflow, pytest.mark.process]
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed (tidemill[jax])")


@pytest.fixture(scope="session")
def in_jax(tmp_path_factory, artifacts, trained) -> Path:
    """The results of one process with JAX and two devices: steps by case, `results.json`, and the trained models."""
    one_device = {"training": frameworks.ONE_DEVICE}
    steps = frameworks.CASES | {"dropout": frameworks.DROPOUT, "dropout, one device": frameworks.DROPOUT | one_device}

    def build(folder: Path) -> None:
        job = {"steps": steps, "resumed": DCN, "shop": str(artifacts.folder)}
        earlier = publish(trained("deepfm").folder / "model", folder / "published")
        job["warm_start"] = {"model": MODELS["deepfm"], "published": earlier}
        optimizer = {"name": "adam", "learning_rate": 0.05}
        settings = {"negative_rate": 0.5, "precision": "mixed_bfloat16", "optimizer": optimizer, "epochs": 2}
        job["trainings"] = {
            "own": {"model": {"family": "own", "module": COUNTING}, "training": settings},
            "diverged": {
                "model": DCN | {"cross_layers": 0},
                "training": {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "batch_size": 60},
            },
        }
        frameworks.run_in_jax(folder, job)

    return once(tmp_path_factory, "trained-in-jax", build)


def steps_of(folder: Path, case: str) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"{case}.npz"))


@needs_jax
@pytest.mark.parametrize("case", frameworks.CASES)
def test_steps_on_two_devices_equal_those_of_tensorflow(in_jax, case):
    """The last batch, whose rows two devices cannot divide, is computed by each of them."""
    steps = steps_of(in_jax, case)
    assert steps["devices"] == 2
    frameworks.assert_close(steps, frameworks.run_steps(frameworks.CASES[case]))


@needs_jax
def test_steps_with_dropout_do_not_depend_on_the_number_of_devices(in_jax):
    two, one = steps_of(in_jax, "dropout"), steps_of(in_jax, "dropout, one device")
    assert (two["devices"], one["devices"]) == (2, 1)
    frameworks.assert_close(two, one)


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.full if i else []) for i, c in enumerate([*frameworks.CASES][:3])]
)
def test_steps_compiled_by_xla_equal_those_of_tensorflow(case):
    settings = frameworks.CASES[case] | {"last": frameworks.BATCH}  # XLA compiles again for another number of rows
    compiled = settings | {"training": settings["training"] | {"xla": True}}
    frameworks.assert_close(frameworks.run_steps(compiled), frameworks.run_steps(settings))


@needs_jax
def test_a_resumed_training_equals_an_uninterrupted_one(in_jax):
    whole, resumed = json.loads((in_jax / "results.json").read_text())["resumed"]
    assert resumed == whole


@needs_jax
def test_the_train_step_exports_a_saved_model_as_float32(in_jax, artifacts):
    summary = json.loads((in_jax / "results.json").read_text())["own"]
    assert "traceback" not in summary, summary
    document = Shop.at(artifacts.folder, in_jax).document("own")
    assert document["backend"] == "jax" and {"jax", "jaxlib", "keras"} < set(document["versions"])
    graph, loaded = TransformGraph(artifacts.graph), load_model(in_jax / "own")
    assert {layer.compute_dtype for layer in loaded.network.layers} <= {"float32", "int32"}
    assert loaded.fingerprint() == document["model_fingerprint"] == summary["fingerprint"]
    expected = loaded.predict(Dataset(artifacts.transformed), "test")[:, 0]
    raw = to_dense(next(Dataset(artifacts.examples).batches("test")), graph.raw_columns)
    served = tf.saved_model.load(str(in_jax / "own" / "Format-Serving")).signatures["serialized_examples"]
    scores = served(examples=tf.constant(to_examples(raw, graph.raw_columns)))["score"]
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)
    assert document["valid"]["auc"] > 0.65


@needs_jax
def test_a_warm_start_takes_the_weights_of_a_model_trained_by_tensorflow(in_jax, artifacts, trained):
    """The one epoch changes next to nothing, so both models return the same scores."""
    data = Dataset(artifacts.transformed)
    earlier = load_model(trained("deepfm").folder / "model").predict(data, "valid")
    assert np.load(in_jax / "warm_start.npy") == pytest.approx(earlier, abs=1e-5)


@needs_jax
def test_divergence_is_reported(in_jax):
    error = json.loads((in_jax / "results.json").read_text())["diverged"]
    assert error["code"] == Code.TRAINING_DIVERGED.code, error
    assert not (in_jax / "diverged").exists()


def test_skew_is_reported_by_the_process_that_exports(shop, trained, monkeypatch):
    """Here the function of that process runs in this one."""

    def run(command, **_):
        return subprocess.CompletedProcess(command, export._main(json.loads(command[-1])))

    monkeypatch.setattr(export.subprocess, "run", run)
    folder, graph, raw = shop.folder / "model", TransformGraph(shop.graph), Dataset(shop.examples)
    shutil.copytree(trained("lr").folder / "model", folder)
    correct = sample(load_model(folder), raw, Dataset(shop.transformed))
    shutil.rmtree(folder / "Format-Serving")
    with pytest.raises(TidemillError) as error:
        export.export_in_subprocess(replace(correct, scores=correct.scores + 0.01), graph, raw, folder)
    assert error.value.code is Code.SERVING_SKEW
    assert {"row", "serving", "training"} <= set(error.value.details)


@needs_jax
def test_rejects_a_second_backend_in_one_process(shop):
    import keras  # noqa: F401 - selects TensorFlow

    with pytest.raises(TidemillError) as error:
        shop.train(DCN, backend="jax")
    assert error.value.code is Code.UNSUPPORTED
    assert error.value.where == "training.backend"


def test_gradient_boosting_ignores_the_backend(shop):
    assert shop.fit(MODELS["gbdt"], backend="jax")[1]


WITHOUT_JAX = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from tidemill.errors import TidemillError
from tidemill.models.core import backend
try:
    backend.select("jax")
except TidemillError as error:
    print(error.code.code, error)
"""


def test_reports_a_missing_jax():
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", WITHOUT_JAX], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("missing-package training.backend: got 'jax' (No module named 'jax'); install")


def test_rejects_xla_as_a_setting_of_jax():
    with pytest.raises(ValidationError, match="remove it"):
        Training(backend="jax", xla=True)
