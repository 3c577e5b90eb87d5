"""The section `compute`: what steps request, and what no node of GKE can hold."""

from __future__ import annotations

import pytest
import yaml

from tests.experiment.test_parsing import changed, mistake
from tidemill.experiment import parse
from tidemill.experiment.compute import Compute, cores, memory_bytes
from tidemill.experiment.gke import GIB
from tidemill.experiment.placement import STEPS, placement, requests

TRAIN = "compute.train"
L4 = {"gpu": 1, "gpu_type": "nvidia-l4"}


def compute(**sections) -> Compute:
    return Compute.model_validate(sections)


@pytest.mark.parametrize(
    ("section", "got", "want"),
    [
        (L4 | {"gpu_type": "nvidia-l5"}, "nvidia-l5", "did you mean 'nvidia-l4'"),
        ({"gpu_type": "nvidia-l4"}, "without a GPU", "set gpu to their number"),
        (L4 | {"machine": "g2-standart-8"}, "g2-standart-8", "did you mean 'g2-standard-8'; if the table"),
        (L4 | {"machine": "n1-standard-8"}, "n1-standard-8 has at most 4 x nvidia-tesla-t4", "machines that fit: g2-"),
        (L4 | {"machine": "e2-standard-8"}, "e2-standard-8 has no GPU", "machines that fit: g2-standard-4"),
        ({"gpu": 8, "gpu_type": "nvidia-tesla-t4"}, "no machine has so many", "lower gpu"),
        (
            L4 | {"machine": "g2-standard-8", "memory": "30Gi"},
            "30Gi of memory",
            "at most 29020Mi to pods; lower memory",
        ),
        (L4 | {"machine": "g2-standard-8", "cpu": "8"}, "8 cores", "at most 7910m to pods; lower cpu"),
        (L4 | {"memory": "500Gi"}, "500Gi of memory", "machines with 1 x nvidia-l4 leave at most"),
        ({"machine": "e2-standard-4", "memory": "16Gi"}, "16Gi of memory", "e2-standard-4 leave at most"),
        ({"cpu": "2", "cpu_limit": "500m"}, "cpu 2 is more than cpu_limit 500m", "raise the limit"),
        ({"memory": "2G", "memory_limit": "1Gi"}, "memory 2G is more than memory_limit 1Gi", "raise the limit"),
    ],
)
def test_refuses_what_no_node_can_hold(section, got, want):
    error = mistake(changed(TRAIN, section))
    assert error.where == TRAIN
    assert got in f"{error}" and want in f"{error}"


@pytest.mark.parametrize(
    "section",
    [
        L4 | {"machine": "g2-standard-8", "memory": "29020Mi", "cpu": "7910m"},
        L4 | {"machine": "g2-standard-96"},
        {"gpu": 1, "gpu_type": "nvidia-tesla-v100", "machine": "n1-standard-8"},
        {"gpu": 1, "memory": "1500Gi"},
        {"memory": "5000Gi", "cpu": "500"},
        {"node_selector": {"node.kubernetes.io/instance-type": "z9-standard-8"}},
    ],
)
def test_accepts_what_a_node_may_hold(section):
    assert parse(changed(TRAIN, section)).compute.train.model_dump(exclude_unset=True) == section


@pytest.mark.parametrize("step", [step for step in STEPS if step != "train"])
def test_only_training_has_gpus(step):
    assert "the unknown key 'gpu'" in f"{mistake(changed(f'compute.{step}', {'gpu': 1}))}"


def test_reads_quantities_of_kubernetes():
    assert [cores(text) for text in ("2", "0.5", "500m")] == [2, 0.5, 0.5]
    texts = ("1024", "2k", "1.5Gi", "3M", "1Ti")
    assert [memory_bytes(text) for text in texts] == [1024, 2000, 3 << 29, 3_000_000, 1 << 40]


@pytest.mark.parametrize("quantity", ["1.5m", "-1", "2 cores", "1e3"])
def test_rejects_wrong_quantities(quantity):
    assert mistake(changed("compute.ingest", {"cpu": quantity})).where == "compute.ingest.cpu"


