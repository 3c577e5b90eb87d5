"""Training one member: from transformed examples to a model folder that is whole, scored and checked."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tidemill import fingerprint, models, storage
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.artifacts.labels import check_both_classes, count_ones
from tidemill.errors import Code, TidemillError
from tidemill.experiment.training import Training
from tidemill.models.core.base import Model, Run
from tidemill.models.core.family import Network
from tidemill.models.core.inputs import Layout, read_labels
from tidemill.models.own import OwnFamily
from tidemill.runtime import Progress
from tidemill.serving.checked_export import export_checked
from tidemill.steps.train import TrainSpec
from tidemill.training import backend, folds
from tidemill.training.checkpoint import Checkpoints
from tidemill.training.history import History
from tidemill.training.metrics import measure_labels
from tidemill.training.preemption import notice
from tidemill.transform.graph import TransformGraph

HISTORY = "history.json"
LOGS = "logs"
SLOW_INPUT = 0.1
"""Share of the time waiting for rows above which there is a hint."""


@dataclass(frozen=True)
class TrainSummary:
    """What training gave.

    Attributes:
        family: The model's family.
        name: The member's name.
        valid: `auc` and `log_loss` of the valid split, as `measure_labels` gives them; empty without one.
        epochs: Epochs, or boosting rounds, that the model keeps.
        rows_per_second: Train rows through an epoch or a round, a second, measuring not counted.
        input_share: Share of the training's time that was spent waiting for rows; None for gradient boosting.
        fingerprint: Of the weights and what they are applied to; equal for models with equal scores.
    """

    family: str
    name: str
    valid: dict[str, float]
    epochs: int
    rows_per_second: float
    input_share: float | None
    fingerprint: str


def train(
    spec: TrainSpec, examples: str, transformed: str, transform_graph: str, *, root: str, model: str, progress: Progress
) -> TrainSummary:
    """Trains a member, exports it for serving and replays rows through both.

    A training that was killed goes on from its newest checkpoint below `root` (gradient boosting from its last round,
    or anew where it bags rows); either way it ends with the bits of one that was not killed.

    Args:
        spec: What to train, and how.
        examples: The raw examples.
        transformed: The transformed examples, row by row the same.
        transform_graph: The transform graph that made them.
        root: URI of the folder where Tidemill keeps checkpoints, and TensorBoard logs of what is going on.
        model: The model folder to write: `model.keras` or `model.txt`, `model.json`, `history.json`, `logs/`,
            `Format-Serving/`.
        progress: Told of every step.

    Raises:
        TidemillError: `empty-split`, `label-null`, `label-type`, `label-one-class`, `transform-failed` (no feature),
            `training-diverged`, `serving-skew`, `incomplete-artifact`, `invalid-value` (embeddings that do not fit the
            features), `unsupported` (several labels with a family, sampling or a fold for one), and what
            `backend.select` raises.
        Preempted: the process was told to end; the next call goes on from here.
    """
    if isinstance(spec.model, Network | OwnFamily):
        backend.select(spec.training)
    data, raw, graph = Dataset(transformed), Dataset(examples), TransformGraph(transform_graph)
    _check(spec, data, raw, graph)
    key = training_fingerprint(spec, data, graph)
    with contextlib.ExitStack() as stack:
        fitted_to = data
        if spec.fold is not None:
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-fold-"))
            progress.phase(f"leave out fold {spec.fold.index + 1} of {spec.fold.of}")
            fitted_to = folds.write_fold(spec.fold, raw, data, Path(work) / "examples")
        return _train(spec, key, raw, data, fitted_to, graph, root=root, model=model, progress=progress)


def _train(
    spec: TrainSpec,
    key: str,
    raw: Dataset,
    data: Dataset,
    fitted_to: Dataset,
    graph: TransformGraph,
    *,
    root: str,
    model: str,
    progress: Progress,
) -> TrainSummary:
    """Trains on `fitted_to`, which is `data` or a fold of it."""
    checkpoints = Checkpoints(root, key, spec.training.checkpoint_seconds, spec.training.checkpoint_steps)
    fitted = spec.model.open(Layout.of(data.metadata["features"], spec.labels))
    facts: dict = {}
    with artifact.write_folder(model, facts) as folder:
        history = History(folder / LOGS, fitted.unit, _live_logs(spec, root, key))
        with contextlib.closing(history), notice() as told:
            kept = fitted.fit(Run(fitted_to, spec.training, history, checkpoints, progress, told, graph))
        fitted.save(folder)
        history.save(folder / HISTORY, kept)
        facts |= {
            "family": fitted.family,
            "name": fitted.name,
            "model_fingerprint": fitted.fingerprint(),
            "training_fingerprint": key,
            "transform_fingerprint": graph.fingerprint,
        }
        valid = _valid_metrics(fitted, data)
        _write_document(folder / models.DOCUMENT, spec, fitted, data, facts | {"kept": kept, "valid": valid})
        if spec.fold is not None:
            labels = read_labels(fitted_to, folds.HELD_OUT, spec.labels)[:, 0]
            scores = fitted.predict(fitted_to, folds.HELD_OUT)[:, 0]
            folds.write_out_of_fold(spec.fold, raw, labels, scores, folder / folds.OUT_OF_FOLD)
            facts["fold"] = [spec.fold.index, spec.fold.of]
        export_checked(fitted, graph, raw, data, folder, progress)
    checkpoints.remove()
    seconds = sum(entry["seconds"] for entry in history.entries)
    speed = len(history.entries) * fitted_to.rows("train") / max(seconds, 1e-3)
    share = history.input_share()
    if share is not None and share > SLOW_INPUT:
        hint = "give the step more CPU (compute.train.cpu), or take a larger training.batch_size"
        progress.phase(f"{share:.0%} of the time was spent waiting for rows: {hint}")
    return TrainSummary(fitted.family, fitted.name, valid, kept, round(speed, 1), share, facts["model_fingerprint"])


def _live_logs(spec: TrainSpec, root: str, key: str) -> str:
    """Where TensorBoard finds the training while it goes on: all of an experiment are below one folder."""
    member = spec.model.name if spec.fold is None else f"{spec.model.name}-fold-{spec.fold.index}"
    return storage.join(root, LOGS, spec.experiment, member, key[:8])


def training_fingerprint(spec: TrainSpec, data: Dataset, graph: TransformGraph) -> str:
    """Of all that decides the weights. How often checkpoints are written does not, nor where logs go."""
    idle = {"experiment": True, "training": {"checkpoint_seconds", "checkpoint_steps", "retries"}}
    told = spec.model_dump(mode="json", exclude=idle)
    return fingerprint.of_json([told, data.fingerprint, data.metadata["features"], graph.fingerprint])


def _check(spec: TrainSpec, data: Dataset, raw: Dataset, graph: TransformGraph) -> None:
    """Refuses what cannot be trained on, before anything is computed."""
    if not data.metadata.get("features"):
        raise TidemillError(
            Code.TRANSFORM_FAILED, "transformed examples", "no feature", "let the transform give a feature"
        )
    if data.metadata["features"] != graph.features:
        got = "transformed examples that another transform graph made"
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(data.path), got, "run preprocess again")
    for split in ("train", "valid"):
        if raw.rows(split) != data.rows(split):
            got = f"{data.rows(split)} transformed rows of {raw.rows(split)} in {split}"
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(data.path), got, "run preprocess again")
    spec.model.check_labels(len(spec.labels))
    spec.training.check_labels(len(spec.labels))
    if spec.fold is not None and len(spec.labels) > 1:
        want = "train without folds, or give one label"
        raise TidemillError(Code.UNSUPPORTED, "labels", f"{len(spec.labels)} labels with a fold", want)
    for label in spec.labels:
        _check_label(data, "train", label, spec.training)
        if spec.training.early_stopping or data.rows("valid"):
            _check_label(data, "valid", label, spec.training)


def _check_label(data: Dataset, split: str, label: str, training: Training) -> None:
    rows = data.rows(split)
    if not rows:
        want = "give the split a share of the rows" + (
            " or set training.early_stopping: null" if split == "valid" else ""
        )
        raise TidemillError(Code.EMPTY_SPLIT, split, "no rows", want)
    positives = 0
    for batch in data.batches(split, [label]):
        positives += count_ones(label, batch.column(label), split=split)
    if split == "train" or training.early_stopping is not None:
        check_both_classes(label, positives, rows, split=split)
    if split == "train" and (rows - positives) * training.negative_rate < 1:
        got = f"{training.negative_rate:g} of {rows - positives} rows with label 0, less than one row"
        raise TidemillError(Code.INVALID_VALUE, "training.negative_rate", got, "take a larger share")


def _valid_metrics(fitted: Model, data: Dataset) -> dict[str, float]:
    if not data.rows("valid"):
        return {}
    labels = fitted.layout.labels
    return measure_labels(labels, read_labels(data, "valid", labels), fitted.predict(data, "valid"))


def _write_document(path: Path, spec: TrainSpec, fitted: Model, data: Dataset, facts: dict) -> None:
    document = {
        "config": spec.model.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json"),
        "labels": spec.labels,
        "features": data.metadata["features"],
        "unit": fitted.unit,
        "versions": fitted.versions(),
        **fitted.facts(),
    }
    storage.write_json(path, facts | document)
