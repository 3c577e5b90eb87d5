"""Training as a step: what it writes, what it refuses, and that it repeats itself."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.docs.samples import without_numbers
from tests.training.conftest import DCN, GBDT, KINDS, MODELS
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.binary_metrics import measure
from tidemill.cpus import available_cpus
from tidemill.errors import Code, TidemillError
from tidemill.models import families, load_model
from tidemill.models.core.inputs import in_order
from tidemill.runtime import Progress


@pytest.mark.parametrize("name", MODELS)
def test_learns_and_writes_a_whole_model(shop, name):
    summary = shop.train(MODELS[name])
    folder, data = shop.folder / "model", Dataset(shop.transformed)
    metadata = artifact.open_folder(folder, deep=True)["metadata"]
    assert summary.family == summary.name == name
    assert summary.valid["auc"] > 0.7
    assert metadata["model_fingerprint"] == summary.fingerprint
    document = json.loads((folder / "model.json").read_text())
    assert document["features"] == data.metadata["features"]
    assert document["kept"] == summary.epochs
    assert document["config"] == shop.spec(MODELS[name]).model.model_dump(mode="json")
    history = json.loads((folder / "history.json").read_text())
    assert history["kept"] == summary.epochs <= len(history["entries"])
    assert history["entries"][-1]["train"]["log_loss"] < history["entries"][0]["train"]["log_loss"]
    assert not (shop.folder / "root" / "checkpoints").exists() or not list(
        (shop.folder / "root" / "checkpoints").iterdir()
    )

    model = load_model(folder)
    scores = model.predict(data, "valid")
    assert scores.dtype == np.float64 and scores.shape == (data.rows("valid"), 1)
    assert measure(data.read("valid", ["bought"])["bought"].to_numpy(), scores[:, 0]) == pytest.approx(
        summary.valid, rel=1e-12
    )
    assert model.fingerprint() == summary.fingerprint
    assert model.predict(data, "predict").shape == (0, 1)


@pytest.mark.parametrize("name", KINDS)
def test_early_stopping_keeps_the_best(shop, name):
    stopping = {"metric": "auc", "patience": 1, "rounds": 2}
    model = {"dcn_v2": DCN, "gbdt": GBDT | {"learning_rate": 1.0, "rounds": 100}}[name]
    optimizer = {"name": "adam", "learning_rate": 0.05}
    fitted, entries = shop.fit(model, epochs=20, optimizer=optimizer, early_stopping=stopping)
    aucs = [entry["valid"]["auc"] for entry in entries]
    best = int(np.argmax(aucs))
    assert len(entries) - 1 - best == {"dcn_v2": 1, "gbdt": 2}[name]
    data = Dataset(shop.transformed)
    labels = data.read("valid", ["bought"])["bought"].to_numpy()
    assert measure(labels, fitted.predict(data, "valid")[:, 0])["auc"] == pytest.approx(aucs[best], abs=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_again_and_another_seed(shop, name):
    (first, history), (again, _) = (shop.fit(MODELS[name], epochs=2) for _ in range(2))
    other, _ = shop.fit(MODELS[name], epochs=2, seed=7)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert len({entry["train"]["log_loss"] for entry in history}) == len(history)


@pytest.mark.parametrize("name", KINDS)
def test_without_valid_rows(shop, name):
    changed = shop.with_rows(lambda split, table: table.slice(0, 0) if split == "valid" else table)
    summary = changed.train(MODELS[name], early_stopping=None)
    assert summary.valid == {}
    assert summary.epochs == {"dcn_v2": 3, "gbdt": 12}[name]


def _label(table: pa.Table, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index("bought"), "bought", values.cast(pa.float32()))


def _all_ones(wanted):
    return lambda split, table: _label(table, pc.add(pc.multiply(table["bought"], 0), 1)) if split == wanted else table


def _none(wanted):
    return lambda split, table: table.slice(0, 0) if split == wanted else table


BAD = {
    "train has one class": (_all_ones("train"), Code.LABEL_ONE_CLASS),
    "valid has one class": (_all_ones("valid"), Code.LABEL_ONE_CLASS),
    "train is empty": (_none("train"), Code.EMPTY_SPLIT),
    "valid is empty": (_none("valid"), Code.EMPTY_SPLIT),
    "one row": (lambda split, table: table.slice(0, 1), Code.LABEL_ONE_CLASS),
    "a label of 2": (lambda split, table: _label(table, pc.multiply(table["bought"], 2)), Code.LABEL_TYPE),
    "a null label": (
        lambda split, table: _label(table, pc.if_else(pc.equal(table["bought"], 1), None, 0)),
        Code.LABEL_NULL,
    ),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("case", BAD)
def test_refuses(shop, name, case):
    change, code = BAD[case]
    changed = shop.with_rows(change)
    with pytest.raises(TidemillError) as error:
        changed.train(MODELS[name])
    assert error.value.code is code
    assert not (shop.folder / "model").exists() and not (shop.folder / "model.partial").exists()


def test_refuses_rows_that_are_not_aligned(shop):
    changed = shop.with_rows(lambda split, table: table.slice(0, 50))
    mixed = dataclasses.replace(changed, examples=shop.examples)
    with pytest.raises(TidemillError) as error:
        mixed.train(GBDT)
    assert error.value.code is Code.INCOMPLETE_ARTIFACT


def test_divergence(shop):
    with pytest.raises(TidemillError) as error:
        shop.train(DCN, optimizer={"name": "sgd", "learning_rate": 1e30})
    assert error.value.code is Code.TRAINING_DIVERGED
    assert without_numbers(str(error.value)) == without_numbers(Code.TRAINING_DIVERGED.value.example)
    assert not (shop.folder / "model").exists()


SMALL = {
    "no id features": lambda feature: feature["kind"] == "number",
    "no number features": lambda feature: feature["kind"] == "id",
    "one feature": lambda feature: feature["name"] == "site",
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", SMALL)
def test_any_features(shop, name, case):
    """Without ids or without numbers the families fit and serve too."""
    model, _ = shop.fit(MODELS[name], SMALL[case], epochs=1)
    score, _ = model.serving()
    rows = next(in_order(Dataset(shop.transformed), "valid", model.layout, 100))
    got = score(dict(zip(model.layout.columns, [*rows.ids.T, *rows.numbers.T], strict=True))).numpy()
    np.testing.assert_allclose(got, model.predict_rows(rows), atol=1e-6)


OTHER_WAYS = {
    "no deep network": (DCN | {"deep": []}, {}),
    "no cross layers": (DCN | {"cross_layers": 0}, {}),
    "embeddings larger than vocabularies": (DCN | {"embedding_dim": 64}, {}),
    "adagrad": (DCN, {"optimizer": {"name": "adagrad", "learning_rate": 0.05}}),
    "sgd": (DCN, {"optimizer": {"name": "sgd", "learning_rate": 0.05}}),
    "one batch": (DCN, {"batch_size": 10**6, "epochs": 30}),
    "compiled by XLA": (DCN, {"xla": True}),
}


@pytest.mark.parametrize("case", OTHER_WAYS)
def test_dcn_v2_learns(shop, case):
    model, training = OTHER_WAYS[case]
    _, entries = shop.fit(model, **training)
    assert entries[-1]["train"]["log_loss"] < entries[0]["train"]["log_loss"]
    assert entries[-1]["valid"]["auc"] > 0.6


def test_gbdt_native_and_ordinal(shop):
    native, _ = shop.fit(GBDT)
    ordinal, _ = shop.fit(GBDT | {"categorical": "ordinal"})
    none, _ = shop.fit(GBDT | {"max_native_ids": 1})
    assert "\ncat_threshold=" in native.booster.model_to_string()
    assert "\ncat_threshold=" not in ordinal.booster.model_to_string()
    data = Dataset(shop.transformed)
    np.testing.assert_array_equal(none.predict(data, "valid"), ordinal.predict(data, "valid"))


def test_gbdt_needs_no_tensorflow(shop):
    """Fitting and predicting do not import TensorFlow; only the export does."""
    code = f"""
