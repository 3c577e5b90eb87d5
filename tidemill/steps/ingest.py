"""The `ingest` step: reads tables, runs the query and writes examples."""

from __future__ import annotations

from typing import Literal

from tidemill.artifacts.model_columns import ModelColumns
from tidemill.experiment.source import Source, Split
from tidemill.section import Column
from tidemill.steps.core.context import PredictionPlanContext, TrainingPlanContext, without_uris
from tidemill.steps.core.spec import StepCode, StepSpec

_RANKING_METRICS = {"auc", "pr_auc"}
"""Metrics that compare rows of both classes."""

CODE = StepCode("ingest", libraries=("duckdb", "numpy", "pyarrow", "tensorflow-metadata"))


class IngestSpec(StepSpec):
    """The settings of one `ingest` step."""

    step: Literal["ingest"] = "ingest"
    stage: Literal["train", "predict"]
    """`predict` needs no labels and writes all rows to one split named `predict`."""
    source: Source
    """The source with empty URIs. The step takes the files from the source record, so the key stays the same when the
    same bytes move to another URI."""
    source_fingerprint: str
    labels: list[Column]
    """Empty for `predict`."""
    key: list[Column]
    columns: list[Column] | None
    """Columns that the query must return. None: a transform module decides."""
    split: Split
    schema_text: str | None
    """The given schema as a text protocol buffer."""
    both_classes: list[str] = ["train"]  # noqa: RUF012 - pydantic copies defaults
    """The splits in which each label needs both classes."""
    model: ModelColumns | None = None
    """For `predict`: the columns of the published model, whose types the rows get."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the step writes, in their order."""
        from tidemill.artifacts.examples import SPLITS  # Planning does without Arrow.

        return SPLITS if self.stage == "train" else ("predict",)


def plan(context: TrainingPlanContext) -> IngestSpec:
    """Plans the step of the training pipelines."""
    experiment = context.experiment
    return IngestSpec(
        code=CODE.fingerprint(),
        libraries=CODE.versions(),
        stage="train",
        source=without_uris(experiment.source),
        source_fingerprint=context.source_fingerprint,
        labels=context.labels,
        key=experiment.key,
        columns=_needed_columns(context),
        split=experiment.split,
        schema_text=context.schema_text,
        both_classes=_splits_of_both_classes(context),
    )


def plan_prediction(context: PredictionPlanContext) -> IngestSpec:
    """Plans the step of batch prediction."""
    experiment = context.experiment
    return IngestSpec(
        code=CODE.fingerprint(),
        libraries=CODE.versions(),
        stage="predict",
        source=without_uris(_with_null_words(context.source, context.columns)),
        source_fingerprint=context.source_fingerprint,
        labels=[],
        key=experiment.key,
        columns=experiment.predict.columns,
        split=experiment.split,
        schema_text=None,
        model=context.columns,
    )


def _splits_of_both_classes(context: TrainingPlanContext) -> list[str]:
    """Returns the splits without whose both classes training or a gate would fail later."""
    experiment = context.experiment
    stops_early = experiment.training.early_stopping is not None
    gated = bool(_RANKING_METRICS & set(experiment.evaluation.gates))
    return ["train", *["valid"] * stops_early, *["test"] * gated]


def _needed_columns(context: TrainingPlanContext) -> list[str] | None:
    """Returns the columns that later steps read, so that a wrong name fails here and not later."""
    experiment = context.experiment
    if experiment.features is None:
        return None
    slices = [column for columns in experiment.evaluation.slices for column in columns]
    return list(dict.fromkeys(experiment.feature_columns() + slices))


def _with_null_words(source: Source, columns: ModelColumns) -> Source:
    """Returns the source in which tables without `null` have the null words of training."""
    tables = {}
    for name, table in source.tables.items():
        known = columns.table(name, len(source.tables), source.sql)
        if known is not None and known.null is not None and not table.names_null_words:
            table = table.model_copy(update={"null": known.null})
        tables[name] = table
    return source.model_copy(update={"tables": tables})
