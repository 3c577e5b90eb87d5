"""`training` and `tuning`: how models are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tidemill.errors import Code, TidemillError
from tidemill.section import PositiveInt, Section, Seed


class Optimizer(Section):
    """The optimizer of the neural families. Of an embedding table it updates the rows of the batch alone."""

    name: Literal["adam", "adagrad", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """The largest learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after the warm-up: to 0 at the end of the last epoch, but for `constant`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which the learning rate grows linearly from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay (Loshchilov & Hutter, 2019, arXiv:1711.05101) of the weights beside the embeddings."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of all gradients of a step together; null clips none."""


class EarlyStopping(Section):
    """Ends training when the metric on the valid split no longer improves; the best weights are kept."""

    metric: Literal["auc", "log_loss"] = "log_loss"
    """Of several labels the mean."""
    patience: PositiveInt = 2
    """Neural families: epochs without improvement."""
    rounds: PositiveInt = 50
    """Gradient boosting: rounds without improvement."""


class Training(Section):
    """How the members are trained."""

    epochs: PositiveInt = 6
    """Most passes over train, for the neural families."""
    batch_size: PositiveInt = 2048
    """Rows a step."""
    optimizer: Optimizer = Optimizer()
    early_stopping: EarlyStopping | None = EarlyStopping()
    """null trains all epochs and rounds."""
    negative_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Neural families: share of the rows with label 0 that an epoch sees, drawn anew in each. The model's scores are
    corrected for it. For one label."""
    positive_weight: Annotated[float, Field(gt=0)] = 1.0
    """Neural families: weight of a row with label 1, of each label, beside 1 for the others. The model's scores are
    corrected for it."""
    warm_start: str | None = None
    """Neural families: a published model to begin with, `previous` for the one that is published now under the
    experiment's name, or the URI of a published version (also of a model for another label). Embeddings are matched by
    their words."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Neural families: `mixed_bfloat16` computes in bfloat16 where that is enough. Weights, embeddings and the exported
    model are float32."""
    backend: Literal["tensorflow", "jax"] = "tensorflow"
    """Neural families: what trains them. `jax` needs the extra of that name, and splits a batch over all GPUs of its
    machine; `tensorflow` takes one. The exported model is TensorFlow's with both."""
    xla: bool = False
    """Neural families, trained by `tensorflow`: whether XLA compiles a step, but for the updates of the embeddings.
    `jax` always does."""
    seed: Seed = 0
    """Seed of weights, shuffling and bagging. The same seed on the same machine gives the same weights."""
    folds: Annotated[int, Field(ge=2, le=50)] | None = None
    """Folds of the `cross_validate` pipeline, 5 where it is not given; the `train` pipeline does not use it."""
    threads: PositiveInt | None = None
    """CPU threads of a training process. Defaults to the machine's cores."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Least time between two checkpoints, which are written between two steps or boosting rounds."""
    checkpoint_steps: PositiveInt | None = None
    """Most steps between two checkpoints. Defaults to no limit."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """On a cluster: how often a training is tried again after an error. Nodes that go away do not count."""

    @field_validator("warm_start")
    @classmethod
    def _previous_or_a_uri(cls, value: str | None) -> str | None:
        if value is not None and value != "previous" and "/" not in value:
            raise ValueError("write previous, or the URI of a published version")
        return value

    @model_validator(mode="after")
    def _xla_is_chosen_for_tensorflow(self) -> Training:
        if self.xla and self.backend != "tensorflow":
            raise ValueError(f"xla is a setting for backend: tensorflow; {self.backend} always compiles, leave it out")
        return self

    def check_labels(self, labels: int) -> None:
        """Refuses what cannot be done with so many labels.

        Raises:
            TidemillError: `unsupported`.
        """
        if labels > 1 and self.negative_rate < 1:
            got = f"{self.negative_rate:g} with {labels} labels, whose scores cannot all be corrected for it"
            raise TidemillError(Code.UNSUPPORTED, "training.negative_rate", got, "leave it out, or give one label")


class Ensemble(Section):
    """How the `cross_validate` pipeline makes one model of the members. A member's score is the mean over its folds'
    models."""

    method: Literal["mean", "rank_mean", "stack"] | None = None
    """`mean` of the members' scores; `rank_mean` of their percentiles among the out-of-fold scores, made a probability
    by a logistic regression; `stack`: a logistic regression on the logits of the out-of-fold scores (Wolpert, 1992).
    Defaults to `stack`, and to `mean` where the split is by time: what is out of a fold there lies between days that
    the models have seen, and weights that are good for it need not be for the days to come."""


class Tuning(Section):
    """Hyperparameter search of the `tune` pipeline, which is not in this version; the `train` pipeline does not use
    it."""

    algorithm: Literal["random", "grid", "tpe", "multivariate-tpe", "cmaes", "sobol", "hyperband"] = "tpe"
    trials: PositiveInt = 20
    parallel: PositiveInt = 2
    objective: dict[str, str | float] = {"metric": "auc"}
    space: dict[str, dict[str, list[float | int | str]]] = {}
