"""The section `compute`: where the steps run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidemill.section import Bytes, Section


class Resources(Section):
    """The resources that one step requests on a cluster. Ignored by `tidemill run`."""

    cpu: Annotated[str, Field(pattern=r"^\d+(\.\d+)?m?$")] = "4"
    """CPU cores, in Kubernetes' notation."""
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(E|P|T|G|M|K|Ei|Pi|Ti|Gi|Mi|Ki)?$")] = "16Gi"
    """Memory, in Kubernetes' notation."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """Number of GPUs."""
    gpu_type: str | None = None
    """GKE's name of the GPU. Defaults to any GPU."""
    spot: bool = False
    """Whether to run on GKE's spot nodes, which are cheaper and may disappear."""


class TransformEngine(Section):
    """The engine of the transform: Tidemill's own on one machine, or TensorFlow Transform on Apache Beam."""

    engine: Literal["auto", "local", "beam"] = "auto"
    """`local` runs on all cores of one machine, `beam` on a Beam runner. `auto` selects `beam` if a runner is named or
    train is larger than `local_limit`, else `local`. Both write the same transform graph."""
    local_limit: Bytes = 64 << 30
    """Largest train split, as stored in Parquet, for which `auto` selects `local`."""
    runner: Literal["direct", "dataflow", "flink", "spark"] | None = None
    """The Apache Beam runner. `direct`, the default of `engine: beam`, runs in the step's own process."""
    options: list[str] = []
    """Beam's pipeline options, as on its command line: `--project=…`, `--region=…`. Every runner except `direct`
    requires `--temp_location`, a folder that its workers and the step can reach."""
    analyzer_cache: bool = False
    """Whether the local engine keeps the accumulators of each file of train in `ROOT/analyzer_cache` and reuses them.
    With `split.span`, a daily run then analyzes only the files of the new day. Requires `engine: local`, or `auto`
    without a `runner`. Ignored when `auto` selects Beam."""

    @model_validator(mode="after")
    def _engine_and_runner(self) -> TransformEngine:
        if self.engine == "local" and self.runner is not None:
            raise ValueError(f"engine: local has no runner; remove runner: {self.runner} or choose engine: beam")
        if self.options and self.runner is None:
            raise ValueError("options are a runner's; name the runner, or remove them")
        if self.analyzer_cache and (self.engine == "beam" or self.runner is not None):
            raise ValueError("only the local engine has an analyzer cache; remove analyzer_cache, or set engine: local")
        is_remote = self.runner not in (None, "direct")
        if is_remote and not any(option.split("=")[0] == "--temp_location" for option in self.options):
            want = "a folder that Beam's workers and the step both reach"
            raise ValueError(f"runner: {self.runner} needs the option --temp_location=…, {want}")
        return self


class PreprocessResources(Resources, TransformEngine):
    """The resources and the engine of `preprocess`."""


class Compute(Section):
    """The resources of the steps."""

    train: Resources = Resources()
    """The resources of each `train` step."""
    preprocess: PreprocessResources = PreprocessResources()
