"""The shop with a second label, which is rarer, and whose name TensorFlow does not accept for an output."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.sharing import once
from tests.training.conftest import ROWS, Shop, make_shop, shop_rows

LABELS = ("bought", "sent back")
OUTPUTS = ("score_bought", "score_label_1")
EPOCHS = 6
MMOE = {"family": "mmoe", "experts": 2, "expert": [16, 8], "tower": [8], "embedding_dim": 4}


def two_label_rows(rows: int, seed: int) -> pa.Table:
    """Draws rows whose `sent back` depends on weight and device. One row in eight has it."""
    table = shop_rows(rows, seed)
    rng = np.random.default_rng([seed, 1])
    weight = pc.fill_null(table["weight (kg)"], 70).to_numpy()
    is_watch = pc.fill_null(pc.equal(table["device"], "watch"), False).to_numpy(zero_copy_only=False)
    logit = -2.8 + 0.15 * (weight - 70) + 1.0 * is_watch
    sent_back = rng.random(rows) < 1 / (1 + np.exp(-logit))
    return table.append_column(LABELS[1], pa.array(sent_back.astype(np.int8)))


def make_two_label_shop(folder: Path, rows: dict[str, int]) -> Shop:
    """Writes rows as examples, and transforms them."""
    tables = {split: two_label_rows(count, seed) for seed, (split, count) in enumerate(rows.items())}
    return make_shop(folder, tables, labels=LABELS)


@pytest.fixture(scope="session", name="two")
def two_label_shop(tmp_path_factory) -> Shop:
    """The shop with two labels."""
    folder = once(tmp_path_factory, "two-labels", lambda folder: make_two_label_shop(folder, ROWS))
    return Shop.at(folder, folder, LABELS)


@pytest.fixture(scope="session", name="mmoe")
def trained_two_label_shop(two, tmp_path_factory) -> Shop:
    """The shop with a trained model, only to be read."""

    def build(folder: Path) -> None:
        summary = replace(two, folder=folder).train(MMOE, epochs=EPOCHS)
        (folder / "summary.json").write_text(json.dumps(vars(summary)))

    return replace(two, folder=once(tmp_path_factory, "trained-two-labels", build))
