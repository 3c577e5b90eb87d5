"""Training of gradient-boosted trees with LightGBM."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tidemill.auc_and_log_loss import auc
from tidemill.cpus import available_cpus
from tidemill.errors import Code, TidemillError
from tidemill.models.core.booster import GbdtModel, lightgbm, to_matrix
from tidemill.models.core.inputs import read_labels, to_rows
from tidemill.training.defaults import known
from tidemill.training.fit_context import FitContext

PUSH_ROWS = 1 << 14
_TREE = re.compile(r"(?m)^Tree=\d+\n")
_END = "end of trees"
_LOG_LOSS, _AUC = "binary_logloss", "auc"


def fit_trees(model: GbdtModel, context: FitContext) -> int:
    """Fits gradient-boosted trees. Resumes from the newest checkpoint if there is one.

    A resumed fit boosts from the raw scores of the checkpoint's trees, and ends with the trees of an uninterrupted fit.
    With bagging it starts over instead, because LightGBM does not expose the random state that it draws rows with.

    Args:
        model: The model, whose `booster` is set.
        context: Data and settings.

    Returns:
        The number of rounds that the model keeps: the best round with early stopping, else the last.

    Raises:
        TidemillError: `training-diverged`, and `invalid-value` if all features are constant.
        Preempted: SIGTERM arrived and a checkpoint is written, unless rows are bagged.
    """
    # LightGBM's parameter `verbosity` does not silence what it prints while it finds bins.
    log = logging.getLogger("lightgbm")
    log.setLevel(logging.ERROR)
    lightgbm.register_logger(log)
    config, training, history = model.config, context.training, context.history
    parameters = _parameters(model, context)
    resumed_text = _restore(context)
    resumed = None if resumed_text is None else lightgbm.Booster(model_str=resumed_text)
    train = _dataset(model, context, "train", parameters, resumed=resumed)
    booster = lightgbm.Booster(parameters, train)
    _check_features(train, context.data.rows("train"))
    if context.data.rows("valid"):
        booster.add_valid(_dataset(model, context, "valid", parameters, reference=train, resumed=resumed), "valid")
    stopping = training.early_stopping
    resumable = config.bagging_fraction == 1
    rows, rounds = context.data.rows("train"), config.rounds
    done, finished = len(history.entries), False
    restored = done
    while done < rounds and not finished:
        best = history.best(stopping.metric) if stopping else None
        if stopping and best is not None and done - 1 - best >= stopping.rounds:
            break
        done += 1
        started = time.monotonic()
        # Each round draws the same features, whether or not it is the first round of a process.
        booster.reset_parameter({"feature_fraction_seed": _round_seed(training.seed, done)})
        finished = booster.update()
        metrics = _measure(booster, f"round {done}/{rounds}")
        seconds = max(time.monotonic() - started, 1e-9)
        history.add({"log_loss": metrics["training"]["log_loss"]}, metrics.get("valid", {}), seconds, rows / seconds)
        context.progress.metrics(history.entries[-1]["train"], history.entries[-1]["valid"], f"round {done}/{rounds}")
        context.progress.rows(rows * done, rows * rounds, f"round {done}/{rounds}", earlier=-rows * restored)
        preempted = context.notice.received
        if resumable and not finished and (preempted or context.checkpoints.due(done)):

            def snapshot() -> dict[str, np.ndarray]:
                text = join_models(resumed_text, booster.model_to_string())
                return {"model": np.frombuffer(text.encode(), np.uint8)}

            context.checkpoints.save(done, {"history": list(history.entries)}, snapshot)
        if preempted:
            context.checkpoints.wait()
            context.notice.check()
    best = history.best(stopping.metric) if stopping else None
    whole = lightgbm.Booster(model_str=join_models(resumed_text, booster.model_to_string()))
    kept_rounds = min(done if best is None else best + 1, whole.current_iteration())
    model.booster = lightgbm.Booster(model_str=whole.model_to_string(num_iteration=kept_rounds))
    return kept_rounds


def _check_features(train: lightgbm.Dataset, rows: int) -> None:
    """Checks that a feature has two values. LightGBM leaves out the others, and fails if none remains."""
    if all(train.feature_num_bin(index) <= 1 for index in range(train.num_feature())):
        got = f"features that each have one value in all {rows:,} rows of train"
        want = "give a feature with different values; see the report of validate"
        raise TidemillError(Code.INVALID_VALUE, "features", got, want)


def join_models(first: str | None, second: str) -> str:
    """Returns LightGBM's text of a model with the trees of one model, followed by those of another."""
    if first is None:
        return second
    head, trees, _ = _split_model(first)
    _, added, tail = _split_model(second)
    added = [_TREE.sub(f"Tree={len(trees) + i}\n", tree, count=1) for i, tree in enumerate(added)]
    sizes = " ".join(str(len(tree.encode())) for tree in [*trees, *added])
    return re.sub(r"(?m)^tree_sizes=.*$", f"tree_sizes={sizes}", head) + "".join([*trees, *added]) + tail


