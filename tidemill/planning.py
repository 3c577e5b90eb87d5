"""Planning: an experiment and the present state of its sources become the specs of the steps.

This is the one step that always runs. It looks at the sources and at the published models, so that everything after
it can be cached by content.
"""

from __future__ import annotations

import json

from pydantic import ValidationError

from tidemill import fingerprint, storage
from tidemill.data import source_record
from tidemill.errors import Code, TidemillError
from tidemill.experiment import Experiment, dump
from tidemill.experiment.compute import TransformEngine
from tidemill.experiment.source import Source
from tidemill.experiment.training import Ensemble
from tidemill.models import parse_config
from tidemill.models.core.family import Network
from tidemill.models.own import OwnFamily
from tidemill.placement import placement
from tidemill.publishing import store
from tidemill.steps.ensemble import EnsembleSpec
from tidemill.steps.evaluate import EvaluateSpec
from tidemill.steps.ingest import IngestSpec, SourceRecord
from tidemill.steps.predict import PredictSpec
from tidemill.steps.preprocess import PreprocessSpec
from tidemill.steps.publish import PublishSpec
from tidemill.steps.train import Fold, TrainSpec
from tidemill.steps.validate import ValidateSpec

DEFAULT_FOLDS = 5


def plan_training(experiment: Experiment, root: str, cross_validate: bool = False) -> dict[str, str]:
    """The specs of the `train` and `cross_validate` pipelines.

    Args:
        experiment: The experiment, with all files inlined.
        root: URI of the folder where Tidemill keeps sources, checkpoints and models. The source record is written
            there.
        cross_validate: Whether folds and ensembles will be trained, which several labels have none of.

    Returns:
        Texts by output name: `ingest`, `validate`, `preprocess`, `publish` are specs in JSON; `members` is a JSON
        list of objects with the member's `name`, its `train` and `evaluate` specs as texts, and the values of
        `placement`; `folds` is the same for each member and fold, without `evaluate`; `ensembles` is a JSON list of
        objects with the `name` and the `ensemble` and `evaluate` specs of each ensemble, empty as `folds` is with
        several labels; `preprocess_cpu` and `preprocess_memory` are quantities as Kubernetes writes them.

    Raises:
        TidemillError: `unsupported`, `empty-split`, `missing-file`, `over-budget` and what else reading the sources
            finds.
    """
    check_supported(experiment)
    labels = experiment.label_columns()
    if cross_validate and len(labels) > 1:
        got, want = f"{len(labels)} labels", "use the train pipeline, or give one label; ensembles are of one label"
        raise TidemillError(Code.UNSUPPORTED, "labels", got, want)
    _check_fractions(experiment)
    code = fingerprint.code_version()
    record = _record(experiment.source, root)
    schema_text = _schema_text(experiment)
    split_column = experiment.split.column
    ingest = IngestSpec(
        code=code,
        stage="train",
        source=_without_uris(experiment.source),
        source_fingerprint=record.fingerprint,
        labels=labels,
        key=experiment.key,
        columns=_needed_columns(experiment),
        split=experiment.split,
        schema_text=schema_text,
    )
    validate = ValidateSpec(
        code=code,
        labels=labels,
        key=experiment.key,
        features=experiment.features,
        feature_columns=experiment.feature_columns() or None,
        split_column=split_column,
        schema_text=schema_text,
        drift=experiment.validation.drift,
        leakage=experiment.validation.leakage,
        previous=None,
    )
    preprocess = PreprocessSpec(
        code=code,
        labels=labels,
        key=experiment.key,
        features=experiment.features,
        transform_module=experiment.transform_module,
        split_column=split_column,
        **{name: getattr(experiment.compute.preprocess, name) for name in TransformEngine.model_fields},
    )
    trains = [
        TrainSpec(
            code=code,
            experiment=experiment.name,
            model=model,
            training=experiment.training,
            labels=labels,
            split=experiment.split,
        )
        for model in experiment.models
    ]
    evaluate = EvaluateSpec(
        code=code,
        experiment=experiment.name,
        labels=labels,
        key=experiment.key,
        evaluation=experiment.evaluation,
        baseline=None,
    )
    parts = [ingest, validate, preprocess, *trains, evaluate]
    run_fingerprint = fingerprint.of_json([_json(part) for part in parts])
    baseline = store.newest(root, experiment.name, exclude_run=run_fingerprint)
    evaluate = evaluate.model_copy(update={"baseline": baseline})
    if experiment.training.warm_start == "previous":
        training = experiment.training.model_copy(update={"warm_start": _network(baseline)})
        trains = [spec.model_copy(update={"training": training}) for spec in trains]
    if "previous" in experiment.validation.drift.between:
        validate = validate.model_copy(update={"previous": baseline})
    publish = PublishSpec(
        code=code,
        experiment=experiment.name,
        run_fingerprint=run_fingerprint,
        objective=experiment.evaluation.objective,
        lineage={
            "experiment": json.loads(dump(_relocatable(experiment))),
            "source_fingerprint": record.fingerprint,
            "code": code,
            "baseline": baseline,
        },
    )
    where = placement(experiment.compute.train)
    folds = [
        {"name": f"{t.model.name}-{fold.index}", "train": _json(t.model_copy(update={"fold": fold})), **where}
        for t in trains
        for fold in _folds(experiment)
    ]
    ensembles = [
        {"name": spec.name, "ensemble": _json(spec), "evaluate": _json(evaluate)}
        for spec in _ensembles(experiment, code)
    ]
    members = [{"name": t.model.name, "train": _json(t), "evaluate": _json(evaluate), **where} for t in trains]
    return {
        "ingest": _json(ingest),
        "validate": _json(validate),
        "preprocess": _json(preprocess),
        "members": json.dumps(members),
        "folds": json.dumps(folds),
        "ensembles": json.dumps(ensembles),
        "publish": _json(publish),
        "preprocess_cpu": experiment.compute.preprocess.cpu,
        "preprocess_memory": experiment.compute.preprocess.memory,
    }


