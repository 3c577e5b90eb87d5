"""Shop rows whose label depends on their features, transformed by a real graph, and models trained on them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.plain_graphs import pytest_runtest_setup, pytest_runtest_teardown  # noqa: F401
from tests.sharing import once
from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.experiment.source import Split
from tidemill.models.core.base import Model
from tidemill.models.core.inputs import Layout
from tidemill.models.core.registry import new_model
from tidemill.runtime import Progress
from tidemill.steps.preprocess import PreprocessSpec
from tidemill.steps.train import TrainSpec
from tidemill.training.checkpoint import Checkpoints
from tidemill.training.defaults import resolve
from tidemill.training.fit_context import FitContext
from tidemill.training.history import History
from tidemill.training.train import TrainSummary, fit, train
from tidemill.transform.graph import TransformGraph
from tidemill.transform.preprocess import preprocess
from tidemill.transform.raw import raw_columns

ROWS = {"train": 1500, "valid": 400, "test": 100}
DCN = {"family": "dcn_v2", "cross_layers": 1, "deep": [8], "embedding_dim": 4, "dropout": 0.1, "l2_embedding": 1e-4}
GBDT = {"family": "gbdt", "rounds": 12, "num_leaves": 7, "min_data_in_leaf": 20, "bagging_fraction": 0.7}
SMALL = {"deep": [8], "embedding_dim": 4}
MODELS: dict[str, dict[str, Any]] = {
    "dcn_v2": DCN,
    "deepfm": {"family": "deepfm"} | SMALL,
    "dlrm": {"family": "dlrm", "bottom": [16], "deep": [16], "embedding_dim": 4},
    "final_mlp": {"family": "final_mlp", "first": [8], "second": [8], "gate": 8, "heads": 2, "embedding_dim": 4},
    "fm": {"family": "fm", "embedding_dim": 4},
    "gbdt": GBDT,
    "lr": {"family": "lr"},
    "mmoe": {"family": "mmoe", "experts": 2, "expert": [8], "tower": [8], "embedding_dim": 4},
    "wide_deep": {"family": "wide_deep"} | SMALL,
}
NAMES = [pytest.param(name, marks=pytest.mark.full if name in ("dlrm", "fm", "wide_deep") else []) for name in MODELS]
"""The families as parameters. `test_every_family_serves_any_kinds_of_features` builds the networks of the others too,
and the steps that train them are the same."""
FEATURES = {
    "price": {"kind": "numeric", "transform": "log"},
    "weight (kg)": {"kind": "numeric"},
    "site": {"kind": "categorical"},
    "visits": {"kind": "numeric", "transform": {"bucketize": 8}},
    "device": {"kind": "categorical", "vocabulary": {"top_k": 2}},
}
KINDS = {name: MODELS[name] for name in ("dcn_v2", "gbdt")}
"""One family of each framework."""
SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 64,
    "threads": 1,
    "optimizer": {"name": "adam", "learning_rate": 0.02},
}
"""Training settings of all tests that set no others."""
_SCHEMA_TYPES = {"int64": "INT", "float32": "FLOAT", "string": "BYTES"}


def shop_rows(rows: int, seed: int) -> pa.Table:
    """Draws rows whose `bought` depends on price, site and device. A tenth of each column is missing."""
    rng = np.random.default_rng(seed)
    price, site = rng.lognormal(2, 1, rows), rng.integers(0, 12, rows)
    device = rng.integers(0, 4, rows)
    logit = 1.0 - 0.9 * np.log(price) + 0.3 * site - 0.8 * device
    columns = {
        "price": price,
        "weight (kg)": rng.normal(70, 10, rows),
        "site": np.array([f"site {s}" for s in site]),
        "visits": rng.integers(0, 1000, rows),
        "device": np.array(["phone", "tablet", "desk", "watch"])[device],
    }
    arrays = {name: pa.array(values, mask=rng.random(rows) < 0.1) for name, values in columns.items()}
    bought = rng.random(rows) < 1 / (1 + np.exp(-logit))
    return pa.table({"id": np.arange(rows), **arrays, "bought": bought.astype(np.int8)})


@dataclass(frozen=True)
class Shop:
    """The artifacts before training, and a folder to write to."""

    examples: str
    graph: str
    transformed: str
    folder: Path
    labels: tuple[str, ...] = ("bought",)

    @classmethod
    def at(cls, artifacts: Path, folder: Path, labels: tuple[str, ...] = ("bought",)) -> Shop:
        """Returns the artifacts that `make_shop` wrote, with another folder to write to."""
        return cls(
            str(artifacts / "examples"), str(artifacts / "graph"), str(artifacts / "transformed"), folder, labels
        )

    def spec(self, model: dict[str, Any], **training: Any) -> TrainSpec:
        """Returns the spec of a member."""
        return TrainSpec(
            code="x", experiment="shop", model=model, training=SETTINGS | training, labels=list(self.labels),
            split=Split(),
        )  # fmt: skip

    def train(
        self, model: dict[str, Any], name: str = "model", progress: Progress | None = None, **training: Any
    ) -> TrainSummary:
        """Trains a member to `folder/<name>`, with its export."""
        return train(
            self.spec(model, **training), self.examples, self.transformed, self.graph,
            root=str(self.folder / "root"), model=str(self.folder / name), progress=progress or Progress("train"),
        )  # fmt: skip

    def fit(
        self,
        model: dict[str, Any],
        keep: Callable[[dict[str, Any]], bool] = lambda feature: True,
        progress: Progress | None = None,
        checkpoint_seconds: float = 3600,
        **training: Any,
    ) -> tuple[Model, list[dict[str, Any]]]:
        """Fits a member to the features to keep, without export, and returns the model and the history."""
        data, spec = Dataset(self.transformed), self.spec(model, **training)
        settings, config = resolve(spec.training, spec.model, data.rows("train"))
        fitted = new_model(config, Layout.of([f for f in data.metadata["features"] if keep(f)], self.labels))
        history = History(self.folder / "logs", fitted.unit)
        checkpoints = WaitingCheckpoints(str(self.folder / "root"), f"seed {spec.training.seed}", checkpoint_seconds)
        graph, progress = TransformGraph(self.graph), progress or Progress("train")
        context = FitContext(data, settings, history, checkpoints, progress, graph=graph)
        with contextlib.closing(history), checkpoints:
            fit(fitted, context)
        return fitted, history.entries

    def fit_from(self, model: dict[str, Any], published: str, **training: Any) -> tuple[Model, list[dict[str, Any]]]:
        """Fits a member that starts with the weights of a published model, and changes next to nothing."""
        still = {"name": "sgd", "learning_rate": 1e-12}
        return self.fit(model, warm_start=published, optimizer=still, epochs=1, **training)

    def document(self, name: str = "model") -> dict[str, Any]:
        """Returns the `model.json` of a trained member."""
        return json.loads((self.folder / name / "model.json").read_text())

    def with_rows(self, change: Callable[[str, pa.Table], pa.Table]) -> Shop:
        """Returns a shop with other rows.

        `change` takes a split and the table of its transformed rows. The raw examples have the same number of rows.
        """
        old, raw = Dataset(self.transformed), Dataset(self.examples)
        schema = pa.schema([field.with_nullable(True) for field in old.schema()])
        paths = [self.folder / "changed_examples", self.folder / "changed_transformed"]
        with (
            DatasetWriter(paths[0], raw.schema()) as raw_writer,
            DatasetWriter(paths[1], schema, metadata=old.metadata) as writer,
        ):
            for split in ROWS:
                table = change(split, old.read(split))
                writer.write(split, table)
                raw_writer.write(split, raw.read(split).slice(0, table.num_rows))
        return replace(self, examples=str(paths[0]), transformed=str(paths[1]))


def make_shop(
    folder: Path, tables: dict[str, pa.Table], features: dict = FEATURES, labels: tuple[str, ...] = ("bought",)
) -> Shop:
    """Writes rows as examples, and transforms them."""
    schema = tables["train"].schema
    with DatasetWriter(folder / "examples", schema, row_group_rows=256, shard_rows=512) as writer:
        for split, table in tables.items():
            writer.write(split, table)
    (folder / "schema").mkdir()
    lines = [f'feature {{ name: "{c.name}" type: {_SCHEMA_TYPES[c.dtype]} }}\n' for c in raw_columns(schema)]
    (folder / "schema" / "schema.pbtxt").write_text("".join(lines), encoding="utf-8")
    spec = PreprocessSpec(
        code="x", labels=list(labels), key=["id"], features=features, transform_module=None, split_column=None,
    )  # fmt: skip
    shop = Shop.at(folder, folder, labels)
    preprocess(
        spec, shop.examples, str(folder / "schema"),
        transform_graph=shop.graph, transformed=shop.transformed, progress=Progress("preprocess"),
    )  # fmt: skip
    return shop


def shop_tables(rows: dict[str, int] = ROWS, seed: int = 0) -> dict[str, pa.Table]:
    """Draws the rows of all splits."""
    return {split: shop_rows(count, seed + i) for i, (split, count) in enumerate(rows.items())}


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory) -> Shop:
    folder = once(tmp_path_factory, "training-shop", lambda folder: make_shop(folder, shop_tables()))
    return Shop.at(folder, folder)


@pytest.fixture
def shop(artifacts, tmp_path) -> Shop:
    """The session's artifacts with a folder of its own."""
    return replace(artifacts, folder=tmp_path)


