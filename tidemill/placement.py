"""Where a step runs on a cluster: the experiment's `compute` section as values that KFP takes at run time."""

from __future__ import annotations

from tidemill.experiment.compute import Resources

ACCELERATOR = "nvidia.com/gpu"
_GKE_ACCELERATOR = "cloud.google.com/gke-accelerator"
_GKE_SPOT = "cloud.google.com/gke-spot"


def placement(resources: Resources) -> dict:
    """CPU, memory, accelerators and nodes of one step.

    Returns:
        `cpu`, `memory`, `accelerator_type` (the resource's name) and `accelerator_count` as text; `node_selector`,
        labels of GKE's nodes by the accelerator's type and for spot nodes; `tolerations` of the taint that GKE puts
        on spot nodes.
    """
    selector = {}
    if resources.gpu and resources.gpu_type:
        selector[_GKE_ACCELERATOR] = resources.gpu_type
    tolerations = []
    if resources.spot:
        selector[_GKE_SPOT] = "true"
        tolerations.append({"key": _GKE_SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"})
    return {
        "cpu": resources.cpu,
        "memory": resources.memory,
        "accelerator_type": ACCELERATOR,
        "accelerator_count": str(resources.gpu),
        "node_selector": selector,
        "tolerations": tolerations,
    }
