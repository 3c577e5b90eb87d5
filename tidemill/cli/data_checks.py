"""The checks of `tidemill validate --data`: they read the tables and bind the queries, and run no query."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tidemill.artifacts.model_columns import InputColumn, ModelColumns
from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.experiment import Experiment
from tidemill.experiment.features import raw_column_names
from tidemill.local.run_checks import check_packages
from tidemill.planning import plan_ingest, plan_prediction_ingest
from tidemill.runtime import Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.data.ingest import ResultColumns


def check_data(experiment: Experiment) -> list[str]:
    """Reads the tables as `ingest` does, checks the queries' columns without running them, and returns lines of text.

    Raises:
        TidemillError: What `ingest` and `preprocess` raise about columns and types, and `missing-package`.
    """
    check_packages()
    from tidemill.data.ingest import inspect
    from tidemill.transform import text_numbers
    from tidemill.transform.features_function import feature_columns

    spec, record = plan_ingest(experiment)
    numbers = [name for name, feature in (experiment.features or {}).items() if feature.kind == "numeric"]
    with contextlib.redirect_stdout(io.StringIO()):  # progress
        found = inspect(spec, record, Progress("validate"), numbers)
    if experiment.features is not None:
        for name in text_numbers.numeric_over_text(experiment.features, found.schema):
            raise text_numbers.error(name, found.texts.get(name, ()))
        feature_columns(experiment.features, found.schema)
    roles = {name: _roles(experiment, name) for name in found.types}
    lines = _lines("columns", found, roles)
    if experiment.validation.schema_ is not None:
        lines.append("not checked: validation.schema, except the types of its columns; the step validate checks it")
    return [*lines, *_check_prediction(experiment, found)]


def _check_prediction(experiment: Experiment, trained: ResultColumns) -> list[str]:
    """Checks `predict.source` against the columns that a model of this experiment takes, and returns lines about it."""
    source = experiment.predict.source
    if source is None:
        return []
    from tidemill.data.ingest import inspect
    from tidemill.data.model_types import unreadable

    names = [] if experiment.features is None else experiment.feature_columns()
    inputs = [_input(trained.schema.field(name)) for name in dict.fromkeys(names)]
    columns = ModelColumns(inputs=inputs, source=trained.source)
    spec, record = plan_prediction_ingest(experiment, source, columns.model_copy(update={"inputs": []}))
    with contextlib.redirect_stdout(io.StringIO()), _named("predict.source"):
        found = inspect(spec, record, Progress("validate"))
    for name in names:
        if name not in found.types:
            got = f"no {name!r}, which the features take"
            raise TidemillError(Code.MISSING_COLUMN, "predict.source", got, suggest_name(name, list(found.types)))
    roles = {name: ["feature"] * (name in names) + ["key"] * (name in experiment.key) for name in found.types}
    lines = _lines("columns of predict.source", found, roles)
    for each in unreadable(found.types, inputs):
        kinds = f"{found.types[each.name]} here and {trained.types[each.name]} in training"
        lines.append(f"{each.name} is {kinds}: batch_predict fails unless the column is empty; cast it in the query")
    if experiment.features is None:
        lines.append("not checked: whether predict.source has all columns that the transform module reads")
    return lines


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Lets errors about `source` name another source."""
    try:
        yield
    except TidemillError as error:
        if error.where.partition(".")[0] != "source":
            raise
        place = error.where.replace("source", where, 1)
        raise TidemillError(error.code, place, error.got, error.want, error.details) from error


def _input(field: pa.Field) -> InputColumn:
    """Returns the column as an input of a model, whose transform graph takes three types."""
    import pyarrow as pa

    is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
    kind = field.type.value_type if is_list else field.type
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    dtype = "int64" if whole else "float32" if pa.types.is_floating(kind) or pa.types.is_decimal(kind) else "string"
    return InputColumn(name=field.name, dtype=dtype, is_list=is_list)


def _lines(title: str, found: ResultColumns, roles: dict[str, list[str]]) -> list[str]:
    """Returns a line for each column, for the malformed rows of each table, and for each check that was left out."""
    lines = [f"{count:,} malformed rows of {table} are left out" for table, count in found.malformed.items()]
    width = max(map(len, found.types))
    lines.append(f"{title}:")
    for name, kind in found.types.items():
        lines.append(f"  {name:<{width}}  {kind:<10}  {', '.join(roles[name])}".rstrip())
    return lines + [f"not checked without running the query: {what}" for what in found.unchecked]


def _roles(experiment: Experiment, column: str) -> list[str]:
    """Returns what a column is used for."""
    roles = ["label"] * (column in experiment.label_columns()) + ["key"] * (column in experiment.key)
    roles += ["split"] * (column in (experiment.split.column, experiment.split.span))
    for name, feature in (experiment.features or {}).items():
        if column in raw_column_names({name: feature}):
            roles.append(f"{feature.kind} feature" if name == column else f"feature {name}")
    return roles + ["slice"] * any(column in slicing for slicing in experiment.evaluation.slices)
