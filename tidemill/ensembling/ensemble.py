"""The `ensemble` step: combines the models of folds and members into one model, and compares them in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from tidemill import models, storage
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.artifacts.model import DOCUMENT, HISTORY, OUT_OF_FOLD
from tidemill.auc_and_log_loss import measure
from tidemill.models.core.base import Model
from tidemill.models.core.ensemble_model import Combination, EnsembleConfig, EnsembleModel
from tidemill.models.core.inputs import Layout, read_labels
from tidemill.reports import experiment_page
from tidemill.reports.experiment_page import MemberFolds
from tidemill.runtime import Progress
from tidemill.serving.export import export_checked
from tidemill.steps.ensemble import EnsembleSpec
from tidemill.training import folds as fold_files
from tidemill.transform.graph import TransformGraph

Method = Literal["mean", "rank_mean", "stack"]
QUANTILES = 1001
_C = 1.0
"""Inverse strength of the L2 penalty of the stacked logistic regression; scikit-learn's default."""


@dataclass(frozen=True)
class EnsembleSummary:
    """The results that the step logs.

    Attributes:
        name: The ensemble's name.
        valid: `auc` and `log_loss` of the valid split; empty if it has no rows.
        out_of_fold: The same of the rows of train, each scored by models that were not trained on it.
        fingerprint: Of all models and their combination.
    """

    name: str
    valid: dict[str, float]
    out_of_fold: dict[str, float]
    fingerprint: str


@dataclass(frozen=True)
class FoldModel:
    """The model of one fold, as `train` wrote it.

    Attributes:
        folder: Folder of the model.
        member: The member's name.
        fold: Index of the fold, from 0.
        model: The model.
    """

    folder: Path
    member: str
    fold: int
    model: Model

    def history(self) -> dict[str, Any]:
        """Returns the content of `history.json`."""
        return storage.read_json(self.folder / HISTORY)


@dataclass(frozen=True)
class OutOfFold:
    """The scores of the members for rows that they were not trained on.

    Attributes:
        labels: [rows of train].
        folds: [rows of train] int64, the fold of each row.
        scores: [rows of train, members] float64.
    """

    labels: np.ndarray
    folds: np.ndarray
    scores: np.ndarray


def ensemble(
    spec: EnsembleSpec,
    trained: Sequence[str],
    examples: str,
    transformed: str,
    transform_graph: str,
    *,
    model: str,
    report: str,
    progress: Progress,
) -> EnsembleSummary:
    """Combines the models of folds into one model.

    Args:
        spec: The members, and how to combine them.
        trained: Folders of models, in any order. Models of other members are ignored.
        examples: Folder of the raw examples.
        transformed: Folder of the transformed examples.
        transform_graph: The transform graph that made them.
        model: The model folder to write. It has the files of `train`, and the models below `members/`.
        report: File for the page that compares the members.
        progress: Receives phases.

    Raises:
        TidemillError: `incomplete-artifact` if the model of a fold is missing; `serving-skew`.
    """
    progress.phase("read the models")
    data, raw, graph = Dataset(transformed), Dataset(examples), TransformGraph(transform_graph)
    members = _read_members(spec, trained)
    out_of_fold = _read_scores(members, data.rows("train"))
    progress.phase("combine")
    method = spec.ensemble.method or "mean"
    combination = fit(method, out_of_fold.scores, out_of_fold.labels)
    models_by_member = {name: [each.model for each in folds] for name, folds in members.items()}
    layout = Layout.of(data.metadata["features"], [spec.label])
    combined = EnsembleModel(EnsembleConfig(name=spec.name), layout, models_by_member, combination)
    metrics = measure(out_of_fold.labels, cross_fitted_scores(method, out_of_fold))
    facts: dict[str, Any] = {}
    with artifact.write_folder(model, facts) as folder:
        combined.save(folder)
        labels = read_labels(data, "valid", layout.labels)[:, 0]
        valid = measure(labels, combined.predict(data, "valid")[:, 0]) if len(labels) else {}
        facts |= {
            "family": combined.family,
            "name": combined.name,
            "model_fingerprint": combined.fingerprint(),
            "transform_fingerprint": graph.fingerprint,
        }
        document = {
            "config": combined.config.model_dump(mode="json"),
            "labels": [spec.label],
            "features": data.metadata["features"],
            "unit": combined.unit,
            "kept": sum(len(each) for each in members.values()),
            "valid": valid,
            "out_of_fold": metrics,
            "versions": combined.versions(),
        }
        storage.write_json(folder / DOCUMENT, facts | document | combined.facts())
        export_checked(combined, graph, raw, data, folder, progress)
    storage.write_text(report, _report(spec, members, out_of_fold, combination, metrics))
    return EnsembleSummary(combined.name, valid, metrics, facts["model_fingerprint"])


