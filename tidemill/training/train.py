"""The work of the `train` step: from transformed examples to a complete model folder, measured and checked."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill import fingerprint, storage
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.artifacts.labels import check_both_classes, count_ones
from tidemill.artifacts.model import HISTORY, LOGS, OUT_OF_FOLD, ModelDocument
from tidemill.auc_and_log_loss import measure_labels
from tidemill.errors import Code, TidemillError
from tidemill.experiment.training import Training
from tidemill.models.core import backend
from tidemill.models.core.base import Model
from tidemill.models.core.family import Network
from tidemill.models.core.inputs import Layout, read_labels
from tidemill.models.core.registry import new_model
from tidemill.models.gbdt import Gbdt
from tidemill.models.own import OwnFamily
from tidemill.runtime import Progress
from tidemill.section import Section
from tidemill.serving.export import export_checked
from tidemill.steps.train import Fold, TrainSpec
from tidemill.training import folds
from tidemill.training.checkpoint import Checkpoints
from tidemill.training.defaults import resolve
from tidemill.training.fit_context import FitContext, preemption_notice
from tidemill.training.history import History
from tidemill.transform.graph import TransformGraph

SLOW_INPUT = 0.1
"""Share of the time spent waiting for rows from which the step logs a hint."""
BLOCKED_SHARE = 0.05
"""Share of the time spent copying checkpoints from which the step logs a hint."""


@dataclass(frozen=True)
class TrainSummary:
    """The results of one training run.

    Attributes:
        family: The model's family.
        name: The member's name.
        valid: Metrics of the valid split, as from `measure_labels`. Empty without one.
        epochs: Number of epochs or boosting rounds that the model keeps.
        rows_per_second: Rows of train per second, times the epochs or rounds; measuring metrics is not counted.
        input_share: Share of the training time spent waiting for rows. None for gradient boosting.
        checkpoint_blocked_share: Share of the training time in this process in which training waited for checkpoints.
        fingerprint: Fingerprint of the weights. Models with equal fingerprints return equal scores.
    """

    family: str
    name: str
    valid: dict[str, float]
    epochs: int
    rows_per_second: float
    input_share: float | None
    checkpoint_blocked_share: float
    fingerprint: str


def train(
    spec: TrainSpec, examples: str, transformed: str, transform_graph: str, *, root: str, model: str, progress: Progress
) -> TrainSummary:
    """Trains a member, exports it for serving, and replays rows through both.

    After a kill, the next call resumes from the newest checkpoint below `root`. Gradient boosting resumes after its
    last round, or starts over if it bags rows. The result has the same bits as without the kill. After an error that is
    not the user's, training is repeated `training.retries` times.

    Args:
        spec: The member and its training settings.
        examples: The raw examples.
        transformed: The transformed examples, with the same rows.
        transform_graph: The transform graph that made them.
        root: URI of the root, for checkpoints and TensorBoard's live logs.
        model: The model folder to write. `tidemill.artifacts.model` lists its files.
        progress: Receives the progress.

    Raises:
        TidemillError: `empty-split`, `label-null`, `label-type`, `label-one-class`, `transform-failed` (no feature),
            `training-diverged`, `serving-skew`, `incomplete-artifact`, `invalid-value` (embeddings that do not fit the
            features), `unsupported` (several labels with a family, sampling or fold that needs one), and what
            `backend.select` raises.
        Preempted: The process received SIGTERM; the next call resumes.
    """
    if progress.failures is not None:
        return progress.failures.repeat(
            spec.training.retries, _train, spec, examples, transformed, transform_graph, root, model, progress
        )
    return _train(spec, examples, transformed, transform_graph, root, model, progress)


def _train(
    spec: TrainSpec, examples: str, transformed: str, transform_graph: str, root: str, model: str, progress: Progress
) -> TrainSummary:
    if isinstance(spec.model, Network | OwnFamily):
        backend.select(spec.training.backend, spec.training.threads)
    data, raw, graph = Dataset(transformed), Dataset(examples), TransformGraph(transform_graph)
    _check(spec, data, raw, graph)
    spec = _resolved(spec, data.rows("train"), progress)
    key = training_fingerprint(spec, data, graph)
    checkpoints = Checkpoints(root, key, spec.training.checkpoint_seconds, spec.training.checkpoint_steps)
    fitted = new_model(spec.model, Layout.of(data.metadata["features"], spec.labels))
    facts: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(checkpoints)  # which are removed when the model is complete
        fit_data = data
        if spec.fold is not None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-fold-"))
            progress.phase(f"leave out fold {spec.fold.index + 1} of {spec.fold.of}")
            fit_data = folds.write_fold(spec.fold, raw, data, Path(scratch) / "examples")
        folder = stack.enter_context(artifact.write_folder(model, facts))
        history = History(folder / LOGS, fitted.unit, _live_logs(spec, root, key))
        with contextlib.closing(history), preemption_notice() as notice:
            context = FitContext(fit_data, spec.training, history, checkpoints, progress, notice, graph)
            kept = fit(fitted, context)
            blocked = checkpoints.blocked_share()
        if 0 < kept <= len(history.entries):
            best, name = history.entries[kept - 1], f"keeps {fitted.unit} {kept:,} of {len(history.entries):,}"
            progress.metrics(best["train"], best["valid"], name, final=True)
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
        document = ModelDocument(
            **facts,
            kept=kept,
            valid=valid,
            config=spec.model.model_dump(mode="json", exclude={"training"}),
            training=spec.training.model_dump(mode="json"),
            labels=spec.labels,
            features=data.metadata["features"],
            unit=fitted.unit,
            versions=fitted.versions(),
            **fitted.facts(),
        )
        document.write(folder)
        if spec.fold is not None:
            _write_out_of_fold(spec.fold, spec.labels, fitted, raw, fit_data, folder)
            facts["fold"] = [spec.fold.index, spec.fold.of]
        export_checked(fitted, graph, raw, data, folder, progress)
    seconds = sum(entry["seconds"] for entry in history.entries)
    speed = len(history.entries) * fit_data.rows("train") / max(seconds, 1e-3)
    share = history.input_share()
    for warning in document.warnings():
        progress.phase(warning)
    _report_waiting(share, blocked, checkpoints.write_seconds, spec.training, progress)
    return TrainSummary(
        fitted.family, fitted.name, valid, kept, round(speed, 1), share, blocked, facts["model_fingerprint"]
    )


def _resolved(spec: TrainSpec, rows: int, progress: Progress) -> TrainSpec:
    """Returns the spec with a value for each setting that it leaves open."""
    training, config = resolve(spec.training, spec.model, rows)
    open_settings = [*_differences(spec.training, training), *_differences(spec.model, config)]
    if open_settings:
        progress.phase(f"settings for {rows:,} rows: {', '.join(open_settings)}")
    return spec.model_copy(update={"training": training, "model": config})


def _differences(before: Section, after: Section) -> Iterator[str]:
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, Section) and isinstance(new, Section):
            yield from _differences(old, new)
        elif old != new:
            yield f"{name} {new}"


def fit(model: Model, context: FitContext) -> int:
    """Fits a model. Resumes from the newest checkpoint if there is one.

    Returns:
        The number of epochs or rounds that the model keeps.

    Raises:
        TidemillError: `training-diverged`, and what the model's family raises.
        Preempted: SIGTERM arrived, and a checkpoint is written if the family can resume.
        TypeError: Models of this family are not fitted.
    """
    if isinstance(model.config, Network):
        from tidemill.models.core.neural import NeuralModel
        from tidemill.training.networks import fit_network

        assert isinstance(model, NeuralModel)
        return fit_network(model, context)
    if isinstance(model.config, Gbdt):
        from tidemill.models.core.booster import GbdtModel
        from tidemill.training.boosting import fit_trees

        assert isinstance(model, GbdtModel)
        return fit_trees(model, context)
    raise TypeError(f"models of family {model.family} are not fitted")


def training_fingerprint(spec: TrainSpec, data: Dataset, graph: TransformGraph) -> str:
    """Returns a fingerprint of everything that decides the weights."""
    irrelevant = {"experiment": True, "training": {"checkpoint_seconds", "checkpoint_steps", "retries"}}
    relevant = spec.model_dump(mode="json", exclude=irrelevant)
    return fingerprint.of_json([relevant, data.fingerprint, data.metadata["features"], graph.fingerprint])


def _live_logs(spec: TrainSpec, root: str, key: str) -> str:
    """Returns the folder of TensorBoard's live logs. The folders of one experiment have a common parent."""
    member = spec.model.name if spec.fold is None else f"{spec.model.name}-fold-{spec.fold.index}"
    return storage.join(root, LOGS, spec.experiment, member, key[:8])


