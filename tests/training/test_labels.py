"""Trainings with several labels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tensorflow as tf

from tests.training.conftest import ROWS, Shop
from tests.training.test_own_family import TEXT
from tests.training.test_warm_start import publish
from tests.training.two_labels import EPOCHS, LABELS, MMOE, OUTPUTS, trained_two_label_shop, two_label_shop  # noqa: F401
from tidemill.artifacts.examples import Dataset
from tidemill.artifacts.model import ServingOutput, read_inputs, read_outputs
from tidemill.auc_and_log_loss import measure
from tidemill.errors import Code, TidemillError
from tidemill.models import load_model
from tidemill.models.core.inputs import read_labels
from tidemill.runtime import Progress
from tidemill.serving.replay import TOLERANCE, replay, sample, to_examples
from tidemill.serving.signatures import score_names
from tidemill.steps.train import Fold
from tidemill.training.train import train
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import RawColumn, to_dense

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def shop(two, tmp_path) -> Shop:
    return replace(two, folder=tmp_path)


def summary_of(shop: Shop) -> dict:
    return json.loads((shop.folder / "summary.json").read_text())


def test_labels_are_not_features(two):
    data = Dataset(two.transformed)
    assert data.metadata["labels"] == list(LABELS)
    assert list(data.columns)[-2:] == list(LABELS)
    assert not set(LABELS) & {feature["name"] for feature in data.metadata["features"]}
    assert not set(LABELS) & {column.name for column in TransformGraph(two.graph).raw_columns}
    raw = Dataset(two.examples).read("valid")
    for label in LABELS:
        assert data.read("valid", [label])[label].to_pylist() == raw[label].to_pylist()


def test_learns_both_labels_and_reports_each(mmoe):
    data, document, valid = Dataset(mmoe.transformed), mmoe.document(), summary_of(mmoe)["valid"]
    assert document["labels"] == list(LABELS) and document["config"]["experts"] == 2
    model = load_model(mmoe.folder / "model")
    assert model.layout.labels == LABELS
    labels, scores = read_labels(data, "valid", LABELS), model.predict(data, "valid")
    assert scores.shape == labels.shape == (ROWS["valid"], 2)
    by_label = {name: measure(labels[:, i], scores[:, i]) for i, name in enumerate(LABELS)}
    assert all(values["auc"] > 0.7 for values in by_label.values())
    for metric in ("auc", "log_loss"):
        values = [by_label[name][metric] for name in LABELS]
        assert [valid[f"{metric}_{name}"] for name in LABELS] == pytest.approx(values, rel=1e-9)
        assert valid[metric] == pytest.approx(np.mean(values), rel=1e-9)
    # Scores follow each label's own rate, not the mean of both.
    assert scores.mean(axis=0) == pytest.approx(labels.mean(axis=0), abs=0.06)
    assert abs(labels.mean(axis=0)[0] - labels.mean(axis=0)[1]) > 0.2


def test_the_history_has_means_and_each_label(mmoe):
    entries = json.loads((mmoe.folder / "model" / "history.json").read_text())["entries"]
    for entry in entries:
        assert set(entry["valid"]) == {"auc", "log_loss", *(f"{m}_{n}" for m in ("auc", "log_loss") for n in LABELS)}
        losses = [entry["valid"][f"log_loss_{name}"] for name in LABELS]
        assert entry["valid"]["log_loss"] == pytest.approx(np.mean(losses))
    assert entries[-1]["train"]["log_loss"] < entries[0]["train"]["log_loss"]


def test_early_stopping_uses_the_mean(shop):
    stopping = {"metric": "auc", "patience": 1}
    optimizer = {"name": "adam", "learning_rate": 0.05}
    fitted, entries = shop.fit(MMOE, epochs=20, optimizer=optimizer, early_stopping=stopping)
    means = [entry["valid"]["auc"] for entry in entries]
    best = int(np.argmax(means))
    assert len(entries) - 1 - best == 1
    data = Dataset(shop.transformed)
    labels, scores = read_labels(data, "valid", LABELS), fitted.predict(data, "valid")
    aucs = [measure(labels[:, i], scores[:, i])["auc"] for i in range(2)]
    assert np.mean(aucs) == pytest.approx(means[best], abs=1e-12)


def test_the_same_seed_gives_the_same_weights(shop, mmoe):
    assert shop.fit(MMOE, epochs=EPOCHS)[0].fingerprint() == summary_of(mmoe)["fingerprint"]


def test_signatures_return_a_score_for_each_label(mmoe):
    folder = mmoe.folder / "model"
    inputs = read_inputs(folder / "Format-Serving")
    assert read_outputs(folder / "Format-Serving") == [*map(ServingOutput, LABELS, OUTPUTS)]
    columns, names = [RawColumn(each.name, each.dtype) for each in inputs], {each.name: each.input for each in inputs}
    raw = to_dense(next(Dataset(mmoe.examples).batches("test")), columns)
    expected = load_model(folder).predict(Dataset(mmoe.transformed), "test")
    served = tf.saved_model.load(str(folder / "Format-Serving"))
    dense = served.signatures["serving_default"](**{names[n]: tf.constant(v) for n, v in raw.items()})
    texts = served.signatures["serialized_examples"](examples=tf.constant(to_examples(raw, columns)))
    assert set(dense) == set(texts) == set(OUTPUTS)
    for i, output in enumerate(OUTPUTS):
        assert dense[output].shape == (ROWS["test"],) and dense[output].dtype == tf.float32
        np.testing.assert_allclose(dense[output], expected[:, i], atol=TOLERANCE)
        np.testing.assert_allclose(texts[output], expected[:, i], atol=TOLERANCE)


def test_reports_skew_of_the_second_label(mmoe):
    model = load_model(mmoe.folder / "model")
    exported, graph, raw = mmoe.folder / "model" / "Format-Serving", TransformGraph(mmoe.graph), Dataset(mmoe.examples)
    bias = model.network.get_layer("tower_1_logit").bias
    bias.assign(bias + 0.1)
    with pytest.raises(TidemillError) as error:
        replay(exported, graph, raw, sample(model, raw, Dataset(mmoe.transformed)))
    assert error.value.code is Code.SERVING_SKEW and error.value.details["output"] == OUTPUTS[1]


def test_scores_are_named_by_labels_if_tensorflow_accepts_them():
    assert score_names(["any thing"]) == {"any thing": "score"}
    assert score_names(["a", "b c", "d"]) == {"a": "score_a", "b c": "score_label_1", "d": "score_d"}
    names = score_names(["A", "a", "label_0", "é"])
    assert len({name.lower() for name in names.values()}) == 4


def test_positive_weight_is_corrected_in_each_score(shop):
    optimizer = {"name": "adam", "learning_rate": 0.05, "schedule": "cosine"}
    settings = {"epochs": 15, "optimizer": optimizer, "early_stopping": None, "positive_weight": 5.0}
    fitted, _ = shop.fit(MMOE | {"expert": [4], "tower": [], "experts": 1}, **settings)
    data = Dataset(shop.transformed)
    rates = read_labels(data, "train", LABELS).mean(axis=0)
    assert fitted.predict(data, "train").mean(axis=0) == pytest.approx(rates, abs=0.05)


def _changed(label: str, split: str, change):
    def apply(name: str, table: pa.Table) -> pa.Table:
        if name != split:
            return table
        values = change(table[label]).cast(pa.float32())
        return table.set_column(table.schema.get_field_index(label), label, values)

    return apply


BAD = {
    "one class in train": ("train", lambda column: pc.multiply(column, 0), Code.LABEL_ONE_CLASS),
    "one class in valid": ("valid", lambda column: pc.multiply(column, 0), Code.LABEL_ONE_CLASS),
    "a value of 2": ("train", lambda column: pc.multiply(column, 2), Code.LABEL_TYPE),
    "nulls": ("valid", lambda column: pc.if_else(pc.equal(column, 1), None, 0), Code.LABEL_NULL),
}


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("case", BAD)
def test_checks_every_label(shop, case, label):
    split, change, code = BAD[case]
    with pytest.raises(TidemillError) as error:
        shop.with_rows(_changed(label, split, change)).train(MMOE)
    assert error.value.code is code and label in error.value.where
    assert not (shop.folder / "model").exists()


@pytest.mark.parametrize(
    ("model", "training"),
    [({"family": "gbdt"}, {}), ({"family": "dcn_v2"}, {}), (MMOE, {"negative_rate": 0.5})],
    ids=["gbdt", "a network for one label", "sampling"],
)
def test_rejects_what_needs_one_label(shop, model, training):
    with pytest.raises(TidemillError) as error:
        shop.train(model, **training)
    assert error.value.code is Code.UNSUPPORTED and not (shop.folder / "model").exists()


def test_rejects_a_fold_with_several_labels(shop):
    spec = shop.spec(MMOE).model_copy(update={"fold": Fold(index=0, of=2, column=None, seed=0)})
    with pytest.raises(TidemillError) as error:
        train(
            spec, shop.examples, shop.transformed, shop.graph,
            root=str(shop.folder / "root"), model=str(shop.folder / "model"), progress=Progress("train"),
        )  # fmt: skip
    assert error.value.code is Code.UNSUPPORTED


SEVERAL = TEXT.replace('"""One hidden layer."""', "several_labels: ClassVar[bool] = True")
SEVERAL = SEVERAL.replace("import Literal", "import ClassVar, Literal").replace("Dense(1)", "Dense(features.labels)")


def test_a_user_defined_family_predicts_several_labels(shop):
    summary = shop.train({"family": "own", "module": SEVERAL, "settings": {"width": 8}}, epochs=4)
    assert min(summary.valid[f"auc_{name}"] for name in LABELS) > 0.55
    assert load_model(shop.folder / "model").predict(Dataset(shop.transformed), "test").shape == (ROWS["test"], 2)


@pytest.mark.parametrize(
    ("module", "code", "text"),
    [
        (TEXT, Code.UNSUPPORTED, "several_labels = True"),
        (SEVERAL.replace("features.labels", "1"), Code.INVALID_VALUE, "[batch, 2]"),
    ],
    ids=["one that does not declare several labels", "one that returns one logit"],
)
def test_rejects_a_user_defined_family_for_one_label(shop, module, code, text):
    with pytest.raises(TidemillError) as error:
        shop.train({"family": "own", "module": module})
    assert error.value.code is code and text in str(error.value)
    assert error.value.where.startswith("models.own.module")


def test_a_warm_start_transfers_towers_and_gates_too(mmoe, shop):
    uri = publish(mmoe.folder / "model", shop.folder / "published")
    again, _ = shop.fit_from(MMOE, uri)
    data = Dataset(shop.transformed)
    earlier = load_model(mmoe.folder / "model").predict(data, "valid")
    assert again.predict(data, "valid") == pytest.approx(earlier, abs=1e-5)