def test_requests_follow_the_bytes_of_the_source():
    """A small source fits the smallest node pools; a large one needs no more than a step can use."""
    for step in STEPS:
        sizes = [requests(compute(), step, size) for size in (1, GIB, 100 * GIB, 10_000 * GIB)]
        memory = [memory_bytes(request["memory"]) for request in sizes]
        assert memory == sorted(memory) and memory[0] <= 4 * GIB and memory[-1] <= 32 * GIB
        assert (sizes[0]["cpu"], sizes[-1]["cpu"]) == ("1", "1" if step == "publish" else "4")
    assert memory_bytes(requests(compute(), "train", 3 * GIB)["memory"]) == 12 * GIB


def test_measured_peaks_fit_the_requests():
    """From `python benchmarks/memory.py --rows 1000000`: GiB of each step on 244 MB of text."""
    for step, peak in {"ingest": 1.03, "validate": 0.38, "preprocess": 1.24}.items():
        assert memory_bytes(requests(compute(), step, 243_765_913)["memory"]) > 1.5 * peak * GIB


def test_given_values_win():
    given = compute(validate={"cpu": "3"}, publish={"memory": "9Gi"})
    assert requests(given, "validate", 1) == {"cpu": "3", "memory": "3Gi"}
    assert requests(given, "publish", 1) == {"cpu": "1", "memory": "9Gi"}


@pytest.mark.parametrize(
    ("train", "cpu", "memory"),
    [
        ({}, ("2", "2"), ("6Gi", "12Gi")),
        ({"cpu": "500m", "memory": "10Gi"}, ("500m", "500m"), ("10Gi", "10Gi")),
        ({"cpu_limit": "7", "memory_limit": "20Gi"}, ("2", "7"), ("6Gi", "20Gi")),
        ({"cpu_limit": "1", "memory_limit": "5Gi"}, ("1", "1"), ("5Gi", "5Gi")),
        ({"gpu": 1}, ("4", "4"), ("6Gi", "12Gi")),
        ({"gpu": 1, "machine": "g2-standard-4"}, ("3", "3"), ("6Gi", "12Gi")),
        ({"machine": "e2-standard-2"}, ("1", "1"), ("6Gi", "12Gi")),
    ],
)
def test_limits_of_training(train, cpu, memory):
    placed = placement(compute(train=train), GIB)
    assert (placed["cpu"], placed["cpu_limit"]) == cpu
    assert (placed["memory"], placed["memory_limit"]) == memory


def test_spot_nodes_are_preferred_and_never_required():
    """A pod that is started again keeps its selectors, also when there is no spot node."""
    placed = placement(compute(train=L4 | {"spot": True, "machine": "g2-standard-8"}), 1)
    assert placed["node_selector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-l4",
        "node.kubernetes.io/instance-type": "g2-standard-8",
    }
    [preferred] = placed["node_affinity"].pop("preferredDuringSchedulingIgnoredDuringExecution")
    assert preferred["preference"]["matchExpressions"][0]["key"] == "cloud.google.com/gke-spot"
    assert placed["node_affinity"] == {}
    assert [toleration["key"] for toleration in placed["tolerations"]] == [
        "nvidia.com/gpu",
        "cloud.google.com/gke-spot",
    ]


def test_training_on_cpus_asks_nothing_of_nodes():
    placed = placement(compute(), 1)
    assert placed["gpus"] == ""
    assert not placed["node_selector"] and not placed["tolerations"] and not placed["node_affinity"]


def test_rejects_a_selector_that_is_no_label():
    error = mistake(changed(TRAIN, {"node_selector": {"pool": "a b"}}))
    assert "pool: a b is no label of Kubernetes" in f"{error}"


def test_section_validate_is_read():
    experiment = parse(changed("compute", {"validate": {"memory": "7Gi"}}))
    assert requests(experiment.compute, "validate", 1)["memory"] == "7Gi"
    assert yaml.safe_load(experiment.model_dump_json(by_alias=True, exclude_unset=True))["compute"]["validate"]
