"""The Python API: `load`, `run` and `load_model`, for notebooks, scripts and other pipelines.

The names are used from the package: `tidemill.run(…)`. Importing them does not import TensorFlow.
"""

from __future__ import annotations

import contextlib
import html
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from tidemill import storage
from tidemill.errors import Code, TidemillError
from tidemill.experiment import Experiment, as_parameter, dump, load
from tidemill.local import definitions
from tidemill.local.container_mounts import absolute_output, experiment_mounts
from tidemill.local.execution import RunResult, Stopped, run_pipeline
from tidemill.local.images import named_images
from tidemill.local.run_checks import check_files, check_modules, check_packages, check_queries, root_folder
from tidemill.local.run_display import Lines
from tidemill.local.run_record import Run
from tidemill.local.step_containers import ContainerSettings
from tidemill.local.step_states import Steps

if TYPE_CHECKING:
    import pandas as pd

    from tidemill.artifacts.evaluation_artifact import EvaluationDocument
    from tidemill.artifacts.model_store import Lineage
    from tidemill.frames import Frame

DEFAULT_ROOT = ".tidemill"
"""Folder of artifacts, runs and published models, unless another is given."""


class RunFailed(Exception):
    """A run with a step that failed.

    Attributes:
        result: The run up to the failure, with its steps, logs and reports.
        code: The error code if a user error made the step fail; None otherwise.
    """

    def __init__(self, result: FinishedRun):
        self.result = result
        step = result._result.steps.failed()[0]
        error = step.error or {"code": None, "message": "the step failed"}
        self.code: str | None = error["code"]
        prefix = f"[{self.code}] " if self.code else ""
        super().__init__(f"{prefix}{error['message']} (step {step.name}, log {step.log})")


