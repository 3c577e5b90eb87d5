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
    """Returns Beam's options for a runner.

    Args:
        runner: `direct`, `dataflow`, `flink` or `spark`.
        flags: As on Beam's command line: `--region=europe-west1`, or `--region` and `europe-west1`.

    Raises:
        TidemillError: `invalid-value` for an option that Beam does not know or cannot parse, that contradicts the
            runner or another option, or that the runner needs and is missing (`--project` for `dataflow`).
    """
    flags = list(flags)
    if flags and not flags[0].startswith("--"):
        raise _options_error(repr(flags[0]), "write options as --name=value")
    options = PipelineOptions(flags)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            known = options.get_all_options(retain_unknown_options=False)
            given = options.get_all_options(retain_unknown_options=True)
    except SystemExit as error:
        # argparse exits the process if it cannot parse a value.
        message = complaint.getvalue().strip().rpartition("error: ")[2]
        raise _options_error(" ".join(flags), f"fix the option ({message})") from error
    if unknown := sorted(set(given) - set(known)):
        raise _options_error(f"--{unknown[0]}, which Beam does not know", "use one of Beam's pipeline options")
    if known["runner"] is not None:
        raise _options_error(f"--runner={known['runner']}", "set compute.preprocess.runner instead")
    if runner == "direct":
        return options
    if not known["temp_location"]:
        want = "set a folder that both Beam's workers and this step can reach"
        raise _options_error("an empty --temp_location", want)
    options = PipelineOptions([*flags, f"--runner={_RUNNERS[runner]}"])
    if complaints := _complaints(runner, options):
        raise _options_error(" ".join(flags), f"fix the options for {runner} ({complaints[0].rstrip('.')})")
    return options


def _complaints(runner: str, options: PipelineOptions) -> list[str]:
    """Returns Beam's complaints about the options. Unlike Beam's full validation, it does not call Google's
    services."""
    validator = PipelineOptionsValidator(options, None)
    if runner != "dataflow":
        return options.view_as(PortableOptions).validate(validator)
    cloud = options.view_as(GoogleCloudOptions)
    return validator.validate_gcs_path(cloud, "temp_location") + validator.validate_cloud_options(cloud)


def open_runner(runner: str) -> PipelineRunner:
    """Returns the runner.

    Raises:
        TidemillError: `missing-package`.
    """
    if runner == "direct":
        # Beam's DirectRunner tries Prism first, which downloads a program, and falls back silently.
        return FnApiRunner()
    try:
        if runner == "dataflow":
            # Otherwise the runner looks for its client library only after the pipeline is built.
            importlib.import_module("apache_beam.runners.dataflow.internal.apiclient")
        return create_runner(_RUNNERS[runner])
    except ImportError as error:
        raise TidemillError(
            Code.MISSING_PACKAGE,
            "compute.preprocess.runner",
            f"{runner!r} ({error})",
            "install tidemill[beam]",
        ) from error


def unreached_error(error: Exception) -> TidemillError:
    """Returns the error for a runner that did not accept a pipeline."""
    got = f"no job ({reason([error])})"
    want = f"check that the runner can be reached, and fix {WHERE}"
    return TidemillError(Code.INVALID_VALUE, "compute.preprocess.runner", got, want)


def temp_location(options: PipelineOptions) -> str:
    """Returns the folder given as `--temp_location`."""
    return options.view_as(GoogleCloudOptions).temp_location


def _options_error(got: str, want: str) -> TidemillError:
    return TidemillError(Code.INVALID_VALUE, WHERE, got, want)
