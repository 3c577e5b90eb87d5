"""A model of gradient-boosted trees, by LightGBM."""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from tidemill import fingerprint
from tidemill.errors import Code, TidemillError
from tidemill.models.parts.base import Model, Run
from tidemill.models.parts.family import Family
from tidemill.training.input import Layout, Rows, to_rows
from tidemill.training.metrics import auc
from tidemill.training.threads import default_threads

# OpenMP's threads wait for each other actively by default. On a machine that does something else too, that made
# training seven times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import lightgbm

if TYPE_CHECKING:
    import tensorflow as tf

WEIGHTS = "model.txt"
PUSH_ROWS = 1 << 14
_LOG_LOSS, _AUC = "binary_logloss", "auc"


class GbdtModel(Model):
    """Trees on the transform's ids and numbers.

    Nothing is written while training: LightGBM cannot go on from a model with the random state that it had, so a
    restarted training begins anew, and ends with the same trees as one that was not interrupted.
    """

    unit = "round"
    libraries = ("tidemill", "lightgbm", "numpy")
    booster: lightgbm.Booster

    def fit(self, run: Run) -> int:
        # The verbosity among the parameters does not reach what LightGBM prints while it finds bins.
        log = logging.getLogger("lightgbm")
        log.setLevel(logging.ERROR)
        lightgbm.register_logger(log)
        parameters = self._parameters(run)
        train = self._dataset(run, "train", parameters)
        booster = lightgbm.Booster(parameters, train)
        if run.data.rows("valid"):
            booster.add_valid(self._dataset(run, "valid", parameters, reference=train), "valid")
        stopping = run.training.early_stopping
        rows, rounds = run.data.rows("train"), self.config.rounds
        for done in range(1, rounds + 1):
            started = time.monotonic()
            finished = booster.update()
            metrics = _measure(booster, f"round {done}/{rounds}")
            seconds = max(time.monotonic() - started, 1e-9)
            run.history.add(
                {"log_loss": metrics["training"]["log_loss"]}, metrics.get("valid", {}), seconds, rows / seconds
            )
            run.progress.rows(rows * done, rows * rounds, f"round {done}/{rounds}")
            run.notice.check()
            best = run.history.best(stopping.metric) if stopping else None
            if finished or (best is not None and done - 1 - best >= stopping.rounds):
                break
        kept = min(done if best is None else best + 1, booster.current_iteration())
        self.booster = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=kept))
        return kept

    def predict_rows(self, rows: Rows) -> np.ndarray:
        return np.asarray(self.booster.predict(_matrix(rows)), np.float64)

    def save(self, folder: Path) -> None:
        self.booster.save_model(folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path, config: Family, layout: Layout) -> GbdtModel:
        model = cls(config, layout)
        try:
            model.booster = lightgbm.Booster(model_file=folder / WEIGHTS)
        except lightgbm.basic.LightGBMError as error:
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(folder), str(error), "train the model again") from error
        return model

    def fingerprint(self) -> str:
        trees = self.booster.model_to_string().partition("\nparameters:")[0]
        return fingerprint.of_json([self.config.model_dump(mode="json"), self.layout.columns, trees])

    def serving(self) -> tuple[Callable[[dict[str, tf.Tensor]], tf.Tensor], Any]:
        from tidemill.models.parts.forest import Forest

        forest = Forest.parse(self.booster.model_to_string())
        return lambda features: forest.score([features[name] for name in self.layout.columns]), forest.variables

    def _parameters(self, run: Run) -> dict[str, Any]:
        config = self.config
        return {
            "objective": "binary",
            "metric": _LOG_LOSS,
            "num_leaves": config.num_leaves,
            "learning_rate": config.learning_rate,
            "min_data_in_leaf": config.min_data_in_leaf,
            "feature_fraction": config.feature_fraction,
            "bagging_fraction": config.bagging_fraction,
            "bagging_freq": 1 if config.bagging_fraction < 1 else 0,
            "lambda_l2": config.l2,
            "seed": run.training.seed % (1 << 31),
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": run.training.threads or default_threads(),
            "verbosity": -1,
        }

    def _dataset(
        self, run: Run, split: str, parameters: dict[str, Any], reference: lightgbm.Dataset | None = None
    ) -> lightgbm.Dataset:
        limit = self.config.max_native_ids if self.config.categorical == "native" else 0

        @functools.lru_cache(maxsize=1)
        def decode(path: Path, index: int) -> np.ndarray:
            with pq.ParquetFile(path) as file:
                return _matrix(to_rows(file.read_row_group(index, columns=self.layout.columns), self.layout))

        return lightgbm.Dataset(
            [_RowGroup(decode, path, i, rows) for path in run.data.files(split) for i, rows in _row_groups(path)],
            label=run.data.read(split, [run.label])[run.label].to_numpy(),
            categorical_feature=[place for place, n in enumerate(self.layout.num_ids) if n <= limit],
            reference=reference,
            params=parameters,
        )


class _RowGroup(lightgbm.Sequence):
    """One row group as LightGBM reads it: single rows to find bins by, then slices to fill them. `decode` keeps the
    last row group, so that memory does not grow with the data."""

    batch_size = PUSH_ROWS

    def __init__(self, decode: Callable[[Path, int], np.ndarray], path: Path, index: int, rows: int):
        self._decode, self._path, self._index, self._rows = decode, path, index, rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int | slice | list[int]) -> np.ndarray:
        return self._decode(self._path, self._index)[index]


def _row_groups(path: Path) -> list[tuple[int, int]]:
    """Index and rows of each row group that has rows."""
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return [(i, rows) for i, rows in enumerate(sizes) if rows]


def _matrix(rows: Rows) -> np.ndarray:
    """[rows, features] float64: ids, which float32 would not hold beyond 2^24, then numbers."""
    return np.concatenate([rows.ids, rows.numbers], axis=1, dtype=np.float64)


def _measure(booster: lightgbm.Booster, what: str) -> dict[str, dict[str, float]]:
    """Metrics of `training` and `valid`. The AUC is not LightGBM's, which would also sort the train split every
    round."""

    def valid_auc(scores: np.ndarray, data: lightgbm.Dataset) -> list:
        return [(_AUC, auc(data.get_label(), scores), True)]

    results = [*booster.eval_train(), *booster.eval_valid(feval=valid_auc)]
    metrics: dict[str, dict[str, float]] = {}
    for split, name, value, _ in results:
        if name == _LOG_LOSS and not math.isfinite(value):
            want = "lower learning_rate of the gbdt member"
            raise TidemillError(Code.TRAINING_DIVERGED, f"training, {what}", f"a {split} loss of {value}", want)
        if math.isfinite(value):
            metrics.setdefault(split, {})["log_loss" if name == _LOG_LOSS else name] = value
    return metrics