def _report_waiting(
    input_share: float | None, blocked_share: float, write_seconds: float, training: Training, progress: Progress
) -> None:
    """Logs a hint if training waited long for rows or for checkpoints, or if a checkpoint was written for long."""
    if input_share is not None and input_share > SLOW_INPUT:
        hint = "request more CPU for the step (compute.train.cpu), or use a larger training.batch_size"
        progress.phase(f"{input_share:.0%} of the time was spent waiting for rows: {hint}")
    if blocked_share > BLOCKED_SHARE:
        hint = "use a larger training.checkpoint_seconds"
        progress.phase(f"{blocked_share:.0%} of the time was spent copying checkpoints: {hint}")
    if write_seconds > training.checkpoint_seconds:
        got = f"writing a checkpoint took up to {write_seconds:.0f} seconds"
        progress.phase(f"{got}: they were further apart than training.checkpoint_seconds")


def _check(spec: TrainSpec, data: Dataset, raw: Dataset, graph: TransformGraph) -> None:
    """Checks, before anything is computed, that the member can be trained on the data."""
    if not data.metadata.get("features"):
        want = "let the transform output a feature"
        raise TidemillError(Code.TRANSFORM_FAILED, "transformed examples", "no feature", want)
    if data.metadata["features"] != graph.features:
        got = "transformed examples of another transform graph"
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(data.path), got, "run preprocess again")
    for split in ("train", "valid"):
        if raw.rows(split) != data.rows(split):
            got = f"{data.rows(split)} transformed rows for {raw.rows(split)} raw rows in {split}"
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(data.path), got, "run preprocess again")
    spec.model.check_labels(len(spec.labels))
    spec.training.check_labels(len(spec.labels))
    if spec.fold is not None and len(spec.labels) > 1:
        want = "train without folds, or set one label"
        raise TidemillError(Code.UNSUPPORTED, "labels", f"{len(spec.labels)} labels with a fold", want)
    for label in spec.labels:
        _check_label(data, "train", label, spec.training)
        if spec.training.early_stopping or data.rows("valid"):
            _check_label(data, "valid", label, spec.training)


