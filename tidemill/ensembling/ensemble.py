"""The `ensemble` step: the models that folds and members gave become one, with a report that compares them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tidemill import models, storage
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.artifacts.model import DOCUMENT, OUT_OF_FOLD
from tidemill.binary_metrics import measure
from tidemill.ensembling import report as page
from tidemill.errors import Code, TidemillError
from tidemill.models.core.base import Model
from tidemill.models.core.ensemble_model import Combination, EnsembleConfig, EnsembleModel
from tidemill.models.core.inputs import Layout, read_labels
from tidemill.runtime import Progress
from tidemill.serving.export import export_checked
from tidemill.steps.ensemble import EnsembleSpec
from tidemill.training import folds
from tidemill.transform.graph import TransformGraph

QUANTILES = 1001
_C = 1.0
"""Inverse strength of the L2 penalty of the stacked logistic regression, as scikit-learn's default."""


@dataclass(frozen=True)
class EnsembleSummary:
    """What the step logs.

    Attributes:
        name: The ensemble's.
        valid: `auc` and `log_loss` of the valid split; empty without one.
        out_of_fold: The same of the rows of train, each scored by models that have not seen it.
        fingerprint: Of all models and how they are combined.
    """

    name: str
    valid: dict[str, float]
    out_of_fold: dict[str, float]
    fingerprint: str


@dataclass(frozen=True)
class Trained:
    """A fold's model, as `train` wrote it."""

    folder: Path
    member: str
    fold: int
    model: Model

    def history(self) -> dict:
        """The course of its training."""
        return json.loads((self.folder / "history.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class OutOfFold:
    """What models say about rows that they have not seen.

    Attributes:
        labels: [rows of train].
        folds: [rows of train] int64.
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
    """Makes one model of the models of folds.

    Args:
        spec: Which members, and how to combine them.
        trained: Folders of models, of these members and perhaps of others, in any order.
        examples: The raw examples.
        transformed: The transformed examples.
        transform_graph: The transform graph that made them.
        model: The model folder to write: as that of `train`, with the models below `members/`.
        report: File for the page that compares the members.
        progress: Told of every step.

    Raises:
        TidemillError: `incomplete-artifact` where a fold's model is missing or is no fold's model, `serving-skew`.
    """
    progress.phase("read the models")
    data, raw, graph = Dataset(transformed), Dataset(examples), TransformGraph(transform_graph)
    found = _by_member(spec, trained)
    out_of_fold = _out_of_fold(found, data.rows("train"))
    progress.phase("combine")
    combination = fit(spec.ensemble.method, out_of_fold.scores, out_of_fold.labels)
    members = {name: [one.model for one in each] for name, each in found.items()}
    layout = Layout.of(data.metadata["features"], [spec.label])
    made = EnsembleModel(EnsembleConfig(name=spec.name), layout, members, combination)
    held_out = measure(out_of_fold.labels, cross_fitted(spec.ensemble.method, out_of_fold))
    facts: dict = {}
    with artifact.write_folder(model, facts) as folder:
        made.save(folder)
        labels = read_labels(data, "valid", layout.labels)[:, 0]
        valid = measure(labels, made.predict(data, "valid")[:, 0]) if len(labels) else {}
        facts |= {
            "family": made.family,
            "name": made.name,
            "model_fingerprint": made.fingerprint(),
            "transform_fingerprint": graph.fingerprint,
        }
        document = {
            "config": made.config.model_dump(mode="json"),
            "labels": [spec.label],
            "features": data.metadata["features"],
            "unit": made.unit,
            "kept": sum(len(each) for each in members.values()),
            "valid": valid,
            "out_of_fold": held_out,
            "versions": made.versions(),
        }
        storage.write_json(folder / DOCUMENT, facts | document | made.facts())
        export_checked(made, graph, raw, data, folder, progress)
    page.write(report, spec, found, out_of_fold, made, held_out)
    return EnsembleSummary(made.name, valid, held_out, facts["model_fingerprint"])


def fit(method: str, scores: np.ndarray, labels: np.ndarray) -> Combination:
    """A combination of members by what they say about rows that they have not seen.

    Args:
        method: `mean`, `rank_mean` or `stack`.
        scores: [rows, members] float64, probabilities.
        labels: [rows], 0 and 1, both.
    """
    if method == "mean":
        return Combination("mean")
    quantiles: tuple = ()
    if method == "rank_mean":
        found = np.quantile(scores, np.linspace(0, 1, QUANTILES), axis=0)
        quantiles = tuple(tuple(column.tolist()) for column in found.T)
    from sklearn.linear_model import LogisticRegression

    inputs = Combination(method, quantiles=quantiles).inputs(scores)
    regression = LogisticRegression(C=_C, max_iter=1000).fit(inputs, labels)
    weights = tuple(float(weight) for weight in regression.coef_[0])
    return Combination(method, float(regression.intercept_[0]), weights, quantiles)


def cross_fitted(method: str, found: OutOfFold) -> np.ndarray:
    """The ensemble's out-of-fold scores, [rows]: each fold's by a combination that was fitted to the others."""
    scores = np.empty(len(found.labels))
    for fold in np.unique(found.folds):
        chosen = found.folds == fold
        rest = ~chosen
        fits = len(np.unique(found.labels[rest])) == 2
        combination = fit(method if fits else "mean", found.scores[rest], found.labels[rest])
        scores[chosen] = combination(found.scores[chosen])
    return scores


def _by_member(spec: EnsembleSpec, trained: Sequence[str]) -> dict[str, list[Trained]]:
    found: dict[str, dict[int, Trained]] = {name: {} for name in spec.members}
    for path in trained:
        about = artifact.open_folder(path)["metadata"]
        if about["name"] not in found:
            continue
        if about.get("fold", [0, 0])[1] != spec.folds:
            got = f"a model of {about['name']} that is not of one of {spec.folds} folds"
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(path), got, "run train again")
        fold = about["fold"][0]
        found[about["name"]][fold] = Trained(Path(path), about["name"], fold, models.load_model(path))
    for name, each in found.items():
        if missing := sorted(set(range(spec.folds)) - set(each)):
            got = f"no model of {name} for fold {missing[0] + 1} of {spec.folds}"
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, "models", got, "give the models of all folds")
    return {name: [each[fold] for fold in sorted(each)] for name, each in found.items()}


def _out_of_fold(found: dict[str, list[Trained]], rows: int) -> OutOfFold:
    labels = np.full(rows, np.nan)
    of = np.full(rows, -1, np.int64)
    scores = np.full((rows, len(found)), np.nan)
    for place, each in enumerate(found.values()):
        for one in each:
            table = pq.read_table(one.folder / OUT_OF_FOLD)
            chosen = table.column(folds.ROW).to_numpy()
            labels[chosen], of[chosen] = table.column(folds.LABEL).to_numpy(), one.fold
            scores[chosen, place] = table.column(folds.SCORE).to_numpy()
    if np.isnan(scores).any():
        row, place = np.argwhere(np.isnan(scores))[0]
        got = f"row {row} of train without an out-of-fold score of {list(found)[place]}"
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, "models", got, "run train again")
    return OutOfFold(labels, of, scores)
