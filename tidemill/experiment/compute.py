"""The section `compute`: where the steps run."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tidemill.experiment import gke
from tidemill.section import Bytes, Section

Cpus = Annotated[str, Field(pattern=r"^\d+(\.\d+)?$|^\d+m$")]
Memory = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(E|P|T|G|M|k|Ei|Pi|Ti|Gi|Mi|Ki)?$")]

_LABEL_NAME = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_SUFFIXES |= {f"{name}i": 1 << (10 * power) for power, name in enumerate("KMGTPE", start=1)}


def cores(quantity: str) -> float:
    """Returns the number of cores that a quantity of Kubernetes means, such as `500m` or `2`."""
    return float(quantity.removesuffix("m")) / (1000 if quantity.endswith("m") else 1)


def memory_bytes(quantity: str) -> int:
    """Returns the number of bytes that a quantity of Kubernetes means, such as `512Mi` or `2G`."""
    match = re.fullmatch(r"([\d.]+)([A-Za-z]*)", quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity of Kubernetes")
    return round(float(match[1]) * _SUFFIXES[match[2]])


class Resources(Section):
    """The resources of one step on a cluster. Ignored by `tidemill run`."""

    cpu: Cpus | None = None
    """CPU cores of the step, in Kubernetes' notation: reserved for it, and the most that it may use. Defaults to a
    number that follows the bytes of the source."""
    memory: Memory | None = None
    """Memory of the step, in Kubernetes' notation: reserved for it, and the most that it may use. Defaults to a size
    that follows the bytes of the source."""


class TrainResources(Resources):
    """The resources and the nodes of `train`. Ignored by `tidemill run`."""

    cpu_limit: Cpus | None = None
    """The most CPU cores that the step may use, if that is more than `cpu` reserves. Defaults to `cpu`."""
    memory_limit: Memory | None = None
    """The most memory that the step may use, if that is more than `memory` reserves. Defaults to `memory`, and to twice
    the default of `memory` if that is not given."""
    gpu: Annotated[int, Field(ge=0, le=16)] = 0
    """Number of GPUs of each training step. No other step asks for one."""
    gpu_type: str | None = None
    """GKE's name of the GPU. Defaults to any GPU. It must exist in the table of GKE's GPUs."""
    machine: str | None = None
    """Compute Engine's name of the machine type on which the step must run. It must be in the table of machines, have
    the GPUs and be large enough for the requests. Defaults to any."""
    spot: bool = False
    """Whether to prefer GKE's spot nodes, which are cheaper and may disappear. The step runs on another node if there
    is no spot node."""
    node_selector: dict[str, str] = {}
    """Labels that a node must have, for clusters other than GKE."""

    @field_validator("node_selector")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, value in labels.items():
            if not _LABEL_NAME.fullmatch(name) or not _LABEL_VALUE.fullmatch(value):
                raise ValueError(
                    f"{name}: {value} is no label of Kubernetes; write name: value, such as pool: training"
                )
        return labels

    @model_validator(mode="after")
    def _limits_hold_requests(self) -> TrainResources:
        if self.cpu and self.cpu_limit and cores(self.cpu) > cores(self.cpu_limit):
            raise ValueError(f"cpu {self.cpu} is more than cpu_limit {self.cpu_limit}; raise the limit")
        if self.memory and self.memory_limit and memory_bytes(self.memory) > memory_bytes(self.memory_limit):
            raise ValueError(f"memory {self.memory} is more than memory_limit {self.memory_limit}; raise the limit")
        return self

    @model_validator(mode="after")
    def _a_node_can_hold_it(self) -> TrainResources:
        if self.gpu_type is not None and not self.gpu:
            raise ValueError(f"gpu_type {self.gpu_type} without a GPU; set gpu to their number")
        cpus = cores(self.cpu) if self.cpu else 0.0
        memory = memory_bytes(self.memory) if self.memory else 0
        gke.check(cpus, memory, self.gpu, self.gpu_type, self.machine)
        return self


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
    """The resources of the steps. The defaults follow the bytes of the source; `tidemill validate` prints them."""

    ingest: Resources = Resources()
    """The resources of `ingest`, also of predictions."""
    validate_: Annotated[Resources, Field(alias="validate")] = Resources()
    """The resources of `validate`."""
    preprocess: PreprocessResources = PreprocessResources()
    train: TrainResources = TrainResources()
    """The resources and the nodes of each `train` step."""
    ensemble: Resources = Resources()
    """The resources of each `ensemble` step."""
    evaluate: Resources = Resources()
    """The resources of each `evaluate` step."""
    publish: Resources = Resources()
    """The resources of `publish`."""
    predict: Resources = Resources()
    """The resources of `predict`."""
