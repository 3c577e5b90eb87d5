"""The train step: what it writes, what it rejects, and that it is reproducible."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.training.conftest import DCN, GBDT, KINDS, MODELS, NAMES, ROWS
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.auc_and_log_loss import measure
from tidemill.cpus import available_cpus
from tidemill.errors import Code, TidemillError
from tidemill.models import families, load_model
from tidemill.models.core.inputs import Layout, batches_in_order
from tidemill.models.core.neural import NeuralModel
from tidemill.models.core.registry import new_model, parse_config
from tidemill.models.core.sizes import table_sizes
from tidemill.runtime import Progress

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("name", NAMES)
def test_writes_a_complete_model_that_has_learned(trained, name):
    shop = trained(name)
    summary = json.loads((shop.folder / "summary.json").read_text())
    folder, data, document = shop.folder / "model", Dataset(shop.transformed), shop.document()
    assert artifact.open_folder(folder, deep=True)["metadata"]["model_fingerprint"] == summary["fingerprint"]
    assert summary["family"] == summary["name"] == name
    assert 0 <= summary["checkpoint_blocked_share"] < 1
    assert summary["valid"]["auc"] > 0.7
    assert document["features"] == data.metadata["features"]
    assert document["kept"] == summary["epochs"]
    config = shop.spec(MODELS[name]).model.resolved(ROWS["train"])
    assert document["config"] == config.model_dump(mode="json", exclude={"training"})
    history = json.loads((folder / "history.json").read_text())
    entries = history["entries"]
    assert history["kept"] == summary["epochs"] <= len(entries)
    assert entries[-1]["train"]["log_loss"] < entries[0]["train"]["log_loss"]
    assert len({entry["train"]["log_loss"] for entry in entries}) == len(entries)
    assert not [*(shop.folder / "root").glob("checkpoints/*")]

    model = load_model(folder)
    scores = model.predict(data, "valid")
    assert scores.dtype == np.float64 and scores.shape == (data.rows("valid"), 1)
    labels = data.read("valid", ["bought"])["bought"].to_numpy()
    assert measure(labels, scores[:, 0]) == pytest.approx(summary["valid"], rel=1e-12)
    assert model.fingerprint() == summary["fingerprint"]
    assert model.predict(data, "predict").shape == (0, 1)


@pytest.mark.parametrize("name", ["dcn_v2", pytest.param("final_mlp", marks=pytest.mark.full), "gbdt"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(shop, trained, name):
    first = json.loads((trained(name).folder / "summary.json").read_text())["fingerprint"]
    again, other = (shop.fit(MODELS[name], seed=seed)[0].fingerprint() for seed in (0, 7))
    assert first == again != other


@pytest.mark.parametrize("name", KINDS)
def test_early_stopping_keeps_the_best_epoch(shop, name):
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


@pytest.mark.parametrize("name", ["lr", "gbdt"])
def test_trains_without_a_valid_split(shop, name):
    changed = shop.with_rows(lambda split, table: table.slice(0, 0) if split == "valid" else table)
    summary = changed.train(MODELS[name], early_stopping=None, epochs=2)
    assert summary.valid == {}
    assert summary.epochs == {"lr": 2, "gbdt": GBDT["rounds"]}[name]


def _label(table: pa.Table, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index("bought"), "bought", values.cast(pa.float32()))


def _all_ones(wanted):
    return lambda split, table: _label(table, pc.add(pc.multiply(table["bought"], 0), 1)) if split == wanted else table


def _empty(wanted):
    return lambda split, table: table.slice(0, 0) if split == wanted else table


BAD = {
    "train has one class": (_all_ones("train"), Code.LABEL_ONE_CLASS),
    "valid has one class": (_all_ones("valid"), Code.LABEL_ONE_CLASS),
    "train is empty": (_empty("train"), Code.EMPTY_SPLIT),
    "valid is empty": (_empty("valid"), Code.EMPTY_SPLIT),
    "one row": (lambda split, table: table.slice(0, 1), Code.LABEL_ONE_CLASS),
    "a label of 2": (lambda split, table: _label(table, pc.multiply(table["bought"], 2)), Code.LABEL_TYPE),
    "a null label": (
        lambda split, table: _label(table, pc.if_else(pc.equal(table["bought"], 1), None, 0)),
        Code.LABEL_NULL,
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_rejects_bad_labels_and_writes_nothing(shop, case):
    change, code = BAD[case]
    with pytest.raises(TidemillError) as error:
        shop.with_rows(change).train(GBDT)
    assert error.value.code is code
    assert not (shop.folder / "model").exists() and not (shop.folder / "model.partial").exists()


def test_rejects_transformed_rows_that_are_not_those_of_the_examples(shop):
    changed = shop.with_rows(lambda split, table: table.slice(0, 50))
    with pytest.raises(TidemillError) as error:
        dataclasses.replace(changed, examples=shop.examples).train(GBDT)
    assert error.value.code is Code.INCOMPLETE_ARTIFACT


def _constant(split: str, table: pa.Table) -> pa.Table:
    values = {name: table[name] if name == "bought" else pc.multiply(table[name], 0) for name in table.column_names}
    return pa.table(values).cast(table.schema)


def test_rejects_trees_without_a_feature_that_can_split(shop):
    with pytest.raises(TidemillError) as error:
        shop.with_rows(_constant).train(GBDT)
    assert error.value.code is Code.INVALID_VALUE
    assert "features that each have one value in all" in str(error.value)


def test_rejects_a_share_that_leaves_no_row_with_label_0(shop):
    with pytest.raises(TidemillError) as error:
        shop.train(MODELS["lr"], negative_rate=1e-9)
    assert error.value.code is Code.INVALID_VALUE
    assert error.value.where == "training.negative_rate"


def test_rejects_embeddings_shared_by_features_with_other_vocabularies(shop):
    with pytest.raises(TidemillError) as error:
        shop.train(MODELS["deepfm"] | {"shared_embeddings": [["site", "device"]]})
    assert error.value.code is Code.INVALID_VALUE
    assert error.value.where == "models.deepfm.shared_embeddings"


def test_reports_divergence_and_writes_nothing(shop):
    with pytest.raises(TidemillError) as error:
        shop.train(DCN, optimizer={"name": "sgd", "learning_rate": 1e30})
    assert error.value.code is Code.TRAINING_DIVERGED
    want = "lower training.optimizer.learning_rate, and set transform: zscore for numeric features"
    assert str(error.value) == f"training, epoch 1/3, batch 24: got a train loss of nan; {want}."
    assert not (shop.folder / "model").exists()


FEATURES = {
    "no id features": lambda feature: feature["kind"] == "number",
    "no number features": lambda feature: feature["kind"] == "id",
    "one feature": lambda feature: feature["name"] == "site",
}


@pytest.mark.parametrize("case", FEATURES)
def test_every_family_serves_any_kinds_of_features(shop, case):
    """The weights do not matter, so networks are not trained."""
    data = Dataset(shop.transformed)
    layout = Layout.of([f for f in data.metadata["features"] if FEATURES[case](f)], shop.labels)
    rows = next(batches_in_order(data, "valid", layout, 100))
    for settings in MODELS.values():
        model = new_model(parse_config(settings), layout)
        if isinstance(model, NeuralModel):
            model.network = model.build(table_sizes(model.config, layout))
        else:
            model, _ = shop.fit(settings, FEATURES[case])
        score, _ = model.serving()
        served = score(dict(zip(layout.columns, [*rows.ids.T, *rows.numbers.T], strict=True))).numpy()
        np.testing.assert_allclose(served, model.predict_rows(rows), atol=1e-6, err_msg=model.family)


OTHER_SETTINGS = {
    "no deep network, adagrad with warm-up": (
        DCN | {"deep": []},
        {"optimizer": {"name": "adagrad", "learning_rate": 0.2, "schedule": "linear", "warmup_steps": 10}},
    ),
    "no cross layers, sgd with clipping": (
        DCN | {"cross_layers": 0},
        {"optimizer": {"name": "sgd", "learning_rate": 0.2, "clip_norm": 5.0}},
    ),
    "one batch, embeddings larger than vocabularies": (
        DCN | {"embedding_dim": 64},
        {"batch_size": 10**6, "epochs": 20},
    ),
}


@pytest.mark.parametrize("case", OTHER_SETTINGS)
def test_dcn_v2_learns_with_other_settings(shop, case):
    model, training = OTHER_SETTINGS[case]
    _, entries = shop.fit(model, **training)
    assert entries[-1]["train"]["log_loss"] < entries[0]["train"]["log_loss"]
    assert entries[-1]["valid"]["auc"] > 0.6


def test_mixed_precision_compiled_by_xla_is_exported_as_float32(shop):
    summary = shop.train(DCN, precision="mixed_bfloat16", xla=True, batch_size=60)  # which XLA compiles once
    assert summary.valid["auc"] > 0.65
    network = load_model(shop.folder / "model").network
    assert {layer.compute_dtype for layer in network.layers} <= {"float32", "int32"}
    assert {str(variable.dtype) for variable in network.trainable_variables} == {"float32"}


def test_a_budget_cuts_embedding_tables_and_is_reported(shop):
    summary = shop.train(MODELS["deepfm"] | {"max_embedding_bytes": 320})
    embeddings = shop.document()["embeddings"]
    assert embeddings["bytes"] <= 320
    assert embeddings["features"]["site"]["rows"] < embeddings["features"]["site"]["ids"]
    assert 0 < embeddings["features"]["site"]["cut_share"] < 1
    assert summary.valid["auc"] > 0.6
    with pytest.raises(TidemillError) as error:
        shop.train(MODELS["deepfm"] | {"max_embedding_bytes": 8}, "small")
    assert error.value.code is Code.INVALID_VALUE


def test_scores_are_corrected_for_what_training_saw(shop):
    """Both trainings multiply the odds that training sees by 4 or 5. Uncorrected, the mean score of the logistic
    regression would be above 0.7, while 0.44 of the rows are positive."""
    settings = {
        "epochs": 25,
        "optimizer": {"name": "adam", "learning_rate": 0.1, "schedule": "cosine"},
        "early_stopping": None,
    }
    data = Dataset(shop.transformed)
    labels = data.read("train", ["bought"])["bought"].to_numpy()
    plain, _ = shop.fit(MODELS["lr"], **settings)
    plain_loss = measure(labels, plain.predict(data, "train")[:, 0])["log_loss"]
    for training in ({"negative_rate": 0.2}, {"negative_rate": 0.5, "positive_weight": 2.0}):
        fitted, entries = shop.fit(MODELS["lr"], **settings, **training)
        scores = fitted.predict(data, "train")[:, 0]
        assert scores.mean() == pytest.approx(labels.mean(), abs=0.03)
        assert measure(labels, scores)["log_loss"] == pytest.approx(plain_loss, abs=0.02)
        seen = entries[0]["rows_per_second"] * entries[0]["seconds"]
        expected = labels.sum() + (1 - labels).sum() * training["negative_rate"]
        assert seen == pytest.approx(expected, rel=0.1)


def test_gbdt_splits_categories_natively_or_as_numbers(shop):
    native, _ = shop.fit(GBDT)
    ordinal, _ = shop.fit(GBDT | {"categorical": "ordinal"})
    too_many_ids, _ = shop.fit(GBDT | {"max_native_ids": 1})
    assert "\ncat_threshold=" in native.booster.model_to_string()
    assert "\ncat_threshold=" not in ordinal.booster.model_to_string()
    data = Dataset(shop.transformed)
    np.testing.assert_array_equal(too_many_ids.predict(data, "valid"), ordinal.predict(data, "valid"))


@pytest.mark.process
def test_gbdt_predicts_without_tensorflow(trained):
    """Only the export imports TensorFlow."""
    shop = trained("gbdt")
    code = f"""