def _check_label(data: Dataset, split: str, label: str, training: Training) -> None:
    rows = data.rows(split)
    if not rows:
        alternative = " or set training.early_stopping: null" if split == "valid" else ""
        raise TidemillError(Code.EMPTY_SPLIT, split, "no rows", f"give the split a share of the rows{alternative}")
    positives = 0
    for batch in data.batches(split, [label]):
        positives += count_ones(label, batch.column(label), split=split)
    if split == "train" or training.early_stopping is not None:
        check_both_classes(label, positives, rows, split=split)
    if split == "train" and (rows - positives) * training.negative_rate < 1:
        got = f"{training.negative_rate:g} of {rows - positives} rows with label 0, less than one row"
        raise TidemillError(Code.INVALID_VALUE, "training.negative_rate", got, "use a larger share")


def _valid_metrics(fitted: Model, data: Dataset) -> dict[str, float]:
    if not data.rows("valid"):
        return {}
    labels = fitted.layout.labels
    return measure_labels(labels, read_labels(data, "valid", labels), fitted.predict(data, "valid"))


def _write_out_of_fold(
    fold: Fold, labels: Sequence[str], fitted: Model, raw: Dataset, fit_data: Dataset, folder: Path
) -> None:
    known = read_labels(fit_data, folds.HELD_OUT, labels)[:, 0]
    scores = fitted.predict(fit_data, folds.HELD_OUT)[:, 0]
    folds.write_out_of_fold(fold, raw, known, scores, folder / OUT_OF_FOLD)
