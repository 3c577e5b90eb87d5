"""Shop rows with a known relation to the label, transformed by a real transform graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tidemill.artifacts.examples import Dataset, DatasetWriter
from tidemill.experiment.source import Split
from tidemill.models.core.base import Model
from tidemill.models.core.inputs import Layout
from tidemill.models.core.registry import open_model
from tidemill.runtime import Progress
from tidemill.steps.preprocess import PreprocessSpec
from tidemill.steps.train import TrainSpec
from tidemill.training.checkpoint import Checkpoints
from tidemill.training.context import FitContext
from tidemill.training.history import History
from tidemill.training.train import TrainSummary, fit, train
from tidemill.transform.preprocess import preprocess
from tidemill.transform.raw import raw_columns

ROWS = {"train": 1500, "valid": 400, "test": 100}
DCN = {"family": "dcn_v2", "cross_layers": 2, "deep": [16, 8], "embedding_dim": 4, "dropout": 0.1, "l2_embedding": 1e-4}
GBDT = {"family": "gbdt", "rounds": 12, "num_leaves": 7, "min_data_in_leaf": 20, "bagging_fraction": 0.7}
SMALL = {"deep": [16, 8], "embedding_dim": 4}
MODELS = {
    "dcn_v2": DCN,
    "deepfm": {"family": "deepfm"} | SMALL,
    "dlrm": {"family": "dlrm", "bottom": [8]} | SMALL,
    "final_mlp": {"family": "final_mlp", "first": [16], "second": [8], "gate": 8, "heads": 2, "embedding_dim": 4},
    "fm": {"family": "fm", "embedding_dim": 4},
    "gbdt": GBDT,
    "lr": {"family": "lr"},
    "mmoe": {"family": "mmoe", "experts": 2, "expert": [16, 8], "tower": [8], "embedding_dim": 4},
    "wide_deep": {"family": "wide_deep"} | SMALL,
}
FEATURES = {
    "price": {"kind": "numeric", "transform": "log"},
    "weight (kg)": {"kind": "numeric"},
    "site": {"kind": "categorical"},
    "visits": {"kind": "numeric", "transform": {"bucketize": 8}},
    "device": {"kind": "categorical", "vocabulary": {"top_k": 2}},
}
KINDS = {name: MODELS[name] for name in ("dcn_v2", "gbdt")}
"""A family of each framework."""
_KINDS = {"int64": "INT", "float32": "FLOAT", "string": "BYTES"}


def shop_rows(rows: int, seed: int) -> pa.Table:
    """`bought` depends on price, site and device; a tenth of each column is missing."""
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
    """Paths of the artifacts, and a place to write to."""

    examples: str
    graph: str
    transformed: str
    folder: Path
    labels: tuple[str, ...] = ("bought",)

    def spec(self, model: dict, **training: object) -> TrainSpec:
        """A spec for a member."""
        optimizer = {"name": "adam", "learning_rate": 0.01}
        told = {"epochs": 3, "batch_size": 64, "threads": 1, "optimizer": optimizer, **training}
        return TrainSpec(
            code="x", experiment="shop", model=model, training=told, labels=list(self.labels), split=Split()
        )

    def train(
        self, model: dict, name: str = "model", progress: Progress | None = None, **training: object
    ) -> TrainSummary:
        """Trains a member to `folder/<name>`."""
        return train(
            self.spec(model, **training), self.examples, self.transformed, self.graph,
            root=str(self.folder / "root"), model=str(self.folder / name), progress=progress or Progress("train"),
        )  # fmt: skip

    def fit(self, model: dict, keep=lambda feature: True, **training: object) -> tuple[Model, list[dict]]:
        """Fits a member to the features to keep, without export: the model and the history."""
        data, spec = Dataset(self.transformed), self.spec(model, **training)
        layout = Layout.of([f for f in data.metadata["features"] if keep(f)], self.labels)
        fitted = open_model(spec.model, layout)
        history = History(self.folder / "logs", fitted.unit)
        checkpoints = Checkpoints(str(self.folder / "root"), "fit", 3600)
        fit(fitted, FitContext(data, spec.training, history, checkpoints, Progress("train")))
        history.close()
        return fitted, history.entries

    def with_rows(self, change) -> Shop:
        """The same with other rows: `change` takes split and the table of transformed rows; examples follow in
        number."""
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
    lines = [f'feature {{ name: "{c.name}" type: {_KINDS[c.dtype]} }}\n' for c in raw_columns(schema)]
    (folder / "schema" / "schema.pbtxt").write_text("".join(lines), encoding="utf-8")
    spec = PreprocessSpec(
        code="x", labels=list(labels), key=["id"], features=features, transform_module=None, split_column=None,
    )  # fmt: skip
    shop = Shop(str(folder / "examples"), str(folder / "graph"), str(folder / "transformed"), folder, labels)
    preprocess(
        spec, shop.examples, str(folder / "schema"),
        transform_graph=shop.graph, transformed=shop.transformed, progress=Progress("preprocess"),
    )  # fmt: skip
    return shop


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory) -> Shop:
    tables = {split: shop_rows(rows, seed) for seed, (split, rows) in enumerate(ROWS.items())}
    return make_shop(tmp_path_factory.mktemp("shop"), tables)


@pytest.fixture
def shop(artifacts, tmp_path) -> Shop:
    """The session's artifacts with a folder of its own."""
    return replace(artifacts, folder=tmp_path)