@pytest.fixture(scope="session")
def trained(artifacts, tmp_path_factory) -> Callable[[str], Shop]:
    """Returns the shop with the model of a family below `model`. Each is trained once per session, only to be read."""

    def get(name: str) -> Shop:
        def build(folder: Path) -> None:
            summary = replace(artifacts, folder=folder).train(MODELS[name])
            (folder / "summary.json").write_text(json.dumps(vars(summary)))

        return replace(artifacts, folder=once(tmp_path_factory, f"trained-{name}", build))

    return get


class WaitingCheckpoints(Checkpoints):
    """Checkpoints that `save` waits for, so that it does not depend on the machine's speed which of them exist."""

    def save(self, step: int, state: dict[str, Any], snapshot: Callable[[], dict[str, np.ndarray]]) -> None:
        super().save(step, state, snapshot)
        self.wait()


class Stop(Exception):
    """Interrupts a training."""


class StopAfter(Progress):
    """Raises `Stop` at the n-th progress report, which follows a batch or round. Records the phases."""

    def __init__(self, calls: int | None = None):
        super().__init__("train")
        self.left = calls
        self.phases: list[str] = []

    def rows(self, done: int, total: int | None = None, what: str = "", **options: object) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise Stop

    def phase(self, what: str) -> None:
        self.phases.append(what)
