"""Steps of the compiled pipelines as pods on a real Kubernetes: they run, wait for GPUs, and queue."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.cluster.step_pods import all_executors, compiled, step_pod
from tests.cluster.tool import PIPELINES, TRIAL, TRIALS, Cluster, tool, wait_for
from tidemill.experiment.compute import Compute
from tidemill.experiment.placement import STEPS, placement

pytestmark = pytest.mark.cluster

DONE = ["python3", "-c", "print('done')"]


@pytest.fixture
def gpus():
    """Gives the node GPUs by number; none after the test."""
    yield lambda number: tool("gpus", str(number))
    tool("gpus", "0")


def test_step_runs_under_the_restricted_profile(cluster: Cluster):
    """`fan_out` with its own command, as user 1000 and with the service account of the manifests."""
    outputs = {"parameters": {"Output": {"outputFile": "/tmp/Output"}}, "outputFile": "/tmp/metadata.json"}
    executor_input = {"inputs": {"parameterValues": {"items": "[1, 2]"}}, "outputs": outputs}
    pod = step_pod(compiled("train"), "exec-fan-out", "fan-out", executor_input=executor_input)
    main = pod["spec"]["containers"][0]
    assert main["command"][:2] == ["sh", "-ec"]
    main["command"][2] += "\nid -u; cat /tmp/metadata.json"
    with cluster.pods(pod):
        ended = cluster.await_phase("fan-out", "Succeeded", "Failed")
        lines = cluster.logs("fan-out").splitlines()
    assert ended["status"]["phase"] == "Succeeded", lines
    assert ended["spec"]["serviceAccountName"] == "tidemill-runner"
    assert lines[-2] == "1000"
    assert json.loads(lines[-1]) == {"parameterValues": {"Output": [1, 2]}}


def test_training_waits_for_a_gpu(cluster: Cluster, gpus):
    """The command is not training's own, which needs the real image and data; everything else is."""
    small = placement(Compute.model_validate({"train": {"cpu": "100m", "memory": "64Mi", "gpu": 1, "spot": True}}), 1)
    pod = step_pod(compiled("train"), "exec-train", "training", placement=small, command=DONE)
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    with cluster.pods(pod):
        waiting = wait_for(lambda: cluster.pod("training")["status"].get("conditions"), "condition")
        assert waiting[0]["reason"] == "Unschedulable" and "Insufficient nvidia.com/gpu" in waiting[0]["message"]
        gpus(1)
        cluster.await_phase("training", "Succeeded")
        assert cluster.logs("training") == "done\n"


def test_only_training_asks_for_gpus():
    asking = set()
    everything = placement(Compute.model_validate({"train": {"gpu": 1}}), 1)
    everything |= {f"{step}_{name}": "1" for step in STEPS for name in ("cpu", "memory")}
    for pipeline, executor in all_executors():
        pod = step_pod(compiled(pipeline), executor, "step", placement=everything)
        if "nvidia.com/gpu" in pod["spec"]["containers"][0]["resources"]["limits"]:
            asking.add(executor)
    assert asking == {"exec-train"}


def test_training_on_cpus_does_not_name_the_resource():
    """GKE adds a toleration of nodes with GPUs to a pod that names it, even with 0."""
    pod = step_pod(compiled("train"), "exec-train", "step", placement=placement(Compute(), 1))
    assert set(pod["spec"]["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}


def queued(name: str, namespace: str = PIPELINES, **limits: str) -> dict:
    """Returns the pod of a training with the label of Kueue's queue."""
    pod = step_pod(compiled("train"), "exec-train", name, command=["sleep", "120"])
    pod["metadata"]["namespace"] = namespace
    pod["metadata"]["labels"] |= {
        "kueue.x-k8s.io/queue-name": "tidemill",
        "kueue.x-k8s.io/priority-class": "tidemill-nightly",
    }
    if namespace == TRIALS:
        pod["spec"]["serviceAccountName"] = TRIAL
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "10m", "memory": "16Mi"} | limits}
    return pod


def is_gated(cluster: Cluster, name: str) -> bool:
    return "schedulingGates" in cluster.pod(name)["spec"]


def test_kueue_suspends_and_admits(cluster: Cluster, gpus):
    """The queue has two GPUs. The second pod starts when the first has ended."""
    gpus(4)
    gpu = {"nvidia.com/gpu": "2"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(cluster.pods(queued("first", **gpu)))
        cluster.await_phase("first", "Running")
        stack.enter_context(cluster.pods(queued("second", **gpu)))
        workload = wait_for(lambda: _pending(cluster, "second"), "workload that waits")
        assert "insufficient unused quota for nvidia.com/gpu" in workload
        assert is_gated(cluster, "second")
        cluster.kubectl("delete", "pod", "first", "-n", PIPELINES, "--grace-period=1")
        cluster.await_phase("second", "Running")


def test_trials_borrow_from_pipelines(cluster: Cluster):
    """In the overlay `local` the trials have no quota of their own."""
    with cluster.pods(queued("borrower", TRIALS)):
        cluster.await_phase("borrower", "Running", namespace=TRIALS)
        status = cluster.get("clusterqueue", "tidemill-trials")["status"]
        [flavor] = status["flavorsReservation"]
        assert {resource["name"]: resource.get("borrowed") for resource in flavor["resources"]}["cpu"] == "10m"


def _pending(cluster: Cluster, pod: str) -> str | None:
    """Returns why Kueue lets a pod wait, once it says so."""
    for workload in cluster.get("workload", "-n", PIPELINES)["items"]:
        if workload["metadata"]["ownerReferences"][0]["name"] == pod:
            conditions = workload.get("status", {}).get("conditions", [])
            return next(
                (c["message"] for c in conditions if c["type"] == "QuotaReserved" and c["status"] == "False"), None
            )
    return None
