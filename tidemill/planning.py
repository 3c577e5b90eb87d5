"""The planning of pipelines: turns an experiment and the present state of its sources into the specs of the steps.

Planning always runs. It looks at the sources and at the published models, so that the engine can cache every later step
by content. The planner of each step is in `tidemill.steps`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from tidemill import fingerprint, storage
from tidemill.artifacts import model_columns, model_store
from tidemill.data import source_record
from tidemill.data.engines import check_engine, engine_of
from tidemill.data.source_record import SourceRecord
from tidemill.errors import Code, TidemillError
from tidemill.experiment import Experiment
from tidemill.experiment.parameter_text import MAX_BYTES, parameter_bytes
from tidemill.experiment.placement import placement, requests, without_gpus
from tidemill.experiment.schema_file import read_schema
from tidemill.experiment.source import Source
from tidemill.models import parse_config
from tidemill.models.core.family import Network
from tidemill.models.own import OwnFamily
from tidemill.reports import plan_summary
from tidemill.runtime import CPU_ONLY
from tidemill.steps import ensemble, evaluate, ingest, pack_models, predict, preprocess, publish, train, validate
from tidemill.steps.core.context import PredictionPlanContext, TrainingPlanContext
from tidemill.steps.core.spec import SpecWriter, StepSpec

_PREVIOUS = "previous"
_SPEC_URI_CHARS = 100


def plan_training(experiment: Experiment, root: str, cross_validate: bool = False) -> dict[str, str]:
    """Plans the `train` and `cross_validate` pipelines.

    Args:
        experiment: The experiment, with all files inlined.
        root: URI of the folder where Tidemill keeps source records, checkpoints and models. Planning writes the source
            record and the specs there.
        cross_validate: Whether the pipeline trains folds and ensembles, which need one label. Defaults to False.

    Returns:
        Texts by output name. `ingest`, `validate`, `preprocess`, `pack_models` and `publish` are URIs of specs.
        `members` is a JSON list with each member's `name`, the URIs of its `train` and `evaluate` specs, and the values
        of `placement`. `folds` is the same for each member and fold, without `evaluate`. `ensembles` is a JSON list
        with each ensemble's `name` and the URIs of its `ensemble` and `evaluate` specs. `members` is empty for a
        cross-validation, and `folds` and `ensembles` are without one. `ingest_cpu`, `ingest_memory` and the same of
        `validate`, `preprocess` and `publish` are Kubernetes quantities. `summary` is Markdown.

    Raises:
        TidemillError: `unsupported`, `empty-split`, `missing-file`, `over-budget` and other errors of reading the
            sources.
    """
    _check_training(experiment, cross_validate)
    source = _record_source(experiment.source, root)
    context = TrainingPlanContext(
        experiment=experiment,
        source_fingerprint=source.fingerprint,
        schema_text=read_schema(experiment.validation),
        # The run's fingerprint names the models that it starts from, whichever they are.
        baseline=_PREVIOUS,
        warm_start=_PREVIOUS,
    )
    run_fingerprint = fingerprint.of_json([experiment.training.folds, *map(_json, _member_specs(context))])
    baseline = model_store.newest(root, experiment.name, exclude_run=run_fingerprint)
    uses_baseline = experiment.training.warm_start == _PREVIOUS
    context = replace(context, baseline=baseline, warm_start=_network(baseline) if uses_baseline else None)

    source_bytes = sum(file.bytes for file in source.files)
    # Set by `tidemill compile --cpu-only`, whose pipelines ask for no GPU whatever the experiment says.
    compute = without_gpus(experiment.compute) if os.environ.get(CPU_ONLY) else experiment.compute
    resources = placement(compute, source_bytes)
    evaluation = _prefixed("evaluate", experiment, source_bytes)
    specs = SpecWriter(root)
    members, folds, ensembles = [], [], []
    if cross_validate:
        for spec in train.plan_folds(context):
            assert spec.fold is not None
            folds.append({"name": f"{spec.model.name}-{spec.fold.index}", "train": specs.uri(spec)} | resources)
        for spec in ensemble.plan(context):
            uris = {"ensemble": specs.uri(spec), "evaluate": specs.uri(evaluate.plan(context, spec.members))}
            ensembles.append(
                {"name": spec.name} | uris | requests(experiment.compute, "ensemble", source_bytes) | evaluation
            )
    else:
        for spec in train.plan(context):
            uris = {"train": specs.uri(spec), "evaluate": specs.uri(evaluate.plan(context, [spec.model.name]))}
            members.append({"name": spec.model.name} | uris | resources | evaluation)
    used = [*_member_specs(context), *(ensemble.plan(context) if cross_validate else [])]
    outputs = {
        "ingest": specs.uri(ingest.plan(context)),
        "validate": specs.uri(validate.plan(context)),
        "preprocess": specs.uri(preprocess.plan(context)),
        "members": _list("models", members),
        "folds": _list("training.folds", folds),
        "ensembles": _list("models", ensembles),
        "pack_models": specs.uri(pack_models.plan()),
        "publish": specs.uri(publish.plan(context, run_fingerprint, used)),
    }
    for step in ("ingest", "validate", "preprocess", "publish"):
        outputs |= _prefixed(step, experiment, source_bytes)
    specs.write()
    steps = {name: outputs[name] for name in ("ingest", "validate", "preprocess")}
    for item in [*members, *folds, *ensembles]:
        steps |= {f"{name}, {item['name']}": item[name] for name in ("train", "ensemble", "evaluate") if name in item}
    steps["publish"] = outputs["publish"]
    title = f"{experiment.name}: {'cross-validation' if cross_validate else 'training'}"
    files = [(file.table, file.bytes) for file in source.files]
    return outputs | {"summary": plan_summary.render(title, files, steps)}


def plan_ingest(experiment: Experiment) -> tuple[ingest.IngestSpec, SourceRecord]:
    """Returns the spec of `ingest` for training and the source record, without writing anything.

    Raises:
        TidemillError: As for `plan_training`.
    """
    record = engine_of(experiment.source.engine).record(experiment.source)
    context = TrainingPlanContext(
        experiment=experiment,
        source_fingerprint=record.fingerprint,
        schema_text=read_schema(experiment.validation),
        baseline=None,
        warm_start=None,
    )
    return ingest.plan(context), record


def plan_prediction_ingest(
    experiment: Experiment, source: Source, columns: model_columns.ModelColumns
) -> tuple[ingest.IngestSpec, SourceRecord]:
    """Returns the spec of `ingest` for batch prediction and the source record, without writing anything.

    Args:
        experiment: The experiment.
        source: The rows to score.
        columns: The columns of the model, which need not be published.

    Raises:
        TidemillError: As for `plan_training`.
    """
    record = engine_of(source.engine).record(source)
    context = PredictionPlanContext(
        experiment=experiment, source=source, model="", columns=columns, source_fingerprint=record.fingerprint
    )
    return ingest.plan_prediction(context), record


def plan_prediction(experiment: Experiment, root: str, version: str = "latest", output: str = "") -> dict[str, str]:
    """Plans the `batch_predict` pipeline.

    Args:
        experiment: The experiment, with all files inlined.
        root: URI of the folder where Tidemill keeps source records and models.
        version: Version of the published model. Defaults to the newest.
        output: URI of the folder for the predictions. Defaults to a folder below `root/predictions/<name>/` that is
            named after the rows, the model and the settings.

    Returns:
        URIs of specs by output name, `ingest` and `predict`; the quantities `ingest_cpu`, `ingest_memory`,
        `predict_cpu` and `predict_memory`; and a `summary` in Markdown.

    Raises:
        TidemillError: `no-model` if no such version is published, and as `plan_training`.
    """
    check_supported(experiment)
    source = experiment.predict.source or experiment.source
    record = _record_source(source, root)
    model = model_store.resolve(root, experiment.name, version)
    context = PredictionPlanContext(
        experiment=experiment,
        source=source,
        model=model,
        columns=model_columns.read(model),
        source_fingerprint=record.fingerprint,
    )
    rows = ingest.plan_prediction(context)
    if not output:
        name = fingerprint.of_json([_json(rows), _json(predict.plan(context, ""))])
        output = storage.join(root, "predictions", experiment.name, name)
    specs = SpecWriter(root)
    outputs = {"ingest": specs.uri(rows), "predict": specs.uri(predict.plan(context, output))}
    specs.write()
    title = f"{experiment.name}: predictions of {context.model}"
    files = [(file.table, file.bytes) for file in record.files]
    source_bytes = sum(file.bytes for file in record.files)
    resources = _prefixed("ingest", experiment, source_bytes) | _prefixed("predict", experiment, source_bytes)
    return outputs | resources | {"summary": plan_summary.render(title, files, outputs)}


def check_supported(experiment: Experiment) -> None:
    """Rejects settings that this version does not support.

    Raises:
        TidemillError: `unsupported`.
    """
    labels = len(experiment.label_columns())
    for model in experiment.models:
        model.check_labels(labels)
    experiment.training.check_labels(labels)
    for where, source in (("source", experiment.source), ("predict.source", experiment.predict.source)):
        if source is not None:
            check_engine(source.engine, where)


def _prefixed(step: str, experiment: Experiment, source_bytes: int) -> dict[str, str]:
    """Returns what a step requests, with the step's name before each key."""
    asked = requests(experiment.compute, step, source_bytes)
    return {f"{step}_{resource}": quantity for resource, quantity in asked.items()}


