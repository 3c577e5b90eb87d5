"""A training that is interrupted anywhere and resumed ends with the same bits as an uninterrupted one."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.training.conftest import DCN, FEATURES, GBDT, MODELS, ROWS, Shop, Stop, StopAfter, make_shop, shop_tables
from tidemill.errors import Code, from_system_error
from tidemill.models import load_model
from tidemill.runtime import PREEMPTED_EXIT_CODE, step
from tidemill.steps.train import TrainSpec
from tidemill.training.train import train

pytestmark = [pytest.mark.tensorflow, pytest.mark.process]
STOPPING = {"metric": "auc", "patience": 2, "rounds": 50}
BATCHES = -(-ROWS["train"] // 64)
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "tidemill.training.networks", "tidemill.training.boosting"])
"""Processes that start with all imports done."""
FRESH = multiprocessing.get_context("spawn")
"""Processes that start without any."""
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed (tidemill[jax])")


def metrics(entries: list[dict[str, Any]]) -> list[list[dict[str, float]]]:
    return [[entry["train"], entry["valid"]] for entry in entries]


def test_a_network_resumes_after_any_batch(shop):
    """It stops in the first epoch, at an epoch's end, and when the best weights are not the newest."""
    settings = {"epochs": 4, "optimizer": {"name": "adam", "learning_rate": 0.05}, "early_stopping": STOPPING}
    whole, entries = replace(shop, folder=shop.folder / "whole").fit(DCN, **settings)
    for calls in (3, BATCHES, 2 * BATCHES - 2):
        with pytest.raises(Stop):
            shop.fit(DCN, progress=StopAfter(calls), checkpoint_seconds=1e-9, **settings)
    last = StopAfter()
    resumed, resumed_entries = shop.fit(DCN, progress=last, checkpoint_seconds=1e-9, **settings)
    assert last.phases[0].startswith("resumes at epoch ") and not last.phases[0].startswith("resumes at epoch 1,")
    assert resumed.fingerprint() == whole.fingerprint()
    assert metrics(resumed_entries) == metrics(entries)


def test_trees_resume_after_any_round(shop):
    """Each round draws other features; some values are missing, and some categories are native."""
    model = MODELS["gbdt"] | {"bagging_fraction": 1.0, "feature_fraction": 0.5}
    whole, entries = replace(shop, folder=shop.folder / "whole").fit(model)
    for calls in (3, 1, 6):
        with pytest.raises(Stop):
            # A round's checkpoint is written after its progress is reported: the stop is one round later.
            shop.fit(model, progress=StopAfter(calls + 1), checkpoint_seconds=1e-9)
    last = StopAfter()
    resumed, resumed_entries = shop.fit(model, progress=last, checkpoint_seconds=1e-9)
    assert last.phases[0] == "resumes at round 11"
    assert resumed.fingerprint() == whole.fingerprint()
    assert metrics(resumed_entries) == metrics(entries)


def test_other_settings_ignore_the_checkpoint(shop):
    model = MODELS["gbdt"] | {"bagging_fraction": 1.0}
    with pytest.raises(Stop):
        shop.train(model, progress=StopAfter(6), checkpoint_seconds=1e-9)
    assert not (shop.folder / "model").exists()
    other = StopAfter()
    shop.train(model, progress=other, seed=1)
    assert not any(phase.startswith("resumes") for phase in other.phases)
    same = StopAfter()
    shop.train(model, progress=same)
    assert any(phase.startswith("resumes") for phase in same.phases)
    assert not list((shop.folder / "root" / "checkpoints").iterdir())


def test_a_checkpoint_that_cannot_be_written_fails_the_step(shop):
    (shop.folder / "root").mkdir()
    (shop.folder / "root" / "checkpoints").write_text("a file")
    with pytest.raises(OSError, match="checkpoints") as error:
        shop.train(MODELS["gbdt"] | {"bagging_fraction": 1.0, "rounds": 500}, checkpoint_seconds=1e-9)
    mistake = from_system_error(error.value)
    assert mistake is not None and mistake.code is Code.UNUSABLE_PATH
    assert not (shop.folder / "model").exists()


def train_step(spec: str, paths: list[str], root: str, model: str, events: str) -> None:
    """Runs the train step, which reports its progress to `events`."""
    os.environ["TIDEMILL_PROGRESS_FILE"] = events
    with step("train") as progress:
        train(TrainSpec.model_validate_json(spec), *paths, root=root, model=model, progress=progress)


COUNTING = """
import dataclasses
from typing import Literal
import keras
from keras import ops
from tidemill.models import Network
from tidemill.models.core.layers import register

@register
class Count(keras.layers.Layer):
    def __init__(self, feature, num_ids, **kwargs):
        super().__init__(**kwargs)
        self.feature, self.num_ids = feature, num_ids

    def build(self, shape):
        self.counts = self.add_weight(shape=(self.num_ids,), initializer="zeros", trainable=False, name="counts")

    def call(self, ids, training=None):
        if training:
            self.counts.assign_add(ops.sum(ops.one_hot(ids[:, self.feature], self.num_ids), axis=0))
        return ids

    def get_config(self):
        return super().get_config() | {"feature": self.feature, "num_ids": self.num_ids}

class Counting(Network):
    family: Literal["counting"]

    def logit(self, features):
        rows = features.sizes.rows
        feature = rows.index(max(rows))
        return dataclasses.replace(features, ids=Count(feature, rows[feature])(features.ids)).linear()

FAMILY = Counting
"""
"""A family that counts how often it is trained on each id of the feature with the most ids."""


