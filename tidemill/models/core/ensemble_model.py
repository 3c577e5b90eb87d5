"""The model of an ensemble: combines the members' mean scores to one score."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import TypeAdapter

from tidemill import fingerprint, storage
from tidemill.errors import Code, TidemillError
from tidemill.models.core.base import Model
from tidemill.models.core.family import Family
from tidemill.models.core.inputs import Layout, Rows

if TYPE_CHECKING:
    import tensorflow as tf

NAME = "ensemble"
COMBINATION = "combination.json"
MEMBERS = "members"
_CONFIG = "config.json"
_MIN_SCORE = 1e-7
"""Scores are clipped to this distance from 0 and 1 before their logit is taken."""

ReadMember = Callable[[Mapping[str, Any], Path, Layout], Model]
"""Reads a member's model from its config as JSON, its folder and the layout."""


@dataclass(frozen=True)
class Combination:
    """A function from members' scores to one score.

    Attributes:
        method: `mean`: the mean of the scores. `stack`: a logistic regression on the logits of the scores.
            `rank_mean`: a logistic regression on the logit of the mean of the scores' percentiles.
        bias: Bias of the logistic regression.
        weights: Weights of the logistic regression: one for each member with `stack`, one with `rank_mean`.
        quantiles: For `rank_mean`, for each member its scores at evenly spaced percentiles from 0 to 1, ascending.
    """

    method: Literal["mean", "rank_mean", "stack"]
    bias: float = 0.0
    weights: tuple[float, ...] = ()
    quantiles: tuple[tuple[float, ...], ...] = ()

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Returns probabilities [rows] from the members' scores [rows, members], float64."""
        if self.method == "mean":
            return scores.mean(axis=1)
        return 1 / (1 + np.exp(-(self.bias + self.inputs(scores) @ np.array(self.weights))))

    def inputs(self, scores: np.ndarray) -> np.ndarray:
        """Returns the inputs of the logistic regression, [rows, number of weights]."""
        if self.method == "rank_mean":
            ranks = [
                np.interp(column, quantiles, np.linspace(0, 1, len(quantiles)))
                for column, quantiles in zip(scores.T, self.quantiles, strict=True)
            ]
            return _logit(np.mean(ranks, axis=0))[:, None]
        return _logit(scores)

    def tensor(self, scores: tf.Tensor) -> tf.Tensor:
        """Computes what `__call__` does in TensorFlow: [batch, members] float64 to [batch] float64."""
        import tensorflow as tf

        if self.method == "mean":
            return tf.reduce_mean(scores, axis=1)
        if self.method == "rank_mean":
            columns = zip(tf.unstack(scores, axis=1), self.quantiles, strict=True)
            ranks = tf.add_n([_interpolate(column, np.array(quantiles)) for column, quantiles in columns])
            scores = tf.expand_dims(ranks / len(self.quantiles), 1)
        scores = tf.clip_by_value(scores, _MIN_SCORE, 1 - _MIN_SCORE)
        logits = tf.math.log(scores) - tf.math.log1p(-scores)
        weights = tf.constant(self.weights, tf.float64)
        return tf.sigmoid(self.bias + tf.linalg.matvec(logits, weights))


class EnsembleConfig(Family):
    """The config of an ensemble. It is not part of an experiment: the `ensemble` step creates it."""

    family: Literal["ensemble"] = NAME
    name: str = NAME


