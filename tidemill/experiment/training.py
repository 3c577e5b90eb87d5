"""The sections `training`, `ensemble` and `tuning`: how models are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tidemill.errors import Code, TidemillError
from tidemill.section import PositiveInt, Section, Seed

OF_NETWORKS = ("epochs", "batch_size", "optimizer", "negative_rate", "positive_weight")
OF_NETWORKS += ("warm_start", "precision", "backend", "xla")
"""The settings of `training` that only neural families read."""


class Optimizer(Section):
    """The optimizer of the neural families. Each step updates only the embedding rows in its batch."""

    name: Literal["adam", "adagrad", "sgd"] = "adam"
    """The update rule."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """The largest learning rate. Defaults to 0.01 for `lr` and 0.001 for other families."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate changes after the warm-up. `linear` and `cosine` reach 0 at the end of the last epoch."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Number of first steps in which the learning rate grows linearly from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay (Loshchilov & Hutter, 2019, arXiv:1711.05101) of all weights except embeddings."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest global norm of a step's gradients. `null` does not clip."""


class EarlyStopping(Section):
    """Stops training when the metric on the valid split no longer improves, and keeps the best weights."""

    metric: Literal["auc", "log_loss"] = "log_loss"
    """The metric. With several labels, their mean."""
    patience: PositiveInt | None = None
    """Neural families: number of epochs without improvement. Defaults to a tenth of `epochs`, at least 2 and at most
    10."""
    rounds: PositiveInt = 50
    """Gradient boosting: number of rounds without improvement."""


class Training(Section):
    """How the members are trained."""

    epochs: PositiveInt | None = None
    """Neural families: largest number of passes over train. Defaults to as many as make 40,000 steps, at least 5 and at
    most 200; early stopping usually ends training before."""
    batch_size: PositiveInt | None = None
    """Neural families: rows per step. Defaults to the power of two next to the square root of the rows of train, at
    least 64 and at most 4,096."""
    optimizer: Optimizer = Optimizer()
    early_stopping: EarlyStopping | None = EarlyStopping()
    """When training stops before its last epoch or round. `null` trains all of them."""
    negative_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Neural families, one label: share of the rows with label 0 that each epoch uses, drawn anew for each epoch. The
    exported model's scores are corrected for it, so that their mean is the base rate."""
    positive_weight: Annotated[float, Field(gt=0)] = 1.0
    """Neural families: weight of rows with label 1; rows with label 0 weigh 1. The exported model's scores are
    corrected for it."""
    warm_start: str | None = None
    """Neural families: a published model whose weights training starts from. `previous` is the model that is published
    now under the experiment's name; a URI names any published version, also of a model for another label. Embeddings
    are matched by token."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Neural families: `mixed_bfloat16` computes layers in bfloat16. Weights, embeddings and the exported model are
    float32."""
    backend: Literal["tensorflow", "jax"] = "tensorflow"
    """Neural families: the framework that trains. `tensorflow` uses one GPU; `jax` needs the extra `jax` and splits
    each batch over all GPUs of its machine. The exported model is a TensorFlow SavedModel with either."""
    xla: bool = False
    """Neural families with `backend: tensorflow`: whether XLA compiles the step, except the embedding updates. `jax`
    always compiles."""
    seed: Seed = 0
    """Seed of weights, shuffling and bagging. On one machine the same seed produces the same weights."""
    folds: Annotated[int, Field(ge=2, le=50)] | None = None
    """Number of folds of the `cross_validate` pipeline. Defaults to 5. The `train` pipeline ignores it."""
    threads: PositiveInt | None = None
    """CPU threads of the process that trains. Defaults to the cores that the process may use."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time between two checkpoints, in seconds; longer if writing one takes longer. Training copies its state between
    two steps or boosting rounds, and the copy is written while training continues. A killed training run loses at most
    this time and that of one write."""
    checkpoint_steps: PositiveInt | None = None
    """Largest number of steps between two checkpoints, unless writing one takes longer. Defaults to no limit."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How many attempts follow an attempt of `train` that failed with an error. A user error is not tried again, and a
    lost pod does not count."""

    @field_validator("warm_start")
    @classmethod
    def _previous_or_a_uri(cls, value: str | None) -> str | None:
        if value is not None and value != "previous" and "/" not in value:
            raise ValueError("write previous, or the URI of a published version")
        return value

    @model_validator(mode="after")
    def _xla_is_chosen_for_tensorflow(self) -> Training:
        if self.xla and self.backend != "tensorflow":
            raise ValueError(f"xla is a setting of backend: tensorflow; remove it, {self.backend} always compiles")
        return self

    def check_labels(self, labels: int) -> None:
        """Checks that the settings support this number of labels.

        Raises:
            TidemillError: `unsupported` if `negative_rate` is less than 1 and there are several labels.
        """
        if labels > 1 and self.negative_rate < 1:
            got = f"{self.negative_rate:g} with {labels} labels, whose scores cannot all be corrected for it"
            raise TidemillError(Code.UNSUPPORTED, "training.negative_rate", got, "remove it, or give one label")


class Ensemble(Section):
    """How the `cross_validate` pipeline combines the members. A member's score is the mean of its folds' models."""

    method: Literal["mean", "rank_mean", "stack"] | None = None
    """`mean`: the mean of the members' scores. `rank_mean`: the mean of their percentiles among the out-of-fold scores,
    turned into a probability by a logistic regression. `stack`: a logistic regression on the logits of the out-of-fold
    scores (Wolpert, 1992). Defaults to `stack`, and to `mean` if the split is by time: out-of-fold rows then lie
    between days that the models have seen, so weights learned from them can mislead on later days."""


class Tuning(Section):
    """Hyperparameter search. The file may contain it, but no pipeline of this version uses it."""

    algorithm: Literal["random", "grid", "tpe", "multivariate-tpe", "cmaes", "sobol", "hyperband"] = "tpe"
    """The search algorithm."""
    trials: PositiveInt = 20
    """Number of trials."""
    parallel: PositiveInt = 2
    """Number of trials that run at once."""
    objective: dict[str, str | float] = {"metric": "auc"}
    """The metric to optimize and, optionally, the `goal` that ends the search."""
    space: dict[str, dict[str, list[float | int | str]]] = {}
    """The searched keys, each with a distribution and its bounds or values."""