@dataclass(frozen=True)
class Report:
    """An HTML report of a run. A notebook displays it if it is a cell's last value."""

    path: Path

    def _repr_html_(self) -> str:
        document = html.escape(self.path.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{document}" style="width: 100%; height: 600px; border: 0"></iframe>'


class FinishedRun:
    """A run that has ended, with its metrics, reports, published model and predictions.

    Attributes:
        id: Identifier of the run: the time of its start, UTC.
        folder: Folder with the run's record, logs and reports.
    """

    def __init__(self, result: RunResult):
        self._result = result
        self.id = result.run.id
        self.folder = result.run.folder

    @property
    def metrics(self) -> pd.DataFrame:
        """The metrics of the test split, one row per model, followed by the columns `objective` (on the valid
        split) and `blessed`."""
        import pandas as pd

        members = self._result.outputs.members
        rows = [{**m.metrics, "objective": m.objective_value, "blessed": m.blessed} for m in members]
        return pd.DataFrame(rows, index=pd.Index([m.name for m in members], name="model"))

    @property
    def failed_gates(self) -> dict[str, list[str]]:
        """The reasons for which models are not blessed, by model. Empty if all models are blessed."""
        return {m.name: m.gate_texts for m in self._result.outputs.members if not m.blessed}

    @property
    def steps(self) -> pd.DataFrame:
        """The steps in pipeline order: `state`, `seconds`, and `reasons`, which say why the step ran again.
        A step that was cached has none."""
        import pandas as pd

        steps = list(self._result.steps)
        rows = [{"state": s.state.value, "seconds": s.seconds, "reasons": s.reasons} for s in steps]
        return pd.DataFrame(rows, index=pd.Index([s.name for s in steps], name="step"))

    @property
    def every_step_cached(self) -> bool:
        """Whether every step that can be cached was cached."""
        return self._result.run.every_step_cached

    @property
    def reports(self) -> dict[str, Report]:
        """The reports by `<step>-<output>`. A notebook displays a report that is a cell's last value."""
        return {path.stem: Report(path) for path in self._result.outputs.reports}

    @property
    def quarantined(self) -> dict[str, int]:
        """The number of malformed rows that were left out, by the file that lists them. Empty if all rows were good."""
        return {str(path): rows for path, rows in self._result.outputs.quarantined}

    @property
    def notes(self) -> dict[str, list[str]]:
        """What to know about the data, as sentences: `unseen`, `outliers` and `lost values`. Kinds without a sentence
        are absent."""
        return self._result.outputs.notes

    @property
    def model_uri(self) -> str | None:
        """URI of the published version; None if the run published none."""
        published = self._result.outputs.published
        return published[-1][0] if published else None

    @property
    def model(self) -> PublishedModel:
        """The published model.

        Raises:
            TidemillError: `no-model` if the run published none.
        """
        if self.model_uri is None:
            run = self._result.run
            got = f"no published model: its pipeline {run.pipeline} published none"
            want = "run the train or cross_validate pipeline"
            if self.failed_gates:
                want = "see failed_gates for the reasons"
            raise TidemillError(Code.NO_MODEL, f"run {self.id}", got, want)
        return load_model(self.model_uri)

    @property
    def predictions_uri(self) -> str | None:
        """URI of the folder with the predictions' Parquet files; None if the run made none."""
        predictions = self._result.outputs.predictions
        return predictions[-1][0] if predictions else None

    def __repr__(self) -> str:
        run = self._result.run
        lines = [f"run {run.id}: {run.experiment}, pipeline {run.pipeline}, {run.status}"]
        lines += [str(self.metrics)] if self._result.outputs.members else []
        lines += [f"{name}: {reason}" for name, reasons in self.failed_gates.items() for reason in reasons]
        lines += [f"{rows:,} malformed rows left out, see {path}" for path, rows in self.quarantined.items()]
        lines += [f"{kind}: {text}" for kind, texts in self.notes.items() for text in texts]
        lines += [f"published {self.model_uri}"] if self.model_uri else []
        lines += [f"predictions {self.predictions_uri}"] if self.predictions_uri else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        first, *rest = [line for line in repr(self).splitlines() if line]
        table = self.metrics.to_html() if self._result.outputs.members else ""
        shown = rest if not table else [line for line in rest if line.startswith(("published", "predictions"))]
        reports = [
            f'<a href="{html.escape(report.path.as_uri())}">{html.escape(name)}</a>'
            for name, report in self.reports.items()
        ]
        below = [*map(html.escape, shown), *([f"reports: {', '.join(reports)}"] if reports else [])]
        return f"<p>{html.escape(first)}</p>{table}" + "".join(f"<p>{line}</p>" for line in below)


class PublishedModel:
    """A published model.

    Attributes:
        uri: Folder of the version, `…/<name>/<version>`. TensorFlow Serving reads it as a SavedModel.
    """

    def __init__(self, uri: str):
        from tidemill.serving.scorer import Scorer

        self.uri = uri
        self._scorer = Scorer(uri)

    @property
    def columns(self) -> dict[str, str]:
        """The columns that `predict` needs, with the type of each: `int64`, `float32` or `string`.

        These are the columns of the examples: what `source.sql` returns, or the columns of the table without it.
        """
        return {column.name: column.dtype for column in self._scorer.raw_columns}

    @property
    def metrics(self) -> EvaluationDocument:
        """The evaluation of the model, the content of `metrics.json`."""
        from tidemill.artifacts import evaluation_artifact, model_store

        uri = storage.join(self.uri, model_store.PUBLISHED, evaluation_artifact.METRICS_FILE)
        return storage.read_json(uri)

    @property
    def lineage(self) -> Lineage:
        """What the version was made of: experiment, members, source, code."""
        from tidemill.artifacts import model_store

        return model_store.lineage(self.uri)

    def predict(self, data: Frame) -> Frame:
        """Returns the predicted probabilities of rows, as batch prediction and TensorFlow Serving compute them.

        Args:
            data: Rows with at least `columns`: a data frame of pandas or Polars, a `pa.Table`, a `pa.RecordBatch` or an
                iterable of record batches. Missing values are nulls; NaN counts as missing. Other columns are ignored.

        Returns:
            A frame of the same kind with one row per row of `data`, in the same order (pandas: the same index), and the
            float32 column `score`, or `score_<label>` for each of several labels. Record batches return a `pa.Table`.

        Raises:
            TidemillError: `missing-column`, or `feature-type` for a column of another type than in training.
        """
        import pyarrow as pa

        from tidemill.frames import as_frame_like, as_table

        table = as_table(data)
        self._scorer.check(table.column_names)
        scores = self._scorer.score_table(table.select(self._scorer.names))
        columns = {name: pa.array(scores[:, i]) for i, name in enumerate(self._scorer.outputs)}
        return as_frame_like(pa.table(columns), data)

    def __repr__(self) -> str:
        return f"PublishedModel({self.uri!r})"


def run(
    experiment: str | Path | Experiment,
    *,
    root: str | Path = DEFAULT_ROOT,
    pipeline: str = "train",
    parameters: Mapping[str, Any] | None = None,
    runner: Literal["subprocess", "docker"] = "subprocess",
    images: str | None = None,
    tag: str | None = None,
    cpu_only: bool = False,
    use_cache: bool = True,
    show_progress: bool = True,
) -> FinishedRun:
    """Runs a pipeline on this machine, as `tidemill run` does: same steps, cache, record and results.

    Args:
        experiment: An experiment file, or an experiment from `load`.
        root: Folder of artifacts, runs and published models. Defaults to `.tidemill`.
        pipeline: `train`, `cross_validate` or `batch_predict`. Defaults to `train`.
        parameters: Further parameters of the pipeline by name. Defaults to none.
        runner: `subprocess` runs the steps with the installed packages, `docker` each in a container of its image.
            Defaults to `subprocess`.
        images: With `docker`: registry of the images. Defaults to none.
        tag: With `docker`: tag of the images. Defaults to this version.
        cpu_only: With `docker`: whether all steps run in the CPU image. Defaults to False.
        use_cache: Whether steps reuse the results of earlier runs. Defaults to True.
        show_progress: Whether to print a line when a step starts or ends. Defaults to True.

    Raises:
        TidemillError: A mistake that is found before the first step, such as `missing-file` or `invalid-value`.
        RunFailed: A step failed. `code` is set if a user error made it fail.
        KeyboardInterrupt: The run was interrupted. Finished steps are kept: the same call resumes after them.

    Example:
        >>> import tidemill
        >>> result = tidemill.run("examples/flights/experiment.yaml")
        >>> result.metrics["auc"]
        >>> result.model.predict(frame)
    """
    file = "" if isinstance(experiment, Experiment) else str(Path(experiment).absolute())
    loaded = experiment if isinstance(experiment, Experiment) else load(experiment)
    folder = root_folder(root, "root")
    check_files(loaded)
    check_modules(loaded)
    check_queries(loaded)
    values = {name: v if isinstance(v, str) else json.dumps(v) for name, v in (parameters or {}).items()}
    containers = None
    if runner == "docker":
        values = absolute_output(values)
        mounts = experiment_mounts(loaded, values.get("output", ""))
        containers = ContainerSettings(named_images(images, tag, cpu_only=cpu_only), tuple(mounts))
    else:
        _check_processes(runner, images or tag or cpu_only)
    with contextlib.ExitStack() as stack:

        def on_start(_: Run, steps: Steps) -> None:
            if show_progress:
                stack.enter_context(Lines(Console()).showing(steps))

        try:
            result = run_pipeline(
                definitions.find_pipeline(pipeline, "pipeline"),
                {"experiment": as_parameter(dump(loaded), str(folder)), "root": str(folder), **values},
                experiment=loaded.name,
                file=file,
                root=folder,
                containers=containers,
                use_cache=use_cache,
                where="parameters",
                on_start=on_start,
            )
        except Stopped as stopped:
            if stopped.signum == signal.SIGINT:
                raise KeyboardInterrupt from stopped
            raise SystemExit(128 + stopped.signum) from stopped
    finished = FinishedRun(result)
    if not result.succeeded:
        raise RunFailed(finished)
    return finished


def _check_processes(runner: str, names_images: object) -> None:
    """Checks the parameters of a run in processes, and that the packages of the steps are installed."""
    if runner != "subprocess":
        raise TidemillError(Code.INVALID_VALUE, "runner", repr(runner), "use subprocess or docker")
    if names_images:
        want = "use runner='docker'; in processes, the steps run with the installed packages"
        raise TidemillError(Code.INVALID_VALUE, "images, tag or cpu_only", "a run without containers", want)
    check_packages()


def load_model(uri: str | Path) -> PublishedModel:
    """Loads a published model. The first call imports TensorFlow, which takes seconds.

    Args:
        uri: Folder of a published version, such as `.tidemill/models/flights/1`, on this machine or in an object store.

    Raises:
        TidemillError: `no-model` if there is no published model, `incomplete-artifact` if files are missing.
    """
    return PublishedModel(str(uri))
