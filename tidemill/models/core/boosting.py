"""A model of gradient-boosted trees, by LightGBM."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from tidemill import fingerprint
from tidemill.errors import Code, TidemillError
from tidemill.models.core.base import Model, Run
from tidemill.models.core.family import Family
from tidemill.models.core.inputs import Layout, Rows, read_labels, to_rows
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
_NUMBER = re.compile(r"(?m)^Tree=\d+\n")
_END = "end of trees"
_LOG_LOSS, _AUC = "binary_logloss", "auc"


class GbdtModel(Model):
    """Trees on the transform's ids and numbers.

    A training that goes on boosts from the raw scores of the trees that there are, and gives the trees that it would
    have given without a break. With bagging it begins anew instead, and ends with the same trees too.
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
        begun = self._restored(run)
        earlier = None if begun is None else lightgbm.Booster(model_str=begun)
        train = self._dataset(run, "train", parameters, earlier=earlier)
        booster = lightgbm.Booster(parameters, train)
        if run.data.rows("valid"):
            booster.add_valid(self._dataset(run, "valid", parameters, reference=train, earlier=earlier), "valid")
        stopping = run.training.early_stopping
        rows, rounds = run.data.rows("train"), self.config.rounds
        done, best, finished = len(run.history.entries), None, False
        while done < rounds and not finished:
            best = run.history.best(stopping.metric) if stopping else None
            if best is not None and done - 1 - best >= stopping.rounds:
                break
            done += 1
            started = time.monotonic()
            # So that a round draws the same features whether it is the first of a process or not.
            booster.reset_parameter({"feature_fraction_seed": _seed_of(run.training.seed, done)})
            finished = booster.update()
            metrics = _measure(booster, f"round {done}/{rounds}")
            seconds = max(time.monotonic() - started, 1e-9)
            run.history.add(
                {"log_loss": metrics["training"]["log_loss"]}, metrics.get("valid", {}), seconds, rows / seconds
            )
            run.progress.rows(rows * done, rows * rounds, f"round {done}/{rounds}")
            if self._can_go_on and not finished and (run.notice.given or run.checkpoints.due(done)):
                text = joined(begun, booster.model_to_string())
                run.checkpoints.save(
                    done, {"history": run.history.entries}, {"model": np.frombuffer(text.encode(), np.uint8)}
                )
            run.notice.check()
        best = run.history.best(stopping.metric) if stopping else None
        whole = lightgbm.Booster(model_str=joined(begun, booster.model_to_string()))
        kept = min(done if best is None else best + 1, whole.current_iteration())
        self.booster = lightgbm.Booster(model_str=whole.model_to_string(num_iteration=kept))
        return kept

    @property
    def _can_go_on(self) -> bool:
        """Whether a round depends on nothing but the rounds before: LightGBM does not let go of the random state by
        which it draws rows."""
        return self.config.bagging_fraction == 1

    def _restored(self, run: Run) -> str | None:
        found = run.checkpoints.newest()
        if found is None:
            return None
        state, arrays = found
        run.history.restore(state["history"])
        run.progress.phase(f"goes on from round {len(state['history']) + 1}")
        return arrays["model"].tobytes().decode()

    def predict_rows(self, rows: Rows) -> np.ndarray:
        return np.asarray(self.booster.predict(_matrix(rows)), np.float64)[:, None]

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
        from tidemill.models.core.forest import Forest

        forest = Forest.parse(self.booster.model_to_string())
        columns = self.layout.columns
        return lambda features: forest.score([features[name] for name in columns])[:, None], forest.variables

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
        self,
        run: Run,
        split: str,
        parameters: dict[str, Any],
        reference: lightgbm.Dataset | None = None,
        earlier: lightgbm.Booster | None = None,
    ) -> lightgbm.Dataset:
        limit = self.config.max_native_ids if self.config.categorical == "native" else 0

        @functools.lru_cache(maxsize=1)
        def decode(path: Path, index: int) -> np.ndarray:
            with pq.ParquetFile(path) as file:
                return _matrix(to_rows(file.read_row_group(index, columns=self.layout.columns), self.layout))

        groups = [(path, i, rows) for path in run.data.files(split) for i, rows in _row_groups(path)]
        scores = None
        if earlier is not None:
            scores = np.concatenate([earlier.predict(decode(path, i), raw_score=True) for path, i, _ in groups])
        return lightgbm.Dataset(
            [_RowGroup(decode, path, i, rows) for path, i, rows in groups],
            label=read_labels(run.data, split, self.layout.labels)[:, 0],
            init_score=scores,
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


def joined(earlier: str | None, later: str) -> str:
    """LightGBM's text of a model whose trees are those of one and then those of another."""
    if earlier is None:
        return later
    head, trees, _ = _parts(earlier)
    _, more, tail = _parts(later)
    more = [_NUMBER.sub(f"Tree={len(trees) + place}\n", tree, count=1) for place, tree in enumerate(more)]
    sizes = " ".join(str(len(tree.encode())) for tree in [*trees, *more])
    return re.sub(r"(?m)^tree_sizes=.*$", f"tree_sizes={sizes}", head) + "".join([*trees, *more]) + tail


def _parts(text: str) -> tuple[str, list[str], str]:
    """What comes before the trees, the trees, and what comes after them."""
    starts = [match.start() for match in _NUMBER.finditer(text)]
    end = text.index(_END)
    if not starts:
        return text[:end], [], text[end:]
    return text[: starts[0]], [text[a:b] for a, b in itertools.pairwise([*starts, end])], text[end:]


def _seed_of(seed: int, done: int) -> int:
    return (seed * 1_000_003 + done) % (1 << 31)


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
