"""Defaults of training that follow the rows of train, and the settings of single members."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill.artifacts.model import ModelDocument
from tidemill.errors import Code, TidemillError
from tidemill.experiment import parse
from tidemill.experiment.training import Training
from tidemill.models.core.registry import parse_config
from tidemill.training.defaults import known, resolve


def settings(rows: int, model: dict[str, Any], **training: Any) -> dict[str, Any]:
    """Returns what is resolved for a member, by name."""
    resolved, config = resolve(Training(**training), parse_config(model), rows)
    stopping = resolved.early_stopping
    return {
        **config.model_dump(include={"num_leaves", "min_data_in_leaf", "dropout", "cross_layers"}),
        **resolved.model_dump(include={"epochs", "batch_size"}),
        "learning_rate": resolved.optimizer.learning_rate,
        "patience": None if stopping is None else stopping.patience,
    }


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs", "patience", "cross_layers", "dropout"),
    [
        (100, 64, 200, 10, 1, 0.2),
        (8_000, 64, 200, 10, 1, 0.2),
        (80_000, 256, 128, 10, 1, 0.2),
        (400_000, 512, 51, 5, 2, 0.1),
        (8_000_000, 2048, 10, 2, 3, 0.0),
        (10**9, 4096, 5, 2, 3, 0.0),
    ],
)
def test_networks_take_enough_steps_on_few_rows_and_not_too_many_on_many(
    rows, batch_size, epochs, patience, cross_layers, dropout
):
    resolved = settings(rows, {"family": "dcn_v2"})
    assert resolved == {
        "batch_size": batch_size, "epochs": epochs, "patience": patience, "learning_rate": 0.001,
        "cross_layers": cross_layers, "dropout": dropout,
    }  # fmt: skip


def test_a_linear_model_learns_faster():
    assert settings(8_000, {"family": "lr"})["learning_rate"] == 0.01
    assert settings(8_000, {"family": "fm"})["learning_rate"] == 0.001


@pytest.mark.parametrize(("rows", "leaves", "smallest"), [(8_000, 31, 20), (400_000, 63, 100), (8_000_000, 127, 200)])
def test_trees_grow_with_the_rows(rows, leaves, smallest):
    resolved = settings(rows, {"family": "gbdt"})
    assert (resolved["num_leaves"], resolved["min_data_in_leaf"]) == (leaves, smallest)


def test_given_settings_stay():
    given = {"epochs": 3, "batch_size": 7, "optimizer": {"learning_rate": 0.5}, "early_stopping": {"patience": 4}}
    resolved = settings(8_000, {"family": "gbdt", "num_leaves": 5, "min_data_in_leaf": 6}, **given)
    assert resolved == {
        "num_leaves": 5, "min_data_in_leaf": 6, "epochs": 3, "batch_size": 7, "learning_rate": 0.5, "patience": 4,
    }  # fmt: skip
    assert settings(8_000, {"family": "lr"}, early_stopping=None)["patience"] is None
    network = settings(8_000, {"family": "dcn_v2", "cross_layers": 0, "dropout": 0.0})
    assert (network["cross_layers"], network["dropout"]) == (0, 0.0)


def test_an_open_setting_is_a_defect():
    with pytest.raises(ValueError, match="not resolved"):
        known(Training().epochs)


EXPERIMENT = """
name: e
source: {tables: {t: t.csv}}
label: y
features: {x: {kind: numeric}}
training: {epochs: 9, optimizer: {name: adagrad, weight_decay: 0.1}}
models: [{family: lr, training: %s}, {family: gbdt}]
"""


def test_a_member_may_have_settings_of_its_own():
    experiment = parse(EXPERIMENT % "{batch_size: 32, optimizer: {learning_rate: 0.2}}")
    lr, gbdt = (experiment.training_of(model) for model in experiment.models)
    assert (lr.epochs, lr.batch_size, lr.optimizer.name, lr.optimizer.learning_rate) == (9, 32, "adagrad", 0.2)
    assert lr.optimizer.weight_decay == 0.1
    assert gbdt == experiment.training


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("{epoch: 3}", "did you mean 'epochs'"),
        ("{epochs: 0}", "models.0.training.epochs: got 0"),
        ("{optimizer: {rate: 3}}", "models.0.training.optimizer.rate: got the unknown"),
        ("{folds: 3}", "the same for all members"),
        ("3", "training"),
    ],
)
def test_settings_of_a_member_are_checked(changes, words):
    with pytest.raises(TidemillError, match=words) as error:
        parse(EXPERIMENT % changes)
    assert error.value.code in (Code.INVALID_VALUE, Code.UNKNOWN_KEY)


@pytest.mark.parametrize(
    ("unit", "config", "training", "kept", "warned"),
    [
        ("epoch", {}, {"epochs": 6, "early_stopping": {}}, 6, "number 6, is its best one: it may still improve; raise"),
        ("epoch", {}, {"epochs": 6, "early_stopping": {}}, 5, None),
        ("epoch", {}, {"epochs": 6, "early_stopping": None}, 6, None),
        ("round", {"rounds": 2000}, {"epochs": 6, "early_stopping": {}}, 2000, "raise rounds of m"),
    ],
)
def test_a_training_that_stopped_at_its_limit_is_reported(unit, config, training, kept, warned):
    document = ModelDocument(
        family="f", name="m", model_fingerprint="", config=config, training=training, labels=["y"], features=[],
        unit=unit, kept=kept,
    )  # fmt: skip
    assert [warned in warning for warning in document.warnings()] == ([] if warned is None else [True])
