"""Pods of steps, made from a compiled pipeline as KFP 2.17 and Argo 4.0.5 make them.

`initPodSpecPatch` and `extendPodSpecPatch` of KFP's driver set image, command, resources, selectors, tolerations,
affinity and volumes; its compiler sets the security context and the scratch volumes. `step_pod` says what is left out.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.tool import PIPELINES, REPOSITORY, RUNNER

SCRATCH = ("gcs", "s3", "minio", ".local", ".cache", ".config")
_INPUT = re.compile(r"\{\{\$\.inputs\.parameters\['(?:pipelinechannel--)?([^']+)'\]\}\}")
CONTEXT: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What KFP sets for a step's container."""
NON_ROOT = {"runAsNonRoot": True, "runAsUser": 1000}
"""What KFP sets besides with the settings of manifests/kfp/non-root."""


class Pipeline:
    """A compiled pipeline: its executors, and what is Kubernetes' own of them."""

    def __init__(self, path: Path) -> None:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader))
        platform = documents[1]["platforms"]["kubernetes"] if len(documents) > 1 else {}
        executors = documents[0]["deploymentSpec"]["executors"]
        # An import runs in an image of KFP's.
        self.executors: dict[str, Any] = {name: each for name, each in executors.items() if "container" in each}
        self.kubernetes: dict[str, Any] = platform.get("deploymentSpec", {}).get("executors", {})


@functools.cache
def compiled(name: str) -> Pipeline:
    """Returns one of the repository's pipelines."""
    return Pipeline(REPOSITORY / "pipelines" / name / "pipeline.yaml")


def all_executors() -> list[tuple[str, str]]:
    """Returns each pipeline's and executor's name."""
    names = sorted(file.parent.name for file in REPOSITORY.glob("pipelines/*/pipeline.yaml"))
    return [(name, executor) for name in names for executor in sorted(compiled(name).executors)]


def step_pod(
    pipeline: Pipeline,
    executor: str,
    name: str,
    *,
    placement: dict[str, Any] | None = None,
    executor_input: dict[str, Any] | None = None,
    command: list[str] | None = None,
    non_root: bool = True,
) -> dict[str, Any]:
    """Returns the pod of a step, without Argo's and KFP's own containers.

    Args:
        pipeline: The compiled pipeline.
        executor: Name of the executor, such as exec-train.
        name: Name of the pod.
        placement: Values of the parameters that set resources and nodes. Defaults to none, for which KFP sets nothing.
        executor_input: KFP's executor input, which takes the place of `{{$}}` in the arguments.
        command: Runs instead of the step's own command. Defaults to that.
        non_root: Whether KFP has the settings of manifests/kfp/non-root. Defaults to True.
    """
    container = pipeline.executors[executor]["container"]
    config = pipeline.kubernetes.get(executor, {})
    placement = placement or {}
    arguments = [json.dumps(executor_input or {}) if word == "{{$}}" else word for word in container["args"]]
    main = {
        "name": "main",
        "image": container["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": command or [*container["command"], *arguments],
        "resources": resources(container.get("resources", {}), placement),
        "securityContext": CONTEXT | (NON_ROOT if non_root else {}),
        "volumeMounts": [{"name": f"scratch-{i}", "mountPath": f"/{folder}"} for i, folder in enumerate(SCRATCH)],
    }
    spec: dict[str, Any] = {
        "serviceAccountName": RUNNER,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [main],
        "volumes": [{"name": f"scratch-{i}", "emptyDir": {}} for i in range(len(SCRATCH))],
    }
    if selector := config.get("nodeSelector"):
        spec["nodeSelector"] = selector.get("labels") or _value(selector["nodeSelectorJson"], placement) or {}
    for toleration in config.get("tolerations", []):
        spec.setdefault("tolerations", []).extend(_value(toleration["tolerationJson"], placement) or [])
    for term in config.get("nodeAffinity", []):
        if affinity := _value(term["nodeAffinityJson"], placement):
            spec["affinity"] = {"nodeAffinity": affinity}
    for mount in config.get("emptyDirMounts", []):
        volume = {key: mount[key] for key in ("medium", "sizeLimit") if key in mount}
        spec["volumes"].append({"name": mount["volumeName"], "emptyDir": volume})
        main["volumeMounts"].append({"name": mount["volumeName"], "mountPath": mount["mountPath"]})
    if "activeDeadlineSeconds" in config:
        spec["activeDeadlineSeconds"] = int(config["activeDeadlineSeconds"])
    labels = {"workflows.argoproj.io/workflow": name, **config.get("podMetadata", {}).get("labels", {})}
    metadata = {"name": name, "namespace": PIPELINES, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def resources(section: dict[str, Any], placement: dict[str, Any]) -> dict[str, Any]:
    """Returns a container's resources, as KFP's driver resolves them."""
    limits, requests = {}, {}
    for target, kind in ((limits, "Limit"), (requests, "Request")):
        for resource in ("Cpu", "Memory"):
            if value := resolve(section.get(f"resource{resource}{kind}", ""), placement):
                target[resource.lower()] = value
    accelerator = section.get("accelerator", {})
    count = resolve(accelerator.get("resourceCount", ""), placement)
    if count and (kind := resolve(accelerator.get("resourceType", ""), placement)):
        limits[kind] = count
    return {"limits": limits, "requests": requests}


def resolve(text: str, placement: dict[str, Any]) -> str:
    """Replaces an input parameter by its value, or by nothing if it has none."""
    if match := _INPUT.fullmatch(text):
        return str(placement.get(match[1].rpartition("--")[2], ""))
    return text


def _value(parameter: dict[str, Any], placement: dict[str, Any]) -> Any:
    name = parameter["componentInputParameter"].rpartition("--")[2]
    return placement.get(name)
