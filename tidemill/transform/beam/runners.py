"""Apache Beam's runners and their pipeline options. Imports Beam."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Sequence

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, PortableOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner, create_runner

from tidemill.errors import Code, TidemillError
from tidemill.transform.module_function import reason

WHERE = "compute.preprocess.options"
_RUNNERS = {"dataflow": "DataflowRunner", "flink": "FlinkRunner", "spark": "SparkRunner"}


def pipeline_options(runner: str, flags: Sequence[str]) -> PipelineOptions:
    """Beam's options for a runner.

    Args:
        runner: `direct`, `dataflow`, `flink` or `spark`.
        flags: As on Beam's command line: `--region=europe-west1`, or `--region` and `europe-west1`.

    Raises:
        TidemillError: `invalid-value` for an option that Beam does not know or cannot read, for one that contradicts
            the runner or another, and for one that the runner needs and is not given (`--project` for `dataflow`).
    """
    flags = list(flags)
    if flags and not flags[0].startswith("--"):
        raise _invalid(repr(flags[0]), "write options as --name=value")
    options = PipelineOptions(flags)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            known = options.get_all_options(retain_unknown_options=False)
            given = options.get_all_options(retain_unknown_options=True)
    except SystemExit as error:
        # argparse ends the process when it cannot read a value.
        reason = complaint.getvalue().strip().rpartition("error: ")[2]
        raise _invalid(" ".join(flags), f"mend the option ({reason})") from error
    if unknown := sorted(set(given) - set(known)):
        raise _invalid(f"--{unknown[0]}, which Beam does not know", "give Beam's own pipeline options")
    if known["runner"] is not None:
        raise _invalid(f"--runner={known['runner']}", "name the runner in compute.preprocess.runner")
    if runner == "direct":
        return options
    if not known["temp_location"]:
        raise _invalid("an empty --temp_location", "name a folder that Beam's workers and this step both reach")
    options = PipelineOptions([*flags, f"--runner={_RUNNERS[runner]}"])
    if complaints := _complaints(runner, options):
        raise _invalid(" ".join(flags), f"mend the options for {runner} ({complaints[0].rstrip('.')})")
    return options


def _complaints(runner: str, options: PipelineOptions) -> list[str]:
    """What Beam finds wrong with the options without a call to Google's services, which it makes for a whole check."""
    validator = PipelineOptionsValidator(options, None)
    if runner != "dataflow":
        return options.view_as(PortableOptions).validate(validator)
    cloud = options.view_as(GoogleCloudOptions)
    return validator.validate_gcs_path(cloud, "temp_location") + validator.validate_cloud_options(cloud)


def open_runner(runner: str) -> PipelineRunner:
    """The runner itself.

    Raises:
        TidemillError: `missing-package`.
    """
    if runner == "direct":
        # Beam's DirectRunner tries Prism first, for which it downloads a program, and falls back in silence.
        return FnApiRunner()
    try:
        if runner == "dataflow":
            # The runner itself looks for its client library only once the pipeline is built.
            importlib.import_module("apache_beam.runners.dataflow.internal.apiclient")
        return create_runner(_RUNNERS[runner])
    except ImportError as error:
        raise TidemillError(
            Code.MISSING_PACKAGE,
            "compute.preprocess.runner",
            f"{runner!r} ({error})",
            "install Tidemill with its extra beam",
        ) from error


def unreached(error: Exception) -> TidemillError:
    """What to tell where a runner did not take a pipeline."""
    got = f"no job ({reason([error])})"
    want = f"see that the runner can be reached, and mend {WHERE}"
    return TidemillError(Code.INVALID_VALUE, "compute.preprocess.runner", got, want)


def temp_location(options: PipelineOptions) -> str:
    """The folder that was given as `--temp_location`."""
    return options.view_as(GoogleCloudOptions).temp_location


def _invalid(got: str, want: str) -> TidemillError:
    return TidemillError(Code.INVALID_VALUE, WHERE, got, want)