def _network(baseline: str | None) -> str | None:
    """The published model where it is one network, which a training can begin with."""
    if baseline is None:
        return None
    config = json.loads(storage.read_text(storage.join(baseline, "tidemill/model.json")))["config"]
    try:
        return baseline if isinstance(parse_config(config), Network | OwnFamily) else None
    except ValidationError as error:
        got = f"{baseline!r}, which this version cannot read: {error.errors()[0]['msg']}"
        want = "begin without it, or name a model of this version"
        raise TidemillError(Code.UNSUPPORTED, "training.warm_start", got, want) from error


def _folds(experiment: Experiment) -> list[Fold]:
    """The folds of the cross-validation. Rows that the split keeps together are in one fold."""
    if len(experiment.label_columns()) > 1:
        return []
    split, number = experiment.split, experiment.training.folds or DEFAULT_FOLDS
    column = split.column if split.by == "hash" else None
    return [Fold(index=i, of=number, column=column, seed=experiment.training.seed) for i in range(number)]


def _ensembles(experiment: Experiment, code: str) -> list[EnsembleSpec]:
    """An ensemble of each member's models, and one of all members where there are several."""
    label, *others = experiment.label_columns()
    if others:
        return []
    names = [model.name for model in experiment.models]
    told = {"code": code, "folds": experiment.training.folds or DEFAULT_FOLDS, "label": label}
    of_one = [EnsembleSpec(name=n, members=[n], ensemble=Ensemble(method="mean"), **told) for n in names]
    if len(names) == 1:
        return of_one
    name = "ensemble" if "ensemble" not in names else "all"
    method = experiment.ensemble.method or ("mean" if experiment.split.by == "time" else "stack")
    return [*of_one, EnsembleSpec(name=name, members=names, ensemble=Ensemble(method=method), **told)]


