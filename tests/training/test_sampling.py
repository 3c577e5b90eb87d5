"""Training on a sample of the negatives."""

from __future__ import annotations

import pytest

from tests.training.conftest import DCN, make_shop, shop_tables
from tidemill.artifacts.examples import Dataset

pytestmark = [pytest.mark.tensorflow, pytest.mark.full]
ROWS = {"train": 20_000, "valid": 2_000, "test": 20_000}


def test_a_tenth_of_the_negatives_keeps_the_mean_score(tmp_path):
    """The base rate of 20,000 rows, 0.44, has a standard error of 0.8%, on rows that training has not seen and on those
    that the model learns it from: 3.5% is three times both together. Uncorrected, the mean would nearly be doubled."""
    shop = make_shop(tmp_path, shop_tables(ROWS))
    optimizer = {"name": "adam", "learning_rate": 0.02, "schedule": "cosine"}
    settings = {"negative_rate": 0.1, "epochs": 5, "batch_size": 128, "optimizer": optimizer, "early_stopping": None}
    fitted, _ = shop.fit(DCN, **settings)
    base_rate = Dataset(shop.examples).read("test", ["bought"])["bought"].to_numpy().mean()
    assert fitted.predict(Dataset(shop.transformed), "test").mean() == pytest.approx(base_rate, rel=0.035)
