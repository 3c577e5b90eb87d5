"""`models` and `training`: what is trained, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidemill.experiment.base import Bytes, Name, PositiveInt, Section, Seed


class DcnV2(Section):
    """Deep & Cross Network V2 (Wang et al., 2020, arXiv:2008.13535): cross layers beside a deep network."""

    family: Literal["dcn_v2"]
    name: Name = "dcn_v2"
    """The member's name in reports; must be unique within the experiment."""
    cross_layers: Annotated[int, Field(ge=0, le=10)] = 3
    """Number of cross layers."""
    deep: list[PositiveInt] = [256, 128]
    """Widths of the deep network's layers."""
    embedding_dim: Annotated[int, Field(gt=0, le=512)] = 16
    """Size of each categorical feature's embedding; never larger than the feature's number of ids."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout after each deep layer."""
    l2_embedding: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty on the embeddings of a batch."""


class Gbdt(Section):
    """Gradient-boosted trees by LightGBM (Ke et al., NeurIPS 2017)."""

    family: Literal["gbdt"]
    name: Name = "gbdt"
    """The member's name in reports; must be unique within the experiment."""
    num_leaves: Annotated[int, Field(ge=2, le=131_072)] = 63
    """Leaves of a tree."""
    rounds: PositiveInt = 500
    """Most boosting rounds; early stopping ends them before."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Shrinkage."""
    min_data_in_leaf: PositiveInt = 100
    """Least rows of a leaf."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the features that a tree sees."""
    bagging_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the rows that a tree sees."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty on leaf values."""
    categorical: Literal["native", "ordinal"] = "native"
    """`native`: categorical splits on the transform's ids. `ordinal`: ids as numbers (vocabularies order them by
    frequency)."""
    max_native_ids: PositiveInt = 5000
    """Features with more ids are taken as `ordinal` even where `native` is asked for."""


Model = Annotated[DcnV2 | Gbdt, Field(discriminator="family")]


class Optimizer(Section):
    """The optimizer of the neural families."""

    name: Literal["adam", "adagrad", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3


class EarlyStopping(Section):
    """Ends training when the metric on the valid split no longer improves; the best weights are kept."""

    metric: Literal["auc", "log_loss"] = "log_loss"
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
    seed: Seed = 0
    """Seed of weights, shuffling and bagging. The same seed on the same machine gives the same weights."""
    folds: Annotated[int, Field(ge=2, le=50)] | None = None
    """Folds of the `cross_validate` pipeline, which is not in this version; the `train` pipeline does not use it."""
    threads: PositiveInt | None = None
    """CPU threads of a training process. Defaults to the machine's cores."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Least time between two checkpoints, which are written at the end of an epoch or boosting round."""


class Tuning(Section):
    """Hyperparameter search of the `tune` pipeline, which is not in this version; the `train` pipeline does not use
    it."""

    algorithm: Literal["random", "grid", "tpe", "multivariate-tpe", "cmaes", "sobol", "hyperband"] = "tpe"
    trials: PositiveInt = 20
    parallel: PositiveInt = 2
    objective: dict[str, str | float] = {"metric": "auc"}
    space: dict[str, dict[str, list[float | int | str]]] = {}


class Resources(Section):
    """What one step asks of a cluster. On one machine it is not used."""

    cpu: Annotated[str, Field(pattern=r"^\d+(\.\d+)?m?$")] = "4"
    """CPU cores, as Kubernetes writes them."""
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(E|P|T|G|M|K|Ei|Pi|Ti|Gi|Mi|Ki)?$")] = "16Gi"
    """Memory, as Kubernetes writes it."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """Number of GPUs."""
    gpu_type: str | None = None
    """GKE's name of the GPU, such as `nvidia-l4`. Defaults to any."""
    spot: bool = False
    """Whether to run on GKE's spot nodes."""


class TransformEngine(Section):
    """Who computes the transform: Tidemill's own engine on one machine, or TensorFlow Transform on Apache Beam."""

    engine: Literal["auto", "local", "beam"] = "auto"
    """`local` computes on one machine with all its cores; `beam` on a runner. `auto` takes `beam` where a runner is
    named or train is larger than `local_limit`, and else `local`. Both write the same transform graph."""
    local_limit: Bytes = 64 << 30
    """Largest train split that `auto` gives to `local`, as stored in Parquet, such as `64GiB`."""
    runner: Literal["direct", "dataflow", "flink", "spark"] | None = None
    """The Apache Beam runner. `direct`, which `beam` takes where none is named, runs in the step's own process."""
    options: list[str] = []
    """Pipeline options of the runner, as on Beam's command line: `--project=…`, `--region=…`."""
    spans: bool = False
    """Whether `local` keeps what it finds in each file of train below `ROOT/spans`, and takes it from there next time:
    then a daily run reads for the analysis the new day alone. See `split.span`."""

    @model_validator(mode="after")
    def _engine_and_runner(self) -> TransformEngine:
        if self.engine == "local" and self.runner is not None:
            raise ValueError(f"engine: local has no runner; remove runner: {self.runner} or choose engine: beam")
        if self.options and self.runner is None:
            raise ValueError("options are a runner's; name the runner, or remove them")
        if self.spans and (self.engine == "beam" or self.runner is not None):
            raise ValueError("spans are kept by the local engine alone; remove spans, or choose engine: local")
        return self


class PreprocessResources(Resources, TransformEngine):
    """Where the transform is computed."""


class Compute(Section):
    """Where the steps run."""

    train: Resources = Resources()
    preprocess: PreprocessResources = PreprocessResources()


def unique_names(models: list[DcnV2 | Gbdt]) -> list[DcnV2 | Gbdt]:
    """Checks that no two members share a name."""
    names = [model.name for model in models]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two members are called {double[0]!r}; give each a name of its own")
    return models
