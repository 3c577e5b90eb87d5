"""Parts of the pages, without a model."""

from __future__ import annotations

import pytest

from tidemill.artifacts.evaluation_artifact import Estimate
from tidemill.experiment.training import Training
from tidemill.models import parse_config
from tidemill.reports import plots
from tidemill.reports.model_settings import settings
from tidemill.reports.templates import duration, size


@pytest.mark.parametrize(("low", "high", "marks"), [(0.4, 0.6, 0), (0.2, 0.6, 1), (0.4, 0.9, 1), (0.2, 0.9, 2)])
def test_an_arrow_marks_a_clipped_interval(low, high, marks):
    drawing = plots.interval_bar(Estimate(value=0.5, low=low, high=high), 0.3, 0.7, None)
    assert drawing.count('class="clip model"') == marks


def document(family: str, unit: str, **training: object) -> dict:
    config = parse_config({"family": family}).model_dump(mode="json")
    return {"unit": unit, "config": config, "training": Training.model_validate(training).model_dump(mode="json")}


def test_a_page_lists_the_models_own_settings():
    names = {
        family: {name for name, _ in settings(document(family, unit))}
        for family, unit in (("gbdt", "round"), ("dcn_v2", "epoch"), ("lr", "epoch"))
    }
    assert {"num_leaves", "rounds", "training.seed", "training.early_stopping.rounds"} - names["gbdt"] == {"num_leaves"}
    others = ("epochs", "batch_size", "optimizer.name", "early_stopping.patience", "backend", "precision", "xla")
    assert not {f"training.{name}" for name in others} & names["gbdt"]
    assert {"deep", "embedding_dim", "training.optimizer.name", "training.xla"} <= names["dcn_v2"]
    assert "training.early_stopping.rounds" not in names["dcn_v2"] | names["lr"]
    assert "embedding_dim" not in names["lr"] and "l2_embedding" in names["lr"]
    assert "training.xla" not in dict(settings(document("dcn_v2", "epoch", backend="jax")))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (12.4, "12 s"), (185, "3 min 05 s"), (7380, "2 h 03 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (873, "873 B"), (999.6, "1.0 kB"), (1_440_000, "1.4 MB"), (25e9, "25.0 GB")]
)
def test_sizes(count, text):
    assert size(count) == text
