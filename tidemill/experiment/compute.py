"""`compute`: where the steps run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidemill.section import Bytes, Section


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
    """Pipeline options of the runner, as on Beam's command line: `--project=…`, `--region=…`. Every runner but `direct`
    needs `--temp_location`, a folder that its workers and the step both reach."""
    analyzer_cache: bool = False
    """Whether the local engine keeps the analyzers' result for each file of train at the root and reuses it. With
    `split.span`, a daily run then analyzes only the files of the new day. Needs `engine: local`, or `auto` without a
    `runner`; when `auto` selects Beam because train is larger than `local_limit`, nothing is kept."""

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
    """Where the transform is computed."""


class Compute(Section):
    """Where the steps run."""

    train: Resources = Resources()
    preprocess: PreprocessResources = PreprocessResources()
