"""One model of the models of folds."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.training.conftest import MODELS, Shop
from tests.training.test_own_family import OWN
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.ensembling.ensemble import ensemble
from tidemill.errors import Code, TidemillError
from tidemill.models import load_model
from tidemill.reports.experiment_page import interval
from tidemill.runtime import Progress
from tidemill.steps.ensemble import EnsembleSpec
from tidemill.steps.train import Fold
from tidemill.training.train import train

FOLDS = 2
MEMBERS = ("gbdt", "lr")


def train_folds(shop: Shop, models: dict[str, dict]) -> list[str]:
    paths = []
    for member in models:
        for index in range(FOLDS):
            fold = Fold(index=index, of=FOLDS, column=None, seed=0)
            spec = shop.spec(models[member]).model_copy(update={"fold": fold})
            paths.append(str(shop.folder / f"{member}-{index}"))
            train(
                spec, shop.examples, shop.transformed, shop.graph,
                root=str(shop.folder / "root"), model=paths[-1], progress=Progress("train"),
            )  # fmt: skip
    return paths


def combine(shop: Shop, paths: list[str], method: str = "stack", members: tuple[str, ...] = MEMBERS):
    told = {"code": "x", "name": "all", "members": list(members), "folds": FOLDS, "label": "bought"}
    return ensemble(
        EnsembleSpec(ensemble={"method": method}, **told), paths, shop.examples, shop.transformed, shop.graph,
        model=str(shop.folder / "all"), report=str(shop.folder / "report.html"), progress=Progress("ensemble"),
    )  # fmt: skip


@pytest.fixture
def folds(shop) -> list[str]:
    return train_folds(shop, {name: MODELS[name] for name in MEMBERS})


def test_a_model_like_any_other(shop, folds):
    summary = combine(shop, folds[::-1])
    data = Dataset(shop.transformed)
    model = load_model(shop.folder / "all")
    parts = [load_model(path).predict(data, "test")[:, 0] for path in folds]
    scores = np.stack([(parts[0] + parts[1]) / 2, (parts[2] + parts[3]) / 2], axis=1)
    assert model.predict(data, "test")[:, 0] == pytest.approx(model.combination(scores), abs=1e-12)
    assert model.fingerprint() == summary.fingerprint
    metadata = artifact.open_folder(shop.folder / "all", deep=True)["metadata"]
    assert (metadata["name"], metadata["family"]) == ("all", "ensemble")
    assert summary.out_of_fold["auc"] > 0.65 and summary.valid["auc"] > 0.65
    document = json.loads((shop.folder / "all" / "model.json").read_text())
    assert document["members"] == {"gbdt": 2, "lr": 2}
    page = (shop.folder / "report.html").read_text()
    assert all(f"<strong>{name}</strong>" in page for name in ("all", *MEMBERS))


def test_the_mean_of_one_member(shop, folds):
    combine(shop, folds, "mean", ("lr",))
    data = Dataset(shop.transformed)
    parts = [load_model(path).predict(data, "valid") for path in folds[2:]]
    found = load_model(shop.folder / "all").predict(data, "valid")
    assert found == pytest.approx((parts[0] + parts[1]) / 2, abs=1e-12)


def test_out_of_fold_scores_are_those_of_models_that_have_not_seen_the_row(shop, folds):
    import pyarrow.parquet as pq

    data = Dataset(shop.transformed)
    labels = data.read("train", ["bought"])["bought"].to_numpy()
    seen = []
    for path in folds[:FOLDS]:
        table = pq.read_table(f"{path}/out_of_fold.parquet")
        rows = table["row"].to_numpy()
        seen.append(rows)
        assert np.array_equal(table["label"].to_numpy(), labels[rows])
        scores = load_model(path).predict(data, "train")[rows, 0]
        assert table["score"].to_numpy() == pytest.approx(scores, abs=1e-12)
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(data.rows("train")))


def test_a_family_of_the_users_own(shop):
    paths = train_folds(shop, {"own": OWN})
    combine(shop, paths, members=("own",))
    data = Dataset(shop.transformed)
    assert np.isfinite(load_model(shop.folder / "all").predict(data, "test")).all()


def test_a_missing_fold(shop, folds):
    with pytest.raises(TidemillError) as error:
        combine(shop, folds[1:])
    assert error.value.code is Code.INCOMPLETE_ARTIFACT
    assert "no model of gbdt for fold 1 of 2" in str(error.value)
    assert not (shop.folder / "all").exists()


def test_models_that_are_of_no_fold(shop):
    shop.train(MODELS["lr"], "lr")
    with pytest.raises(TidemillError) as error:
        combine(shop, [str(shop.folder / "lr")], members=("lr",))
    assert error.value.code is Code.INCOMPLETE_ARTIFACT


def test_a_broken_ensemble_is_refused(shop, folds):
    combine(shop, folds)
    shutil.rmtree(shop.folder / "all" / "members" / "lr")
    with pytest.raises(TidemillError) as error:
        load_model(shop.folder / "all")
    assert error.value.code is Code.INCOMPLETE_ARTIFACT


def test_intervals_over_folds():
    """Student's t with 4 degrees of freedom: 2.776; the sample's standard deviation is sqrt(2.5)."""
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found["value"] == 3.0
    assert found["high"] - found["value"] == pytest.approx(2.776445 * np.sqrt(2.5) / np.sqrt(5), rel=1e-6)
    assert interval([1.0]) == {"value": 1.0, "low": None, "high": None}
