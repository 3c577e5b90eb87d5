"""A training that is stopped anywhere and started again ends with the same bits."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.training.conftest import DCN, FEATURES, MODELS, ROWS, Shop, make_shop, shop_rows
from tidemill.models import load_model
from tidemill.runtime import PREEMPTED_EXIT_CODE, Progress, step
from tidemill.steps.train import TrainSpec
from tidemill.training.train import train

STOPPING = {"metric": "auc", "patience": 2, "rounds": 50}


class Stop(Exception):
    """Ends a training from outside."""


class StopAfter(Progress):
    """Stops at the n-th call, which is after a batch; notes where training went on from."""

    def __init__(self, calls: int | None = None):
        super().__init__("train")
        self.left = calls
        self.phases: list[str] = []

    def rows(self, done: int, total: int | None = None, what: str = "") -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise Stop

    def phase(self, what: str) -> None:
        self.phases.append(what)


def course(shop: Shop, name: str) -> tuple[int, list]:
    """What was kept and measured, without times."""
    history = json.loads((shop.folder / name / "history.json").read_text())
    return history["kept"], [[entry["train"], entry["valid"]] for entry in history["entries"]]


def test_stopped_after_any_batch(shop):
    """Three stops: in the first epoch, in the last, and at an epoch's end, where the best weights are not the
    newest."""
    told = {"epochs": 4, "optimizer": {"name": "adam", "learning_rate": 0.05}, "early_stopping": STOPPING}
    whole = shop.train(DCN, "whole", **told)
    batches = -(-1500 // 64)
    for calls in (3, batches, 2 * batches - 2):
        with pytest.raises(Stop):
            shop.train(DCN, "resumed", StopAfter(calls), checkpoint_seconds=1e-9, **told)
        assert not (shop.folder / "resumed").exists()
    last = StopAfter()
    resumed = shop.train(DCN, "resumed", last, checkpoint_seconds=1e-9, **told)
    assert last.phases[0].startswith("resumes at epoch ") and not last.phases[0].startswith("resumes at epoch 1,")
    assert resumed.fingerprint == whole.fingerprint
    assert course(shop, "resumed") == course(shop, "whole")
    assert not list((shop.folder / "root" / "checkpoints").glob("*"))


def test_other_settings_do_not_take_the_checkpoint(shop):
    with pytest.raises(Stop):
        shop.train(DCN, progress=StopAfter(30), checkpoint_seconds=1e-9)
    other = StopAfter()
    shop.train(DCN, progress=other, seed=1)
    assert not any(phase.startswith("resumes") for phase in other.phases)
    same = StopAfter()
    shop.train(DCN, progress=same)
    assert same.phases[0].startswith("resumes")


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "tidemill.models.core.neural", "tidemill.training.networks"])
"""Processes that have all imports behind them when they start."""
FRESH = multiprocessing.get_context("spawn")
"""Processes that have none."""
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed (tidemill[jax])")


def train_step(spec: str, paths: list[str], root: str, model: str, events: str) -> None:
    """The train step. Its progress goes to `events`."""
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
    def __init__(self, place, num_ids, **kwargs):
        super().__init__(**kwargs)
        self.place, self.num_ids = place, num_ids

    def build(self, shape):
        self.counts = self.add_weight(shape=(self.num_ids,), initializer="zeros", trainable=False, name="counts")

    def call(self, ids, training=None):
        if training:
            self.counts.assign_add(ops.sum(ops.one_hot(ids[:, self.place], self.num_ids), axis=0))
        return ids

    def get_config(self):
        return super().get_config() | {"place": self.place, "num_ids": self.num_ids}

class Counting(Network):
    family: Literal["counting"]

    def logit(self, features):
        rows = features.sizes.rows
        place = rows.index(max(rows))
        return dataclasses.replace(features, ids=Count(place, rows[place])(features.ids)).linear()

FAMILY = Counting
"""


