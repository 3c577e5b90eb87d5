"""The `ensemble` step: one model from the models of folds and members."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.sharing import once
from tests.training.conftest import MODELS, Shop
from tests.training.test_own_family import OWN
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.ensembling.ensemble import EnsembleSummary, ensemble
from tidemill.ensembling.pack import pack_models, packed_models
from tidemill.errors import Code, TidemillError
from tidemill.models import load_model
from tidemill.reports.experiment_page import interval
from tidemill.runtime import Progress
from tidemill.steps.ensemble import EnsembleSpec
from tidemill.steps.train import Fold
from tidemill.training.train import train

pytestmark = pytest.mark.tensorflow
FOLDS = 2
MEMBERS = {"gbdt": MODELS["gbdt"], "own": OWN}
"""A built-in family and one of the user's own."""


def combine(
    shop: Shop, models: list[str], folder: Path, method: str = "stack", members: tuple[str, ...] = tuple(MEMBERS)
) -> EnsembleSummary:
    """Runs the step, which writes `all` and `report.html` to a folder."""
    spec = EnsembleSpec(
        code="x", name="all", members=list(members), folds=FOLDS, label="bought", ensemble={"method": method}
    )
    return ensemble(
        spec, models, shop.examples, shop.transformed, shop.graph,
        model=str(folder / "all"), report=str(folder / "report.html"), progress=Progress("ensemble"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def folds(artifacts, tmp_path_factory) -> list[str]:
    """The models of all folds, only to be read."""

    def build(folder: Path) -> None:
        for name, model in MEMBERS.items():
            for index in range(FOLDS):
                fold = Fold(index=index, of=FOLDS, column=None, seed=0)
                train(
                    artifacts.spec(model).model_copy(update={"fold": fold}),
                    artifacts.examples, artifacts.transformed, artifacts.graph,
                    root=str(folder / "root"), model=str(folder / f"{name}-{index}"), progress=Progress("train"),
                )  # fmt: skip

    folder = once(tmp_path_factory, "folds", build)
    return [str(folder / f"{name}-{index}") for name in MEMBERS for index in range(FOLDS)]


@pytest.fixture(scope="session")
def combined(artifacts, folds, tmp_path_factory) -> Shop:
    """The shop with the stacked ensemble `all`, its report and its summary, only to be read."""

    def build(folder: Path) -> None:
        summary = combine(artifacts, folds[::-1], folder)
        (folder / "summary.json").write_text(json.dumps(vars(summary)))

    return replace(artifacts, folder=once(tmp_path_factory, "ensemble", build))


def test_combines_the_means_over_folds(combined, folds):
    data, model = Dataset(combined.transformed), load_model(combined.folder / "all")
    scores = [load_model(path).predict(data, "test")[:, 0] for path in folds]
    means = np.stack([(scores[0] + scores[1]) / 2, (scores[2] + scores[3]) / 2], axis=1)
    assert model.predict(data, "test")[:, 0] == pytest.approx(model.combination(means), abs=1e-12)


def test_writes_the_files_of_a_model(combined):
    summary = json.loads((combined.folder / "summary.json").read_text())
    assert load_model(combined.folder / "all").fingerprint() == summary["fingerprint"]
    metadata = artifact.open_folder(combined.folder / "all", deep=True)["metadata"]
    assert (metadata["name"], metadata["family"]) == ("all", "ensemble")
    assert summary["out_of_fold"]["auc"] > 0.65 and summary["valid"]["auc"] > 0.65
    assert combined.document("all")["members"] == dict.fromkeys(MEMBERS, FOLDS)
    page = (combined.folder / "report.html").read_text()
    assert all(f"<strong>{name}</strong>" in page for name in ("all", *MEMBERS))


def test_the_mean_of_one_member(shop, folds):
    combine(shop, folds, shop.folder, "mean", ("gbdt",))
    data = Dataset(shop.transformed)
    scores = [load_model(path).predict(data, "valid") for path in folds[:FOLDS]]
    combined = load_model(shop.folder / "all").predict(data, "valid")
    assert combined == pytest.approx((scores[0] + scores[1]) / 2, abs=1e-12)


def test_out_of_fold_scores_come_from_models_that_have_not_seen_the_row(shop, folds):
    data = Dataset(shop.transformed)
    labels = data.read("train", ["bought"])["bought"].to_numpy()
    held_out = []
    for path in folds[:FOLDS]:
        table = pq.read_table(f"{path}/out_of_fold.parquet")
        rows = table["row"].to_numpy()
        held_out.append(rows)
        assert np.array_equal(table["label"].to_numpy(), labels[rows])
        scores = load_model(path).predict(data, "train")[rows, 0]
        assert table["score"].to_numpy() == pytest.approx(scores, abs=1e-12)
    assert np.array_equal(np.sort(np.concatenate(held_out)), np.arange(data.rows("train")))


def test_refuses_a_missing_fold(shop, folds):
    with pytest.raises(TidemillError) as error:
        combine(shop, folds[1:], shop.folder)
    assert error.value.code is Code.INCOMPLETE_ARTIFACT
    assert "no model of gbdt for fold 1 of 2" in str(error.value)
    assert not (shop.folder / "all").exists()


def test_refuses_a_model_of_no_fold(shop, trained):
    model = trained("gbdt").folder / "model"
    with pytest.raises(TidemillError) as error:
        combine(shop, [str(model)], shop.folder, members=("gbdt",))
    assert error.value.code is Code.INCOMPLETE_ARTIFACT


def test_refuses_to_load_an_ensemble_without_one_of_its_members(combined, tmp_path):
    shutil.copytree(combined.folder / "all", tmp_path / "all")
    shutil.rmtree(tmp_path / "all" / "members" / "own")
    with pytest.raises(TidemillError) as error:
        load_model(tmp_path / "all")
    assert error.value.code is Code.INCOMPLETE_ARTIFACT


def test_interval_over_folds():
    """Student's t with 4 degrees of freedom is 2.776, and the standard deviation of the sample is sqrt(2.5)."""
    estimate = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert estimate["value"] == 3.0
    assert estimate["high"] - estimate["value"] == pytest.approx(2.776445 * np.sqrt(2.5) / np.sqrt(5), rel=1e-6)
    assert interval([1.0]) == {"value": 1.0, "low": None, "high": None}


def test_packed_models_are_whole_without_a_second_copy(folds, shop, tmp_path):
    fingerprints = {pack_models(order, str(tmp_path / name)) for name, order in (("a", folds), ("b", folds[::-1]))}
    assert len(fingerprints) == 1
    packed = packed_models(str(tmp_path / "a"))
    metadata = [artifact.open_folder(path, deep=True)["metadata"] for path in packed]
    assert [(each["name"], each["fold"][0]) for each in metadata] == [(m, f) for m in sorted(MEMBERS) for f in (0, 1)]
    for path in map(Path, packed):
        assert not (path / "Format-Serving").exists() and not (path / "logs").exists()
        assert (path / "history.json").stat().st_nlink > 1
    combined = combine(shop, packed, tmp_path)
    assert combined.fingerprint == combine(shop, folds, tmp_path / "direct").fingerprint


def test_a_damaged_model_is_not_packed(folds, tmp_path):
    shutil.copytree(folds[0], tmp_path / "model")
    (tmp_path / "model" / "history.json").write_text("{}")
    with pytest.raises(TidemillError, match=r"history\.json: got 2 bytes"):
        pack_models([str(tmp_path / "model")], str(tmp_path / "packed"))
    assert not (tmp_path / "packed").exists()
