"""A model made of models: a member's score is the mean over its models, and a combination of the members is the
ensemble's."""

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
_CONFIG = "config.json"
_SMALLEST = 1e-7
"""Scores are kept this far from 0 and 1 before a logit is taken of them."""


@dataclass(frozen=True)
class Combination:
    """How members' scores become one: sigmoid(bias + sum of weight * logit), or their mean.

    Attributes:
        method: `mean`: the mean, without weights. `stack`: the logits of the scores, with weights. `rank_mean`: the
            logit of the mean of the scores' percentiles, with one weight.
        bias: Of the logistic regression.
        weights: Of the logistic regression.
        quantiles: For `rank_mean`, for each member ascending scores at evenly spaced percentiles from 0 to 1.
    """

    method: Literal["mean", "rank_mean", "stack"]
    bias: float = 0.0
    weights: tuple[float, ...] = ()
    quantiles: tuple[tuple[float, ...], ...] = ()

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities [rows] of members' scores [rows, members], float64."""
        if self.method == "mean":
            return scores.mean(axis=1)
        return 1 / (1 + np.exp(-(self.bias + self.inputs(scores) @ np.array(self.weights))))

    def inputs(self, scores: np.ndarray) -> np.ndarray:
        """What the logistic regression takes: [rows, number of weights]."""
        if self.method == "rank_mean":
            ranks = [
                np.interp(column, found, np.linspace(0, 1, len(found)))
                for column, found in zip(scores.T, self.quantiles, strict=True)
            ]
            return _logit(np.mean(ranks, axis=0))[:, None]
        return _logit(scores)

    def tensor(self, scores: tf.Tensor) -> tf.Tensor:
        """The same in TensorFlow: [batch, members] float64 to [batch] float64."""
        import tensorflow as tf

        if self.method == "mean":
            return tf.reduce_mean(scores, axis=1)
        if self.method == "rank_mean":
            found = zip(tf.unstack(scores, axis=1), self.quantiles, strict=True)
            ranks = tf.add_n([_interpolate(column, np.array(quantiles)) for column, quantiles in found])
            scores = tf.expand_dims(ranks / len(self.quantiles), 1)
        scores = tf.clip_by_value(scores, _SMALLEST, 1 - _SMALLEST)
        logits = tf.math.log(scores) - tf.math.log1p(-scores)
        weights = tf.constant(self.weights, tf.float64)
        return tf.sigmoid(self.bias + tf.linalg.matvec(logits, weights))


class EnsembleConfig(Family):
    """What an ensemble is called. It is no section of an experiment: the `ensemble` step makes it."""

    family: Literal["ensemble"] = NAME
    name: str = NAME

    def open(self, layout: Layout) -> Model:
        raise TypeError("an ensemble is made of fitted models")

    def load(self, folder: Path, layout: Layout) -> Model:
        return EnsembleModel.load(folder, self, layout)


class EnsembleModel(Model):
    """Fitted models of one layout, with one label, as one.

    Args:
        config: The name.
        layout: The features of all models.
        members: Models by their member's name.
        combination: Of the members, in their order.
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
        self.members = {name: list(models) for name, models in members.items()}
        self.combination = combination

    def fit(self, run: Any) -> int:
        raise TypeError("an ensemble is made of fitted models")

    def member_scores(self, rows: Rows) -> np.ndarray:
        """[rows, members] float64."""
        bags = [np.mean([model.predict_rows(rows) for model in models], axis=0) for models in self.members.values()]
        return np.concatenate(bags, axis=1)

    def predict_rows(self, rows: Rows) -> np.ndarray:
        return self.combination(self.member_scores(rows))[:, None]

    def facts(self) -> dict:
        return {"members": {name: len(models) for name, models in self.members.items()}} | {
            "combination": asdict(self.combination)
        }

    def save(self, folder: Path) -> None:
        storage.write_json(folder / COMBINATION, asdict(self.combination) | {"members": list(self.members)})
        for name, models in self.members.items():
            for place, model in enumerate(models):
                path = folder / "members" / name / str(place)
                path.mkdir(parents=True)
                storage.write_json(path / _CONFIG, model.told.model_dump(mode="json"))
                model.save(path)

    @classmethod
    def load(cls, folder: Path, config: EnsembleConfig, layout: Layout) -> EnsembleModel:
        from tidemill.models import config_of

        try:
            told = json.loads((folder / COMBINATION).read_text(encoding="utf-8"))
            members = {}
            for name in told.pop("members"):
                paths = sorted((folder / "members" / name).iterdir(), key=lambda path: int(path.name))
                configs = [config_of(json.loads((path / _CONFIG).read_text(encoding="utf-8"))) for path in paths]
                members[name] = [c.load(path, layout) for c, path in zip(configs, paths, strict=True)]
            combination = TypeAdapter(Combination).validate_python(told)
        except (OSError, json.JSONDecodeError, KeyError, ValueError) as error:
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(folder), str(error), "make the ensemble again") from error
        return cls(config, layout, members, combination)

    def fingerprint(self) -> str:
        models = {name: [model.fingerprint() for model in models] for name, models in self.members.items()}
        return fingerprint.of_json([asdict(self.combination), models])

    def serving(self) -> tuple[Callable[[dict[str, tf.Tensor]], tf.Tensor], Any]:
        import tensorflow as tf

        parts = {name: [model.serving() for model in models] for name, models in self.members.items()}

        def score(features: dict[str, tf.Tensor]) -> tf.Tensor:
            bags = [
                tf.add_n([tf.cast(one(features)[:, 0], tf.float64) for one, _ in models]) / len(models)
                for models in parts.values()
            ]
            return tf.cast(self.combination.tensor(tf.stack(bags, axis=1)), tf.float32)[:, None]

        return score, [variables for models in parts.values() for _, variables in models]


def _logit(scores: np.ndarray) -> np.ndarray:
    scores = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    return np.log(scores) - np.log1p(-scores)


def _interpolate(values: tf.Tensor, quantiles: np.ndarray) -> tf.Tensor:
    """`np.interp` of [batch] float64 to evenly spaced percentiles."""
    import tensorflow as tf

    last = len(quantiles) - 1
    found = tf.constant(quantiles, tf.float64)
    # As np.interp, the last of equal quantiles counts.
    right = tf.clip_by_value(tf.searchsorted(found, values, side="right"), 1, last)
    low, high = tf.gather(found, right - 1), tf.gather(found, right)
    share = tf.math.divide_no_nan(values - low, high - low)
    share = tf.clip_by_value(share, 0.0, 1.0)
    return tf.where(values >= quantiles[-1], tf.ones_like(values), (tf.cast(right - 1, tf.float64) + share) / last)