class Trainings:
    """Processes that train one member: one is left alone, the others are told to end."""

    def __init__(self, shop: Shop, family: str, checkpoint_seconds: float, **told: object):
        self.shop = shop
        trees = MODELS["gbdt"] | {"rounds": 3000, "learning_rate": 0.01}
        unbagged = trees | {"bagging_fraction": 1.0, "feature_fraction": 0.6}
        counting = {"family": "own", "module": COUNTING}
        self.model = {**MODELS, "gbdt": unbagged, "bagged gbdt": trees, "counting": counting}[family]
        told = {"epochs": 60, "early_stopping": {"metric": "auc", "patience": 60, "rounds": 3000}} | told
        self.spec = shop.spec(self.model, checkpoint_seconds=checkpoint_seconds, **told).model_dump_json()
        self.resumed = 0
        self.processes = FRESH if told.get("backend") == "jax" else PROCESSES

    def start(self, root: str, name: str) -> tuple[multiprocessing.Process, Path]:
        events = self.shop.folder / f"events_{time.monotonic_ns()}"
        paths = [self.shop.examples, self.shop.transformed, self.shop.graph]
        into = [str(self.shop.folder / root), str(self.shop.folder / name), str(events)]
        process = self.processes.Process(target=train_step, args=(self.spec, paths, *into))
        process.start()
        return process, events

    def to_the_end(self, root: str, name: str) -> None:
        process, events = self.start(root, name)
        process.join()
        assert process.exitcode == 0
        self.resumed += "resumes at" in events.read_text()

    def interrupted(self, root: str, name: str, how: signal.Signals) -> int:
        """The exit code of one that is told so at some moment after it began to train."""
        process, events = self.start(root, name)
        while not events.exists() and process.is_alive():
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, 0.6))
        os.kill(process.pid, how)
        told = time.monotonic()
        process.join()
        assert time.monotonic() - told < 10
        assert not (self.shop.folder / name).exists()
        self.resumed += "resumes at" in events.read_text()
        return process.exitcode

    def same(self, name: str, other: str) -> None:
        manifests = [json.loads((self.shop.folder / n / "manifest.json").read_text()) for n in (name, other)]
        assert manifests[0]["metadata"]["model_fingerprint"] == manifests[1]["metadata"]["model_fingerprint"]
        assert course(self.shop, name) == course(self.shop, other)


@pytest.mark.parametrize("stops", [[1], [3, 1, 7], [11]])
def test_trees_stopped_after_any_round(shop, stops):
    """With features drawn anew in each round, missing values, native categories and early stopping."""
    model = MODELS["gbdt"] | {"bagging_fraction": 1.0, "feature_fraction": 0.5}
    whole = shop.train(model, "whole")
    for calls in stops:
        with pytest.raises(Stop):
            # A round's checkpoint is written after its progress is told: the stop comes one round later.
            shop.train(model, "resumed", StopAfter(calls + 1), checkpoint_seconds=1e-9)
    last = StopAfter()
    resumed = shop.train(model, "resumed", last, checkpoint_seconds=1e-9)
    assert last.phases[0] == f"resumes at round {sum(stops) + 1}"
    assert resumed.fingerprint == whole.fingerprint
    assert course(shop, "resumed") == course(shop, "whole")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["dcn_v2", "gbdt"])
def test_sigkill_at_random_moments(shop, family):
    """A process is killed three times after it began to train, then left alone."""
    trainings = Trainings(shop, family, checkpoint_seconds=0.02)
    trainings.to_the_end("root_a", "whole")
    for _ in range(3):
        assert trainings.interrupted("root_b", "killed", signal.SIGKILL) == -signal.SIGKILL
    trainings.to_the_end("root_b", "killed")
    assert trainings.resumed > 0
    trainings.same("whole", "killed")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["deepfm", "gbdt", "bagged gbdt"])
def test_sigterm_at_random_moments(shop, family):
    """As above, but no checkpoint is due: those that there are were written when the process was told to end."""
    trainings = Trainings(shop, family, checkpoint_seconds=3600)
    trainings.to_the_end("root_a", "whole")
    for _ in range(3):
        assert trainings.interrupted("root_b", "told", signal.SIGTERM) == PREEMPTED_EXIT_CODE
    trainings.to_the_end("root_b", "told")
    assert trainings.resumed == (0 if family == "bagged gbdt" else 3)
    trainings.same("whole", "told")


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_by_jax(shop, how):
    """As the two above."""
    seconds = 0.02 if how == signal.SIGKILL else 3600
    trainings = Trainings(shop, "dcn_v2", checkpoint_seconds=seconds, backend="jax")
    trainings.to_the_end("root_a", "whole")
    for _ in range(2):
        assert trainings.interrupted("root_b", "stopped", how) in (-signal.SIGKILL, PREEMPTED_EXIT_CODE)
    trainings.to_the_end("root_b", "stopped")
    assert trainings.resumed > 0
    trainings.same("whole", "stopped")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_row_is_trained_twice_or_left_out(tmp_path, how):
    """A layer counts the rows that it is trained on, of which each has an id of its own, and its counts are weights."""
    tables = {split: shop_rows(rows, seed) for seed, (split, rows) in enumerate(ROWS.items())}
    tables = {name: t.append_column("row", pc.cast(t["id"], pa.string())) for name, t in tables.items()}
    shop = make_shop(tmp_path, tables, FEATURES | {"row": {"kind": "categorical"}})
    seconds = 0.02 if how == signal.SIGKILL else 3600
    trainings = Trainings(shop, "counting", seconds, early_stopping=None, negative_rate=1.0)
    for _ in range(3):
        assert trainings.interrupted("root", "counted", how) in (-signal.SIGKILL, PREEMPTED_EXIT_CODE)
    trainings.to_the_end("root", "counted")
    assert trainings.resumed > 0
    (counts,) = (
        variable.numpy()
        for variable in load_model(shop.folder / "counted").network.variables
        if variable.path.endswith("counts")
    )
    assert np.array_equal(counts[:1500], np.full(1500, 60.0))
