"""What steps request on a cluster, and on which nodes they may run."""

from __future__ import annotations

import math
from typing import Any

from tidemill.experiment import gke
from tidemill.experiment.compute import Compute, Resources, TrainResources, cores, memory_bytes
from tidemill.experiment.gke import GIB

STEPS = ("ingest", "validate", "preprocess", "train", "ensemble", "evaluate", "publish", "predict")
"""The steps with resources of their own. The others have small fixed ones in the pipelines."""

_MEMORY: dict[str, tuple[float, float, float]] = {
    "ingest": (2.0, 3.0, 4.0),
    "validate": (2.0, 3.0, 4.0),
    "preprocess": (3.0, 3.0, 29.0),
    "train": (3.0, 3.0, 29.0),
    "ensemble": (3.0, 3.0, 29.0),
    "evaluate": (3.0, 3.0, 29.0),
    "publish": (2.0, 0.0, 0.0),
    "predict": (3.0, 1.0, 5.0),
}
"""GiB that a step needs for itself, for each GiB of the source, and at most for the source. `ingest` and `validate`
spill to disk."""
_GKE_ACCELERATOR = "cloud.google.com/gke-accelerator"
_GKE_SPOT = "cloud.google.com/gke-spot"
_MACHINE = "node.kubernetes.io/instance-type"
_GPU = "nvidia.com/gpu"


def requests(compute: Compute, step: str, source_bytes: int) -> dict[str, str]:
    """Returns the CPU cores and the memory of a step, in Kubernetes' notation.

    Args:
        compute: The section of the experiment.
        step: One of `STEPS`.
        source_bytes: Bytes of all files of the source, as stored.

    Returns:
        `cpu` and `memory`.
    """
    section: Resources = getattr(compute, "validate_" if step == "validate" else step)
    own, factor, most = _MEMORY[step]
    size = math.ceil(own + min(factor * source_bytes / GIB, most))
    number = 1 if source_bytes < GIB or step == "publish" else 2 if source_bytes < 8 * GIB else 4
    if isinstance(section, TrainResources):
        if section.gpu:
            number = 4  # so that reading rows keeps up with the GPU
        if section.machine:
            machine = gke.MACHINES[section.machine]
            number = max(1, min(number, int(machine.allocatable_cpus())))
            size = max(1, min(size, int(machine.allocatable_memory())))
    return {"cpu": section.cpu or str(number), "memory": section.memory or f"{size}Gi"}


def placement(compute: Compute, source_bytes: int) -> dict[str, Any]:
    """Returns the resources and the nodes of `train`, as values that KFP accepts at run time.

    Args:
        compute: The section of the experiment.
        source_bytes: Bytes of all files of the source, as stored.

    Returns:
        `cpu`, `cpu_limit`, `memory`, `memory_limit` and `gpus` as texts, where no GPU is an empty text;
        `node_selector`, the labels that a node must have; `tolerations` of the taints on spot nodes and on nodes with
        GPUs; `node_affinity`, which prefers spot nodes. A pod that Kubernetes starts again keeps all of them, so spot
        nodes are never required.
    """
    train = compute.train
    asked = requests(compute, "train", source_bytes)
    if not train.cpu and train.cpu_limit:
        asked["cpu"] = min(asked["cpu"], train.cpu_limit, key=cores)
    if not train.memory and train.memory_limit:
        asked["memory"] = min(asked["memory"], train.memory_limit, key=memory_bytes)
    default_limit = train.memory or f"{2 * memory_bytes(asked['memory']) // GIB}Gi"
    selector, tolerations, affinity = dict(train.node_selector), [], {}
    if train.gpu:
        tolerations.append({"key": _GPU, "operator": "Exists", "effect": "NoSchedule"})
    if train.gpu_type:
        selector[_GKE_ACCELERATOR] = train.gpu_type
    if train.machine:
        selector[_MACHINE] = train.machine
    if train.spot:
        tolerations.append({"key": _GKE_SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"})
        is_spot = {"matchExpressions": [{"key": _GKE_SPOT, "operator": "In", "values": ["true"]}]}
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [{"weight": 100, "preference": is_spot}]
    return asked | {
        "cpu_limit": train.cpu_limit or asked["cpu"],
        "memory_limit": train.memory_limit or default_limit,
        # GKE lets a pod onto nodes with GPUs that names their resource, even with 0. Kubeflow leaves an empty one out.
        "gpus": str(train.gpu or ""),
        "node_selector": selector,
        "tolerations": tolerations,
        "node_affinity": affinity,
    }


def without_gpus(compute: Compute) -> Compute:
    """Returns the section for training on CPUs: without GPUs, and without a machine type that comes with them."""
    machine = compute.train.machine
    if machine is not None and any(gke.MACHINES[machine].gpus.values()):
        machine = None
    train = compute.train.model_copy(update={"gpu": 0, "gpu_type": None, "machine": machine})
    return compute.model_copy(update={"train": train})