def _report(
    spec: EnsembleSpec,
    members: Mapping[str, Sequence[FoldModel]],
    out_of_fold: OutOfFold,
    combination: Combination,
    metrics: Mapping[str, float],
) -> str:
    """Returns the page that compares the members with each other and with the ensemble."""
    rows = []
    for i, (name, folds) in enumerate(members.items()):
        of_fold = [out_of_fold.folds == each.fold for each in folds]
        rows.append(
            MemberFolds(
                name=name,
                family=folds[0].model.family,
                fold_metrics=[measure(out_of_fold.labels[rows], out_of_fold.scores[rows, i]) for rows in of_fold],
                metrics=measure(out_of_fold.labels, out_of_fold.scores[:, i]),
                weight=combination.weights[i] if combination.method == "stack" else None,
                histories=[each.history() for each in folds],
            )
        )
    return experiment_page.render(
        spec.name, spec.label, combination.method, spec.folds, len(out_of_fold.labels), rows, metrics
    )


def fit(method: Method, scores: np.ndarray, labels: np.ndarray) -> Combination:
    """Returns a combination of members, fitted to rows that they were not trained on.

    Args:
        method: `mean`, `rank_mean` or `stack`.
        scores: [rows, members] float64, probabilities.
        labels: [rows], 0 and 1. Both must occur.
    """
    if method == "mean":
        return Combination("mean")
    quantiles: tuple = ()
    if method == "rank_mean":
        columns = np.quantile(scores, np.linspace(0, 1, QUANTILES), axis=0).T
        quantiles = tuple(tuple(column.tolist()) for column in columns)
    from sklearn.linear_model import LogisticRegression

    inputs = Combination(method, quantiles=quantiles).inputs(scores)
    regression = LogisticRegression(C=_C, max_iter=1000).fit(inputs, labels)
    weights = tuple(float(weight) for weight in regression.coef_[0])
    return Combination(method, float(regression.intercept_[0]), weights, quantiles)


def cross_fitted_scores(method: Method, out_of_fold: OutOfFold) -> np.ndarray:
    """Returns the ensemble's out-of-fold scores, [rows].

    The scores of each fold come from a combination that is fitted to the other folds. If these have only one class, it
    is the mean.
    """
    scores = np.empty(len(out_of_fold.labels))
    for fold in np.unique(out_of_fold.folds):
        inside = out_of_fold.folds == fold
        labels = out_of_fold.labels[~inside]
        has_both_classes = len(np.unique(labels)) == 2
        combination = fit(method if has_both_classes else "mean", out_of_fold.scores[~inside], labels)
        scores[inside] = combination(out_of_fold.scores[inside])
    return scores


def _read_members(spec: EnsembleSpec, trained: Sequence[str]) -> dict[str, list[FoldModel]]:
    """Returns the models of each member in the order of the folds."""
    by_fold: dict[str, dict[int, FoldModel]] = {name: {} for name in spec.members}
    for path in trained:
        metadata = artifact.open_folder(path)["metadata"]
        name = metadata["name"]
        if name not in by_fold:
            continue
        fold, folds = metadata.get("fold", [0, 0])
        if folds != spec.folds:
            got = f"a model of {name} that is not of one of {spec.folds} folds"
            raise artifact.incomplete_error(path, got, "run train again")
        by_fold[name][fold] = FoldModel(Path(path), name, fold, models.load_model(path))
    for name, each in by_fold.items():
        if missing := sorted(set(range(spec.folds)) - set(each)):
            got = f"no model of {name} for fold {missing[0] + 1} of {spec.folds}"
            raise artifact.incomplete_error("models", got, "give the models of all folds")
    return {name: [each[fold] for fold in sorted(each)] for name, each in by_fold.items()}


def _read_scores(members: Mapping[str, Sequence[FoldModel]], rows: int) -> OutOfFold:
    """Returns the out-of-fold scores from the folders of the models."""
    labels = np.full(rows, np.nan)
    folds = np.full(rows, -1, np.int64)
    scores = np.full((rows, len(members)), np.nan)
    for i, models_of_member in enumerate(members.values()):
        for each in models_of_member:
            table = pq.read_table(each.folder / OUT_OF_FOLD)
            row = table.column(fold_files.ROW).to_numpy()
            labels[row], folds[row] = table.column(fold_files.LABEL).to_numpy(), each.fold
            scores[row, i] = table.column(fold_files.SCORE).to_numpy()
    if np.isnan(scores).any():
        row, i = np.argwhere(np.isnan(scores))[0]
        got = f"row {row} of train without an out-of-fold score of {list(members)[i]}"
        raise artifact.incomplete_error("models", got, "run train again")
    return OutOfFold(labels, folds, scores)
