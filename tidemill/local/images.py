"""The images that the steps of a pipeline run in, and how compiled YAMLs name them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tidemill.errors import Code, TidemillError
from tidemill.local.docker_engine import repository_digest
from tidemill.runtime import CPU_ONLY
from tidemill.version import CPU_IMAGE, GPU_IMAGE, __version__

# The parsers in C are ten times as fast, where PyYAML has them.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(.+)'\]\}\}")
_PLANNERS = ("plan_training",)
"""Components whose function asks for GPUs."""


@dataclass(frozen=True)
class Images:
    """The names of the images in a compiled pipeline."""

    cpu: str = CPU_IMAGE
    gpu: str = GPU_IMAGE
    cpu_only: bool = False
    """Whether the steps that name the GPU image run in the CPU image, and no step asks for a GPU."""

    def used(self) -> list[str]:
        """Returns the names that a pipeline can contain."""
        return [self.cpu] if self.cpu_only else [self.cpu, self.gpu]

    def write_into(self, compiled: Path) -> None:
        """Writes the names into a compiled component or pipeline.

        Args:
            compiled: The YAML, which names the released images.
        """
        if self == RELEASED:
            return
        text = compiled.read_text(encoding="utf-8")
        documents = list(yaml.load_all(text, Loader=_LOADER))
        for container in _containers(documents[0]):
            self._write_into_container(container)
        head = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("#"))
        compiled.write_text(head + yaml.dump_all(documents, Dumper=_DUMPER, sort_keys=True), encoding="utf-8")

    def _write_into_container(self, container: dict[str, Any]) -> None:
        names = {CPU_IMAGE: self.cpu, GPU_IMAGE: self.cpu if self.cpu_only else self.gpu}
        container["image"] = names.get(container["image"], container["image"])
        if self.cpu_only:
            container.get("resources", {}).pop("accelerator", None)
            if any(name in container.get("args", []) for name in _PLANNERS):
                container.setdefault("env", []).append({"name": CPU_ONLY, "value": "1"})


RELEASED = Images()
"""The images in the checked-in YAMLs."""


def named_images(
    registry: str | None = None,
    tag: str | None = None,
    *,
    digests: Mapping[str, str] | None = None,
    cpu_only: bool = False,
) -> Images:
    """Returns the images of a registry.

    An image that the local engine has pushed to the registry, or pulled from it, is named by its digest.

    Args:
        registry: Registry and folder, such as `europe-docker.pkg.dev/project/images`. Defaults to none.
        tag: Tag of both images. Defaults to this version of Tidemill.
        digests: Digests, `sha256:…`, by `cpu` and `gpu`. Defaults to those that the local engine knows.
        cpu_only: Whether all steps run in the CPU image.

    Raises:
        TidemillError: `invalid-value` for a digest or an image that is none.
    """
    for image, digest in (digests or {}).items():
        if image not in ("cpu", "gpu") or not digest.startswith("sha256:"):
            want = "write cpu=sha256:… or gpu=sha256:…"
            raise TidemillError(Code.INVALID_VALUE, "--digest", repr(f"{image}={digest}"), want)

    def name(image: str, released: str) -> str:
        repository = "/".join([*([registry.rstrip("/")] if registry else []), released.rpartition(":")[0]])
        if given := (digests or {}).get(image):
            return f"{repository}@{given}"
        tagged = f"{repository}:{tag or __version__}"
        return (repository_digest(tagged) if registry else None) or tagged

    cpu = name("cpu", CPU_IMAGE)
    return Images(cpu, cpu if cpu_only else name("gpu", GPU_IMAGE), cpu_only)


def _containers(pipeline_spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for executor in pipeline_spec["deploymentSpec"]["executors"].values():
        if "container" in executor:
            yield executor["container"]


def image_names(pipeline_spec: dict[str, Any]) -> set[str]:
    """Returns the names of the images in a compiled pipeline."""
    return {container["image"] for container in _containers(pipeline_spec)}


def gpu_counts(pipeline_spec: dict[str, Any]) -> dict[str, str]:
    """Returns how many GPUs the components of a compiled pipeline ask for, by the names of their functions.

    Returns:
        A number as text, or a placeholder of a parameter that has the number when the pipeline runs. Components that
        never ask for GPUs are left out.
    """
    option, counts = "--function_to_execute", {}
    for container in _containers(pipeline_spec):
        accelerator = container.get("resources", {}).get("accelerator")
        if accelerator and option in container.get("args", []):
            component = container["args"][container["args"].index(option) + 1]
            counts[component] = accelerator.get("resourceCount") or accelerator.get("count", "")
    return counts


def asks_for_gpu(count: str, parameters: Mapping[str, Any]) -> bool:
    """Returns whether a step asks for GPUs.

    Args:
        count: What `gpu_counts` says of its component.
        parameters: The values of the step's parameters, those of resources included.
    """
    placeholder = _PLACEHOLDER.fullmatch(count)
    value = parameters.get(placeholder[1], "") if placeholder else count
    return str(value).strip() not in ("", "0", "0.0")