def _member_specs(context: TrainingPlanContext) -> Sequence[StepSpec]:
    """Returns the specs that decide the members' models and evaluations."""
    members = [model.name for model in context.experiment.models]
    before = [ingest.plan(context), validate.plan(context), preprocess.plan(context)]
    return [*before, *train.plan(context), *(evaluate.plan(context, [member]) for member in members)]


def check_sizes(experiment: Experiment) -> None:
    """Rejects more folds and models than `plan_training` can list in one parameter, below a root of usual length.

    Raises:
        TidemillError: `unsupported`.
    """
    folds = experiment.training.folds or 0
    members = [f"{model.name}-{fold}" for model in experiment.models for fold in range(folds)]
    resources = placement(experiment.compute, source_bytes=0)
    _list("training.folds", [{"name": name, "train": "x" * _SPEC_URI_CHARS} | resources for name in members])


def _check_training(experiment: Experiment, cross_validate: bool) -> None:
    """Rejects settings with which a later step would fail."""
    check_supported(experiment)
    labels, split = experiment.label_columns(), experiment.split
    if cross_validate and len(labels) > 1:
        got, want = f"{len(labels)} labels", "use the train pipeline, or give one label; ensembles predict one label"
        raise TidemillError(Code.UNSUPPORTED, "labels", got, want)
    if split.by == "column":
        return
    if split.fractions.test == 0:
        want = "give test a share of the rows, on which the gates decide"
        raise TidemillError(Code.EMPTY_SPLIT, "split.fractions.test", "0", want)
    if split.fractions.valid == 0 and experiment.training.early_stopping is not None:
        want = "give valid a share of the rows, or set training.early_stopping: null"
        raise TidemillError(Code.EMPTY_SPLIT, "split.fractions.valid", "0", want)