def _split_model(text: str) -> tuple[str, list[str], str]:
    """Splits LightGBM's text into what precedes the trees, the trees, and what follows them."""
    starts = [match.start() for match in _TREE.finditer(text)]
    end = text.index(_END)
    if not starts:
        return text[:end], [], text[end:]
    return text[: starts[0]], [text[a:b] for a, b in itertools.pairwise([*starts, end])], text[end:]


def _restore(context: FitContext) -> str | None:
    """Restores the history from the newest checkpoint and returns the text of its trees, if there is one."""
    checkpoint = context.checkpoints.newest()
    if checkpoint is None:
        return None
    state, arrays = checkpoint
    context.history.restore(state["history"])
    context.progress.phase(f"resumes at round {len(state['history']) + 1}")
    return arrays["model"].tobytes().decode()


def _round_seed(seed: int, done: int) -> int:
    return (seed * 1_000_003 + done) % (1 << 31)


def _parameters(model: GbdtModel, context: FitContext) -> dict[str, Any]:
    config, training = model.config, context.training
    return {
        "objective": "binary",
        "metric": _LOG_LOSS,
        "num_leaves": known(config.num_leaves),
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": known(config.min_data_in_leaf),
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": config.bagging_fraction,
        "bagging_freq": 1 if config.bagging_fraction < 1 else 0,
        "lambda_l2": config.l2,
        "seed": training.seed % (1 << 31),
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": training.threads or available_cpus(),
        "verbosity": -1,
    }


def _dataset(
    model: GbdtModel,
    context: FitContext,
    split: str,
    parameters: dict[str, Any],
    reference: lightgbm.Dataset | None = None,
    resumed: lightgbm.Booster | None = None,
) -> lightgbm.Dataset:
    config, layout, data = model.config, model.layout, context.data
    max_ids = config.max_native_ids if config.categorical == "native" else 0

    @functools.lru_cache(maxsize=1)
    def decode(path: Path, index: int) -> np.ndarray:
        with pq.ParquetFile(path) as file:
            return to_matrix(to_rows(file.read_row_group(index, columns=layout.columns), layout))

    groups = [(path, i, rows) for path in data.files(split) for i, rows in _row_groups(path)]
    scores = None
    if resumed is not None:
        raw_scores = [resumed.predict(decode(path, i), raw_score=True) for path, i, _ in groups]
        scores = np.concatenate([np.asarray(each) for each in raw_scores])
    return lightgbm.Dataset(
        [_RowGroupSequence(decode, path, i, rows) for path, i, rows in groups],
        label=read_labels(data, split, layout.labels)[:, 0],
        init_score=scores,
        categorical_feature=[i for i, n in enumerate(layout.num_ids) if n <= max_ids],
        reference=reference,
        params=parameters,
    )


class _RowGroupSequence(lightgbm.Sequence):
    """A row group as LightGBM reads it: single rows to find bins, then slices to fill them.

    `decode` caches the last row group, so that memory does not grow with the data.
    """

    batch_size = PUSH_ROWS

    def __init__(self, decode: Callable[[Path, int], np.ndarray], path: Path, index: int, rows: int):
        self._decode, self._path, self._index, self._rows = decode, path, index, rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int | slice | list[int]) -> np.ndarray:
        return self._decode(self._path, self._index)[index]


def _row_groups(path: Path) -> list[tuple[int, int]]:
    """Returns the index and the number of rows of each row group that has rows."""
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return [(i, rows) for i, rows in enumerate(sizes) if rows]


def _measure(booster: lightgbm.Booster, phase: str) -> dict[str, dict[str, float]]:
    """Returns the metrics of `training` and `valid`.

    The AUC is not LightGBM's, which would also sort the train split in every round.
    """

    def valid_auc(scores: np.ndarray, data: lightgbm.Dataset) -> list[tuple[str, float, bool]]:
        return [(_AUC, auc(np.asarray(data.get_label()), scores), True)]

    results: list[Any] = [*booster.eval_train(), *booster.eval_valid(feval=valid_auc)]
    metrics: dict[str, dict[str, float]] = {}
    for split, name, value, _ in results:
        if name == _LOG_LOSS and not math.isfinite(value):
            want = "lower learning_rate of the gbdt member"
            raise TidemillError(Code.TRAINING_DIVERGED, f"training, {phase}", f"a {split} loss of {value}", want)
        if math.isfinite(value):
            metrics.setdefault(split, {})["log_loss" if name == _LOG_LOSS else name] = value
    return metrics