import sys
from tidemill.artifacts.examples import Dataset
from tidemill.models import load_model
import tidemill.training.train
model = load_model({str(shop.folder / "model")!r})
assert model.predict(Dataset({shop.transformed!r}), "valid").shape == (400, 1)
assert "tensorflow" not in sys.modules, "tensorflow"
"""
    shop.train(GBDT)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_tensorboard_reads_the_logs(shop):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shop.train(GBDT)
    events = EventAccumulator(str(shop.folder / "model" / "logs"))
    events.Reload()
    entries = json.loads((shop.folder / "model" / "history.json").read_text())["entries"]
    found = events.Scalars("valid/auc")
    assert [e.step for e in found] == [entry["step"] for entry in entries]
    assert [e.value for e in found] == pytest.approx([entry["valid"]["auc"] for entry in entries], rel=1e-6)


def test_tensorboard_reads_a_training_that_goes_on(shop, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("tidemill.training.history._COPY_SECONDS", 0.0)
    monkeypatch.setattr("tidemill.training.loop.CHECK_STEPS", 5)
    logs = shop.folder / "root" / "logs" / "shop" / "dcn_v2"
    seen = []

    class Watching(Progress):
        def rows(self, done, total=None, what=""):
            if what == "epoch 2/3" and done == total:
                events = EventAccumulator(str(next(logs.iterdir())))
                events.Reload()
                seen.append(events)

    shop.train(DCN, progress=Watching("train"))
    (events,) = seen
    assert [event.step for event in events.Scalars("valid/auc")] == [1]
    losses = events.Scalars("train/log_loss_so_far")
    assert [event.step for event in losses][:2] == [5, 10]
    assert losses[-1].value < losses[0].value
    (left,) = logs.rglob("events*")
    assert left.read_bytes() == next((shop.folder / "model" / "logs").iterdir()).read_bytes()


@pytest.mark.parametrize(
    ("text", "threads"), [("max 100000", 999), ("150000 100000", 1), ("50000 100000", 1), (None, 999)]
)
def test_threads_keep_to_the_quota(tmp_path, text, threads):
    if text:
        (tmp_path / "cpu.max").write_text(text + "\n")
    assert available_cpus(tmp_path / "cpu.max") == min(threads, available_cpus())


def test_all_families_are_tried():
    assert {*MODELS, "own"} == set(families())


def test_unknown_family(shop):
    shop.train(GBDT)
    path = shop.folder / "model" / "model.json"
    document = json.loads(path.read_text())
    for name in ("parts", "no_such", "os.path", "../x"):
        path.write_text(json.dumps(document | {"family": name}))
        with pytest.raises(TidemillError) as error:
            load_model(shop.folder / "model")
        assert error.value.code in (Code.UNSUPPORTED, Code.INCOMPLETE_ARTIFACT)


def test_load_refuses_a_broken_model(shop):
    shop.train(GBDT)
    (shop.folder / "model" / "model.txt").write_text("tree")
    with pytest.raises(TidemillError) as error:
        load_model(shop.folder / "model")
    assert error.value.code is Code.INCOMPLETE_ARTIFACT


@pytest.mark.parametrize(
    "told", [{"negative_rate": 0.2}, {"positive_weight": 5.0}, {"negative_rate": 0.5, "positive_weight": 2.0}], ids=str
)
def test_scores_are_corrected_for_what_training_saw(shop, told):
    """All multiply the odds that training sees by 4 or 5: uncorrected, the mean score of the logistic regression would
    be above 0.7 where a share of 0.44 is positive."""
    settings = {
        "epochs": 120,
        "optimizer": {"name": "adam", "learning_rate": 0.02, "schedule": "cosine"},
        "early_stopping": None,
    }
    fitted, entries = shop.fit(MODELS["lr"], **settings, **told)
    data = Dataset(shop.transformed)
    labels, scores = data.read("train", ["bought"])["bought"].to_numpy(), fitted.predict(data, "train")[:, 0]
    assert scores.mean() == pytest.approx(labels.mean(), abs=0.03)
    plain, _ = shop.fit(MODELS["lr"], **settings)
    assert measure(labels, scores)["log_loss"] == pytest.approx(
        measure(labels, plain.predict(data, "train")[:, 0])["log_loss"], abs=0.02
    )
    if "negative_rate" in told:
        seen = entries[0]["rows_per_second"] * entries[0]["seconds"]
        wanted = labels.sum() + (1 - labels).sum() * told["negative_rate"]
        assert seen == pytest.approx(wanted, rel=0.1)


def test_mixed_precision_is_exported_as_float32(shop):
    summary = shop.train(DCN, precision="mixed_bfloat16")
    assert summary.valid["auc"] > 0.7
    network = load_model(shop.folder / "model").network
    assert {layer.compute_dtype for layer in network.layers} <= {"float32", "int32"}
    assert {str(variable.dtype) for variable in network.trainable_variables} == {"float32"}


def test_a_budget_cuts_tables_and_says_so(shop):
    summary = shop.train(MODELS["deepfm"] | {"max_embedding_bytes": 320})
    document = json.loads((shop.folder / "model" / "model.json").read_text())["embeddings"]
    assert document["bytes"] <= 320
    assert document["features"]["site"]["rows"] < document["features"]["site"]["ids"]
    assert 0 < document["features"]["site"]["cut_share"] < 1
    assert summary.valid["auc"] > 0.6
    with pytest.raises(TidemillError) as error:
        shop.train(MODELS["deepfm"] | {"max_embedding_bytes": 8}, "small")
    assert error.value.code is Code.INVALID_VALUE


def test_shared_embeddings(shop):
    """`site` and `device` have other vocabularies, so sharing them is a mistake."""
    with pytest.raises(TidemillError) as error:
        shop.train(MODELS["deepfm"] | {"shared_embeddings": [["site", "device"]]})
    assert error.value.code is Code.INVALID_VALUE
    assert error.value.where == "models.deepfm.shared_embeddings"


@pytest.mark.parametrize("optimizer", ["adagrad", "sgd"])
def test_other_optimizers(shop, optimizer):
    told = {"name": optimizer, "learning_rate": 0.2, "schedule": "linear", "warmup_steps": 10, "clip_norm": 5.0}
    assert shop.train(DCN | {"dropout": 0.0}, optimizer=told, epochs=6).valid["auc"] > 0.65


def test_a_share_that_leaves_no_row_with_label_0(shop):
    with pytest.raises(TidemillError) as error:
        shop.train(MODELS["lr"], negative_rate=1e-9)
    assert error.value.code is Code.INVALID_VALUE
    assert error.value.where == "training.negative_rate"
