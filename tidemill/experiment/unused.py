"""Settings of an experiment that change nothing, because nothing uses them together with the others."""

from __future__ import annotations

from tidemill.experiment.experiment import Experiment
from tidemill.experiment.source import Source
from tidemill.experiment.training import OF_NETWORKS
from tidemill.models.core.family import Network
from tidemill.models.own import OwnFamily

_OF_CSV = ("header", "delimiter", "null", "csv")


def unused_settings(experiment: Experiment) -> dict[str, str]:
    """Returns the settings that the experiment gives and nothing uses, each with the reason.

    Settings that only some pipelines use, such as `ensemble` and `predict`, are left out.
    """
    unused: dict[str, str] = {}
    if experiment.tuning is not None:
        unused["tuning"] = "no pipeline of this version searches"
    unused |= _of_split(experiment)
    if not any(isinstance(model, Network | OwnFamily) for model in experiment.models):
        given = [name for name in OF_NETWORKS if name in experiment.training.model_fields_set]
        unused |= {f"training.{name}": "no member is a neural family" for name in given}
        if experiment.compute.train.gpu:
            unused["compute.train.gpu"] = "no member is a neural family; gradient boosting uses CPUs"
    bootstrap = experiment.evaluation.bootstrap
    if bootstrap.resamples == 0:
        given = sorted(bootstrap.model_fields_set - {"resamples"})
        unused |= {f"evaluation.bootstrap.{name}": "resamples is 0" for name in given}
    unused |= _of_source(experiment.source, "source")
    if experiment.predict.source is not None:
        unused |= _of_source(experiment.predict.source, "predict.source")
    return unused


def _of_split(experiment: Experiment) -> dict[str, str]:
    split = experiment.split
    unused = {}
    if split.by == "column" and "fractions" in split.model_fields_set:
        unused["split.fractions"] = "split.by: column reads each row's split"
    if split.by in ("column", "time") and "seed" in split.model_fields_set:
        unused["split.seed"] = f"split.by: {split.by} draws nothing"
    if split.by == "random" and split.column is not None:
        unused["split.column"] = "split.by: random splits by the key; write by: hash to split by a column"
    return unused


def _of_source(source: Source, where: str) -> dict[str, str]:
    unused = {}
    for name, table in source.tables.items():
        if table.format in ("jsonl", "parquet"):
            given = [option for option in _OF_CSV if option in table.model_fields_set]
            unused |= {f"{where}.tables.{name}.{each}": f"the format is {table.format}" for each in given}
    return unused
