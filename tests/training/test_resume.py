"""A training that is stopped anywhere and started again ends with the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.conftest import DCN, GBDT, Shop
from tidemill.step import Progress

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
    assert last.phases[0].startswith("goes on from epoch ") and not last.phases[0].startswith("goes on from epoch 1,")
    assert resumed.fingerprint == whole.fingerprint
    assert course(shop, "resumed") == course(shop, "whole")
    assert not list((shop.folder / "root" / "checkpoints").glob("*"))


def test_other_settings_do_not_take_the_checkpoint(shop):
    with pytest.raises(Stop):
        shop.train(DCN, progress=StopAfter(30), checkpoint_seconds=1e-9)
    other = StopAfter()
    shop.train(DCN, progress=other, seed=1)
    assert not any(phase.startswith("goes on") for phase in other.phases)
    same = StopAfter()
    shop.train(DCN, progress=same)
    assert same.phases[0].startswith("goes on")


SCRIPT = """
import sys
from tidemill.specs import TrainSpec
from tidemill.step import Progress
from tidemill.training.train import train
spec, examples, transformed, graph, root, model = sys.argv[1:]
spec, progress = TrainSpec.model_validate_json(spec), Progress("train")
train(spec, examples, transformed, graph, root=root, model=model, progress=progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", ["dcn_v2", "gbdt"])
def test_sigkill_at_random_moments(shop, family):
    """A process is killed three times after it began to train, then left alone."""
    model = {"dcn_v2": DCN, "gbdt": GBDT | {"rounds": 3000, "learning_rate": 0.01}}[family]
    told = {"epochs": 60, "early_stopping": {"metric": "auc", "patience": 60, "rounds": 3000}}
    arguments = [shop.examples, shop.transformed, shop.graph]

    def start(root: str, name: str, events: Path) -> subprocess.Popen:
        spec = shop.spec(model, checkpoint_seconds=0.02, **told).model_dump_json()
        paths = [str(shop.folder / root), str(shop.folder / name)]
        environment = os.environ | {"TIDEMILL_PROGRESS_FILE": str(events)}
        return subprocess.Popen([sys.executable, "-c", SCRIPT, spec, *arguments, *paths], env=environment)

    assert start("root_a", "whole", shop.folder / "events").wait() == 0
    moments = random.Random()
    resumed = 0
    for attempt in range(3):
        events = shop.folder / f"events_{attempt}"
        process = start("root_b", "killed", events)
        while not events.exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the training was over before it was killed"
        assert not (shop.folder / "killed").exists()
        resumed += "goes on from" in events.read_text()
    events = shop.folder / "events_last"
    assert start("root_b", "killed", events).wait() == 0
    resumed += "goes on from" in events.read_text()
    assert (resumed > 0) == (family == "dcn_v2")
    metadata = [json.loads((shop.folder / n / "manifest.json").read_text())["metadata"] for n in ("whole", "killed")]
    assert metadata[0]["model_fingerprint"] == metadata[1]["model_fingerprint"]
    assert course(shop, "whole") == course(shop, "killed")