class EnsembleModel(Model):
    """An ensemble: fitted models of one layout with one label, combined to one model.

    A member's score is the mean over the member's models.

    Args:
        config: The ensemble's config.
        layout: The features of all models, and the label.
        members: The models of each member, by the member's name.
        combination: Combines the members' scores, in the order of `members`.
    """

    unit = "model"
    libraries = ("tidemill", "numpy")

    def __init__(
        self,
        config: EnsembleConfig,
        layout: Layout,
        members: Mapping[str, Sequence[Model]],
        combination: Combination,
    ):
        super().__init__(config, layout)
        self._config = config
        self.members = {name: list(models) for name, models in members.items()}
        self.combination = combination

    @property
    def config(self) -> EnsembleConfig:
        return self._config

    def member_scores(self, rows: Rows) -> np.ndarray:
        """Returns the members' scores, [rows, members] float64."""
        scores = [np.mean([model.predict_rows(rows) for model in models], axis=0) for models in self.members.values()]
        return np.concatenate(scores, axis=1)

    def predict_rows(self, rows: Rows) -> np.ndarray:
        return self.combination(self.member_scores(rows))[:, None]

    def facts(self) -> dict[str, Any]:
        counts = {name: len(models) for name, models in self.members.items()}
        return {"members": counts, "combination": asdict(self.combination)}

    def save(self, folder: Path) -> None:
        storage.write_json(folder / COMBINATION, asdict(self.combination) | {"members": list(self.members)})
        for name, models in self.members.items():
            for i, model in enumerate(models):
                path = folder / MEMBERS / name / str(i)
                path.mkdir(parents=True)
                storage.write_json(path / _CONFIG, model.member_config.model_dump(mode="json"))
                model.save(path)

    @classmethod
    def load(cls, folder: Path, config: EnsembleConfig, layout: Layout, read_member: ReadMember) -> EnsembleModel:
        """Reads an ensemble that `save` wrote.

        Raises:
            TidemillError: `incomplete-artifact`.
        """
        try:
            saved = json.loads((folder / COMBINATION).read_text(encoding="utf-8"))
            members = {}
            for name in saved.pop("members"):
                paths = sorted((folder / MEMBERS / name).iterdir(), key=lambda path: int(path.name))
                configs = [json.loads((path / _CONFIG).read_text(encoding="utf-8")) for path in paths]
                members[name] = [read_member(c, path, layout) for c, path in zip(configs, paths, strict=True)]
            combination = TypeAdapter(Combination).validate_python(saved)
        except (OSError, json.JSONDecodeError, KeyError, ValueError) as error:
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(folder), str(error), "make the ensemble again") from error
        return cls(config, layout, members, combination)

    def fingerprint(self) -> str:
        models = {name: [model.fingerprint() for model in models] for name, models in self.members.items()}
        return fingerprint.of_json([asdict(self.combination), models])

    def serving(self) -> tuple[Callable[[dict[str, tf.Tensor]], tf.Tensor], Any]:
        import tensorflow as tf

        served = {name: [model.serving() for model in models] for name, models in self.members.items()}

        def score(features: dict[str, tf.Tensor]) -> tf.Tensor:
            members = [
                tf.add_n([tf.cast(score_one(features)[:, 0], tf.float64) for score_one, _ in models]) / len(models)
                for models in served.values()
            ]
            return tf.cast(self.combination.tensor(tf.stack(members, axis=1)), tf.float32)[:, None]

        return score, [variables for models in served.values() for _, variables in models]


def _logit(scores: np.ndarray) -> np.ndarray:
    scores = np.clip(scores, _MIN_SCORE, 1 - _MIN_SCORE)
    return np.log(scores) - np.log1p(-scores)


def _interpolate(values: tf.Tensor, quantiles: np.ndarray) -> tf.Tensor:
    """Computes `np.interp` of [batch] float64 to evenly spaced percentiles."""
    import tensorflow as tf

    last = len(quantiles) - 1
    cuts = tf.constant(quantiles, tf.float64)
    # Like np.interp, it uses the last of equal quantiles.
    right = tf.clip_by_value(tf.searchsorted(cuts, values, side="right"), 1, last)
    low, high = tf.gather(cuts, right - 1), tf.gather(cuts, right)
    share = tf.math.divide_no_nan(values - low, high - low)
    share = tf.clip_by_value(share, 0.0, 1.0)
    return tf.where(values >= quantiles[-1], tf.ones_like(values), (tf.cast(right - 1, tf.float64) + share) / last)