class Trainings:
    """Processes that train one member in one root."""

    def __init__(self, shop: Shop, model: dict[str, Any], **training: Any):
        self.shop, self.model, self.training = shop, model, training
        self.processes = FRESH if training.get("backend") == "jax" else PROCESSES
        self.resumed = 0

    def start(self, name: str, checkpoint_seconds: float) -> tuple[Any, Path]:
        spec = self.shop.spec(self.model, checkpoint_seconds=checkpoint_seconds, **self.training)
        events = self.shop.folder / f"events_{time.monotonic_ns()}"
        paths = [self.shop.examples, self.shop.transformed, self.shop.graph]
        folders = [str(self.shop.folder / f"root_{name}"), str(self.shop.folder / name), str(events)]
        process = self.processes.Process(target=train_step, args=(spec.model_dump_json(), paths, *folders))
        process.start()
        return process, events

    def finish(self, name: str) -> None:
        """Lets a process train to the end."""
        process, events = self.start(name, 3600)
        process.join()
        assert process.exitcode == 0
        self.resumed += "resumes at" in events.read_text()

    def interrupt(self, name: str, how: signal.Signals) -> None:
        """Sends a signal to a process at a random moment of its training.

        With SIGTERM no checkpoint is due, so that the one that it resumes from was written because of the signal.
        """
        process, events = self.start(name, 0.02 if how == signal.SIGKILL else 3600)
        while not events.exists() and process.is_alive():
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, 0.4))
        os.kill(process.pid, how)
        sent = time.monotonic()
        process.join()
        assert time.monotonic() - sent < 10
        assert process.exitcode == (-signal.SIGKILL if how == signal.SIGKILL else PREEMPTED_EXIT_CODE)
        assert not (self.shop.folder / name).exists()
        self.resumed += "resumes at" in events.read_text()

    def assert_equal(self, name: str, other: str) -> None:
        """Compares weights, metrics and the number of epochs of two trained models."""
        fingerprints = [self.shop.document(n)["model_fingerprint"] for n in (name, other)]
        assert fingerprints[0] == fingerprints[1]
        histories = [json.loads((self.shop.folder / n / "history.json").read_text()) for n in (name, other)]
        assert histories[0]["kept"] == histories[1]["kept"]
        assert metrics(histories[0]["entries"]) == metrics(histories[1]["entries"])


def test_a_killed_network_resumes_and_sees_each_row_once_in_each_epoch(tmp_path):
    """Each row has an id of its own, so the counts, which are weights, show on which rows the network was trained."""
    tables = {
        split: table.append_column("row", pc.cast(table["id"], pa.string())) for split, table in shop_tables().items()
    }
    shop = make_shop(tmp_path, tables, FEATURES | {"row": {"kind": "categorical"}})
    trainings = Trainings(shop, {"family": "own", "module": COUNTING}, epochs=60, early_stopping=None)
    trainings.finish("whole")
    for how in (signal.SIGTERM, signal.SIGKILL):
        trainings.interrupt("killed", how)
    trainings.finish("killed")
    assert trainings.resumed > 0
    trainings.assert_equal("whole", "killed")
    (counts,) = (
        variable.numpy()
        for variable in load_model(shop.folder / "killed").network.variables
        if variable.path.endswith("counts")
    )
    assert np.array_equal(counts[: ROWS["train"]], np.full(ROWS["train"], 60.0))


def test_trees_that_bag_rows_start_over(shop):
    whole, entries = replace(shop, folder=shop.folder / "whole").fit(GBDT)
    with pytest.raises(Stop):
        shop.fit(GBDT, progress=StopAfter(6), checkpoint_seconds=1e-9)
    last = StopAfter()
    again, entries_again = shop.fit(GBDT, progress=last, checkpoint_seconds=1e-9)
    assert not any(phase.startswith("resumes") for phase in last.phases)
    assert again.fingerprint() == whole.fingerprint()
    assert metrics(entries_again) == metrics(entries)


def test_killed_trees_resume(shop):
    model = MODELS["gbdt"] | {"rounds": 1500, "learning_rate": 0.01, "bagging_fraction": 1.0, "feature_fraction": 0.6}
    trainings = Trainings(shop, model, early_stopping={"metric": "auc", "patience": 60, "rounds": 1500})
    trainings.finish("whole")
    for how in (signal.SIGTERM, signal.SIGKILL):
        trainings.interrupt("killed", how)
    trainings.finish("killed")
    assert trainings.resumed > 0
    trainings.assert_equal("whole", "killed")


@needs_jax
@pytest.mark.full
def test_a_network_killed_in_jax_resumes(shop):
    trainings = Trainings(shop, DCN, backend="jax", epochs=60, early_stopping=STOPPING | {"patience": 60})
    trainings.finish("whole")
    for how in (signal.SIGTERM, signal.SIGKILL):
        trainings.interrupt("killed", how)
    trainings.finish("killed")
    assert trainings.resumed > 0
    trainings.assert_equal("whole", "killed")