import sys
from tidemill.artifacts.examples import Dataset
from tidemill.models import load_model
import tidemill.training.train, tidemill.training.boosting
model = load_model({str(shop.folder / "model")!r})
assert model.predict(Dataset({shop.transformed!r}), "valid").shape == (400, 1)
assert not {{"tensorflow", "keras"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_tensorboard_reads_the_logs(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = trained("gbdt").folder / "model"
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    entries = json.loads((folder / "history.json").read_text())["entries"]
    scalars = events.Scalars("valid/auc")
    assert [event.step for event in scalars] == [entry["step"] for entry in entries]
    assert [event.value for event in scalars] == pytest.approx([entry["valid"]["auc"] for entry in entries], rel=1e-6)


def test_tensorboard_reads_the_logs_of_a_running_training(shop, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("tidemill.training.history._COPY_SECONDS", 0.0)
    monkeypatch.setattr("tidemill.training.loop.CHECK_STEPS", 5)
    logs = shop.folder / "root" / "logs" / "shop" / "dcn_v2"
    seen = []

    class Watching(Progress):
        def rows(self, done, total=None, what="", **options):
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
    (copy,) = logs.rglob("events*")
    assert copy.read_bytes() == next((shop.folder / "model" / "logs").iterdir()).read_bytes()


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000", 999), ("150000 100000", 1), ("50000 100000", 1), (None, 999)]
)
def test_the_cpu_count_respects_the_quota(tmp_path, text, cpus):
    if text:
        (tmp_path / "cpu.max").write_text(text + "\n")
    assert available_cpus(tmp_path / "cpu.max") == min(cpus, available_cpus())


def test_tests_train_every_family():
    assert {*MODELS, "own"} == set(families())


@pytest.mark.parametrize("name", ["core", "no_such", "os.path", "../x"])
def test_rejects_a_model_of_an_unknown_family(tmp_path, trained, name):
    folder = tmp_path / "model"
    shutil.copytree(trained("gbdt").folder / "model", folder)
    document = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(document | {"config": document["config"] | {"family": name}}))
    artifact.seal(folder, {})
    with pytest.raises(TidemillError) as error:
        load_model(folder)
    assert error.value.code is Code.UNSUPPORTED
    assert error.value.got == repr(name)


def test_rejects_a_model_whose_weights_or_document_are_damaged(tmp_path, trained):
    folder = tmp_path / "model"
    shutil.copytree(trained("gbdt").folder / "model", folder)
    (folder / "model.txt").write_text("tree")
    for damaged in ("model.txt", "model.json"):
        (folder / damaged).write_text("tree")
        with pytest.raises(TidemillError) as error:
            load_model(folder)
        assert error.value.code is Code.INCOMPLETE_ARTIFACT
        artifact.seal(folder, {})
        with pytest.raises(TidemillError) as error:
            load_model(folder)
        assert error.value.code is Code.INCOMPLETE_ARTIFACT