def plan_prediction(experiment: Experiment, root: str, version: str = "latest", output: str = "") -> dict[str, str]:
    """The specs of the `batch_predict` pipeline.

    Args:
        experiment: The experiment, with all files inlined.
        root: As for `plan_training`.
        version: Version of the published model; defaults to the newest.
        output: URI of the folder for the predictions. Defaults to one below `root/predictions/<name>/`, named after the
            rows, the model and the settings.

    Returns:
        JSON texts by output name: `ingest`, `predict`.

    Raises:
        TidemillError: `no-model` where nothing is published, and as `plan_training`.
    """
    check_supported(experiment)
    code = fingerprint.code_version()
    model = store.resolve(root, experiment.name, version)
    source = experiment.predict.source or experiment.source
    record = _record(source, root)
    ingest = IngestSpec(
        code=code,
        stage="predict",
        source=_without_uris(source),
        source_fingerprint=record.fingerprint,
        labels=[],
        key=experiment.key,
        columns=experiment.predict.columns,
        split=experiment.split,
        schema_text=None,
    )
    predict = PredictSpec(
        code=code,
        experiment=experiment.name,
        model=model,
        key=experiment.key,
        columns=experiment.predict.columns,
        shards=experiment.predict.shards,
        batch_size=experiment.predict.batch_size,
        output=output,
    )
    if not output:
        name = fingerprint.of_json([_json(ingest), _json(predict)])
        output = storage.join(root, "predictions", experiment.name, name)
        predict = predict.model_copy(update={"output": output})
    return {"ingest": _json(ingest), "predict": _json(predict)}


def check_supported(experiment: Experiment) -> None:
    """Refuses what the experiment file can say but this version cannot do.

    Raises:
        TidemillError: `unsupported`.
    """
    labels = len(experiment.label_columns())
    for model in experiment.models:
        model.check_labels(labels)
    experiment.training.check_labels(labels)
    for where, source in (("source", experiment.source), ("predict.source", experiment.predict.source)):
        if source is not None and source.engine != "duckdb":
            got, want = repr(source.engine), "use duckdb; BigQuery is not in this version"
            raise TidemillError(Code.UNSUPPORTED, f"{where}.engine", got, want)


def _check_fractions(experiment: Experiment) -> None:
    """Refuses at once a split without rows that a later step cannot do without."""
    split = experiment.split
    if split.by == "column":
        return
    if split.fractions.test == 0:
        want = "give test a share of the rows, which decide about a model"
        raise TidemillError(Code.EMPTY_SPLIT, "split.fractions.test", "0", want)
    if split.fractions.valid == 0 and experiment.training.early_stopping is not None:
        want = "give valid a share of the rows or set training.early_stopping: null"
        raise TidemillError(Code.EMPTY_SPLIT, "split.fractions.valid", "0", want)


def _record(source: Source, root: str) -> SourceRecord:
    record = source_record.record(source)
    source_record.save_record(root, record)
    return record


def _schema_text(experiment: Experiment) -> str | None:
    uri = experiment.validation.schema_
    if uri is None:
        return None
    if not storage.exists(uri):
        raise TidemillError(
            Code.MISSING_FILE, "validation.schema", f"{uri!r}, which does not exist", "name a schema.pbtxt"
        )
    try:
        return storage.read_text(uri)
    except UnicodeDecodeError as error:
        got, want = f"{uri!r}, which is not UTF-8 text (byte {error.start})", "name a schema.pbtxt, not a binary schema"
        raise TidemillError(Code.UNREADABLE_FILE, "validation.schema", got, want) from error


def _needed_columns(experiment: Experiment) -> list[str] | None:
    """The columns that later steps will ask for, so that a wrong name is found while reading."""
    if experiment.features is None:
        return None
    sliced = [column for columns in experiment.evaluation.slices for column in columns]
    return list(dict.fromkeys(experiment.feature_columns() + sliced))


def _without_uris(source: Source) -> Source:
    """The source as far as it decides what is read; the files' content is in the record's fingerprint."""
    tables = {name: table.model_copy(update={"uri": ""}) for name, table in source.tables.items()}
    return source.model_copy(update={"tables": tables, "max_bytes": None})


def _relocatable(experiment: Experiment) -> Experiment:
    changes: dict = {"source": _without_uris(experiment.source)}
    if experiment.predict.source is not None:
        predict_source = _without_uris(experiment.predict.source)
        changes["predict"] = experiment.predict.model_copy(update={"source": predict_source})
    return experiment.model_copy(update=changes)


def _json(spec: object) -> str:
    return spec.model_dump_json(by_alias=True)  # type: ignore[attr-defined]