def _list(where: str, items: Sequence[Mapping[str, Any]]) -> str:
    """Returns a list for `fan_out`, which travels to it as one parameter."""
    text = json.dumps(items, separators=(",", ":"))
    if (size := parameter_bytes(text)) > MAX_BYTES:
        got = f"{len(items)} trainings, whose list has {size:,} bytes, more than {MAX_BYTES:,}"
        raise TidemillError(Code.UNSUPPORTED, where, got, "use fewer folds or fewer models, or a shorter root")
    return text


def _record_source(source: Source, root: str) -> SourceRecord:
    """Writes and returns the source record."""
    record = engine_of(source.engine).record(source)
    source_record.save_record(root, record)
    return record


def _network(baseline: str | None) -> str | None:
    """Returns the baseline if it is a single network, whose weights training can start from."""
    if baseline is None:
        return None
    config = model_store.model_document(baseline).config
    try:
        return baseline if isinstance(parse_config(config), Network | OwnFamily) else None
    except ValidationError as error:
        got = f"{baseline!r}, which this version cannot read: {error.errors()[0]['msg']}"
        want = "remove warm_start, or name a model of this version"
        raise TidemillError(Code.UNSUPPORTED, "training.warm_start", got, want) from error


def _json(spec: StepSpec) -> str:
    return spec.model_dump_json(by_alias=True)
