"""The shop with a second label, which is rarer, and whose name TensorFlow does not accept for an output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.training.conftest import Shop, make_shop, shop_rows

LABELS = ("bought", "sent back")
OUTPUTS = ("score_bought", "score_label_1")
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
