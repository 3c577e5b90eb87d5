"""Machine types and GPUs of GKE, to refuse what no node can hold.

From https://cloud.google.com/compute/docs/machine-resource and /docs/gpus. Machine types that are missing here can be
named in `node_selector`, which is not checked.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.errors import suggest_name

GIB = 1 << 30


@dataclass(frozen=True)
class Machine:
    """A machine type: its cores, its memory in GiB, and the GPU types and numbers that it can have."""

    cpus: int
    memory: float
    gpus: dict[str, tuple[int, ...]]

    def allocatable_cpus(self) -> float:
        """Returns the cores that GKE leaves to pods, without what system pods request."""
        reserved = sum(share * min(max(self.cpus - cores, 0), width) for cores, width, share in _RESERVED_CPUS)
        return self.cpus - reserved

    def allocatable_memory(self) -> float:
        """Returns the GiB of memory that GKE leaves to pods, without what system pods request."""
        reserved = sum(share * min(max(self.memory - size, 0), width) for size, width, share in _RESERVED_MEMORY)
        return self.memory - reserved - 0.1


_RESERVED_CPUS = ((0, 1, 0.06), (1, 1, 0.01), (2, 2, 0.005), (4, 1 << 20, 0.0025))
"""From a number of cores on, for so many, GKE reserves this share."""
_RESERVED_MEMORY = ((0, 4, 0.25), (4, 4, 0.2), (8, 8, 0.1), (16, 112, 0.06), (128, 1 << 20, 0.02))
"""From a number of GiB on, for so many, GKE reserves this share. Besides, 100 MiB are kept for evictions."""

_FAMILIES: dict[str, tuple[float, tuple[int, ...]]] = {
    "e2-standard": (4, (2, 4, 8, 16, 32)),
    "e2-highmem": (8, (2, 4, 8, 16)),
    "e2-highcpu": (1, (2, 4, 8, 16, 32)),
    "n1-standard": (3.75, (1, 2, 4, 8, 16, 32, 64, 96)),
    "n1-highmem": (6.5, (2, 4, 8, 16, 32, 64, 96)),
    "n1-highcpu": (0.9, (2, 4, 8, 16, 32, 64, 96)),
    "n2-standard": (4, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)),
    "n2-highmem": (8, (2, 4, 8, 16, 32, 48, 64, 80, 96)),
    "n2-highcpu": (1, (2, 4, 8, 16, 32, 48, 64, 80, 96)),
    "n2d-standard": (4, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224)),
    "n2d-highmem": (8, (2, 4, 8, 16, 32, 48, 64, 80, 96)),
    "c3-standard": (4, (4, 8, 22, 44, 88, 176)),
    "c3-highmem": (8, (4, 8, 22, 44, 88, 176)),
}
"""GiB of memory for each core, and the numbers of cores, of the families that are multiples of one core."""

_N1_GPUS: dict[str, dict[int, int]] = {
    "nvidia-tesla-t4": {1: 48, 2: 48, 4: 96},
    "nvidia-tesla-v100": {1: 12, 2: 24, 4: 48, 8: 96},
    "nvidia-tesla-p100": {1: 16, 2: 32, 4: 96},
}
"""GPUs that are attached to machines of the family n1: the largest number of cores for each number of GPUs."""

_ACCELERATED: dict[str, tuple[int, float, str, int]] = {
    "g2-standard-4": (4, 16, "nvidia-l4", 1),
    "g2-standard-8": (8, 32, "nvidia-l4", 1),
    "g2-standard-12": (12, 48, "nvidia-l4", 1),
    "g2-standard-16": (16, 64, "nvidia-l4", 1),
    "g2-standard-24": (24, 96, "nvidia-l4", 2),
    "g2-standard-32": (32, 128, "nvidia-l4", 1),
    "g2-standard-48": (48, 192, "nvidia-l4", 4),
    "g2-standard-96": (96, 384, "nvidia-l4", 8),
    "a2-highgpu-1g": (12, 85, "nvidia-tesla-a100", 1),
    "a2-highgpu-2g": (24, 170, "nvidia-tesla-a100", 2),
    "a2-highgpu-4g": (48, 340, "nvidia-tesla-a100", 4),
    "a2-highgpu-8g": (96, 680, "nvidia-tesla-a100", 8),
    "a2-megagpu-16g": (96, 1360, "nvidia-tesla-a100", 16),
    "a2-ultragpu-1g": (12, 170, "nvidia-a100-80gb", 1),
    "a2-ultragpu-2g": (24, 340, "nvidia-a100-80gb", 2),
    "a2-ultragpu-4g": (48, 680, "nvidia-a100-80gb", 4),
    "a2-ultragpu-8g": (96, 1360, "nvidia-a100-80gb", 8),
    "a3-highgpu-1g": (26, 234, "nvidia-h100-80gb", 1),
    "a3-highgpu-2g": (52, 468, "nvidia-h100-80gb", 2),
    "a3-highgpu-4g": (104, 936, "nvidia-h100-80gb", 4),
    "a3-highgpu-8g": (208, 1872, "nvidia-h100-80gb", 8),
    "a3-megagpu-8g": (208, 1872, "nvidia-h100-mega-80gb", 8),
    "a3-ultragpu-8g": (224, 2952, "nvidia-h200-141gb", 8),
}
"""Machine types that come with their GPUs: cores, GiB of memory, GPU type and number."""


def _machines() -> dict[str, Machine]:
    machines = {
        name: Machine(cpus, memory, {gpu: (count,)}) for name, (cpus, memory, gpu, count) in _ACCELERATED.items()
    }
    for family, (memory, sizes) in _FAMILIES.items():
        for cpus in sizes:
            gpus = {}
            if family.startswith("n1-"):
                for gpu, largest in _N1_GPUS.items():
                    gpus[gpu] = tuple(count for count, most in largest.items() if cpus <= most)
            machines[f"{family}-{cpus}"] = Machine(cpus, cpus * memory, gpus)
    return machines


MACHINES = _machines()
GPU_TYPES = sorted({gpu for machine in MACHINES.values() for gpu in machine.gpus})


def check(cpus: float, memory: int, gpu: int, gpu_type: str | None, machine: str | None) -> None:
    """Refuses requests that no node of GKE can hold.

    Args:
        cpus: Requested cores.
        memory: Requested bytes of memory.
        gpu: Number of GPUs, of one node.
        gpu_type: GKE's name of the GPU, or None for any.
        machine: Compute Engine's name of the machine type, or None for any.

    Raises:
        ValueError: The names are unknown, the machine type has no such GPU, or the requests are too large.
    """
    if gpu_type is not None and gpu_type not in GPU_TYPES:
        raise ValueError(f"GKE has no GPU {gpu_type!r}; {suggest_name(gpu_type, GPU_TYPES)}")
    if machine is not None and machine not in MACHINES:
        want = "if the table of this version lacks it, name it in node_selector"
        raise ValueError(f"unknown machine {machine!r}; {suggest_name(machine, list(MACHINES))}; {want}")
    candidates = {machine: MACHINES[machine]} if machine is not None else MACHINES
    if gpu:
        candidates = {name: each for name, each in candidates.items() if _has(each, gpu, gpu_type)}
    if not candidates:
        what = f"{gpu} x {gpu_type or 'any GPU'}"
        where = f"{machine} has {_offer(MACHINES[machine])}" if machine is not None else "no machine has so many"
        raise ValueError(f"{what} does not fit: {where}; {_remedy(gpu, gpu_type)}")
    if gpu_type is None and not gpu and machine is None:
        return  # a pool of other machines than those of the table may be large enough
    most_memory = max(each.allocatable_memory() for each in candidates.values())
    most_cpus = max(each.allocatable_cpus() for each in candidates.values())
    names = machine or f"machines with {gpu} x {gpu_type or 'GPU'}"
    if memory > most_memory * GIB:
        got, most = f"{memory / GIB:.4g}Gi of memory", f"{int(most_memory * 1024)}Mi"
        raise ValueError(f"{got} do not fit: {names} leave at most {most} to pods; lower memory")
    if cpus > most_cpus:
        got, most = f"{cpus:g} cores", f"{int(most_cpus * 1000)}m"
        raise ValueError(f"{got} do not fit: {names} leave at most {most} to pods; lower cpu")


def _has(machine: Machine, gpu: int, gpu_type: str | None) -> bool:
    """Returns whether a machine has at least so many GPUs of a type."""
    types = machine.gpus if gpu_type is None else {gpu_type: machine.gpus.get(gpu_type, ())}
    return any(count >= gpu for counts in types.values() for count in counts)


def _offer(machine: Machine) -> str:
    offers = [f"{max(counts)} x {gpu}" for gpu, counts in machine.gpus.items() if counts]
    return "at most " + " or ".join(offers) if offers else "no GPU"


def _remedy(gpu: int, gpu_type: str | None) -> str:
    fitting = [name for name, machine in MACHINES.items() if _has(machine, gpu, gpu_type)]
    return f"machines that fit: {', '.join(fitting[:4])}" if fitting else "lower gpu"
