"""A Kubernetes for tests, started by the tool beside the clone, with Kueue, the manifests and an image of the steps."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kfp
import pytest

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = REPOSITORY / "manifests"
TOOL = Path(os.environ.get("TIDEMILL_CLUSTER_TOOL", REPOSITORY.parent / "shared" / "tools" / "cluster"))
PIPELINES, TRIALS = "kubeflow", "tidemill-trials"
RUNNER, TRIAL = "tidemill-runner", "tidemill-trial"
BASE = "python:3.11-slim-bookworm"
STAND_IN = "tidemill-cluster-test:1"
STEP_IMAGES = ("tidemill-python-cpu:0.1.0", "tidemill-python-gpu:0.1.0")
_STATE = Path(tempfile.gettempdir()) / "tidemill-test-cluster"


def tool(*arguments: str, timeout: float = 300) -> str:
    """Runs the tool and returns its output. What it starts lives on, so its output goes to a file and not to a pipe."""
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run([TOOL, *arguments], stdout=output, stderr=subprocess.STDOUT, timeout=timeout)
        output.seek(0)
        text = output.read()
    assert done.returncode == 0, f"cluster {' '.join(arguments)}: {text[-4000:]}"
    return text


class Cluster:
    """Kubernetes' API, through kubectl."""

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the tool's kubectl, with the administrator's rights. It may fail."""
        command = [str(TOOL), "kubectl", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=180)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs kubectl and returns its output."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """Returns an object as JSON."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def create(self, *objects: dict[str, Any], dry_run: bool = False) -> subprocess.CompletedProcess[str]:
        """Creates objects, or has the server only check them."""
        options = ["--dry-run=server"] if dry_run else []
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return self.run("create", "--validate=strict", *options, "-f", "-", stdin=text)

    @contextlib.contextmanager
    def pods(self, *pods: dict[str, Any]) -> Iterator[None]:
        """Creates pods, and deletes them at the end."""
        done = self.create(*pods)
        try:
            assert done.returncode == 0, done.stderr[-4000:]
            yield
        finally:
            for pod in pods:
                name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
                self.run("delete", "pod", name, "-n", namespace, "--ignore-not-found", "--grace-period=1")

    def pod(self, name: str, namespace: str = PIPELINES) -> dict[str, Any]:
        """Returns a pod."""
        return self.get("pod", name, "-n", namespace)

    def await_phase(self, name: str, *phases: str, namespace: str = PIPELINES, seconds: float = 90) -> dict[str, Any]:
        """Waits until a pod is in one of the phases."""

        def reached() -> dict[str, Any] | None:
            pod = self.pod(name, namespace)
            return pod if pod["status"]["phase"] in phases else None

        return wait_for(reached, f"pod {name} in phase {phases}", seconds)

    def logs(self, name: str, namespace: str = PIPELINES) -> str:
        """Returns what a pod wrote."""
        return self.kubectl("logs", name, "-n", namespace)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    """Returns the condition's first true value.

    Raises:
        AssertionError: There was none in the given time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.3)
    raise AssertionError(f"no {what} after {seconds} s")


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Starts the cluster, if it does not run, with all that the tests need; stops it if this started it.

    The tests' workers share it: the last one stops it.
    """
    if not TOOL.is_file():
        pytest.skip("needs a Kubernetes: ../shared/tools/cluster beside the clone, or TIDEMILL_CLUSTER_TOOL")
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("needs a Docker engine, for the images of the cluster")
    _STATE.mkdir(exist_ok=True)
    with open(_STATE / "users", "w") as users, open(_STATE / "starting", "w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        with contextlib.suppress(BlockingIOError):  # nobody else uses it
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (_STATE / "started").unlink(missing_ok=True)
        # A cluster that runs is not started again: the tool then sometimes fails with "Address already assigned".
        if subprocess.run([TOOL, "kubectl", "get", "--raw", "/readyz"], capture_output=True).returncode:
            (_STATE / "started").touch()
            tool("up")
        try:
            fcntl.flock(users, fcntl.LOCK_SH)
            _prepare()
            fcntl.flock(starting, fcntl.LOCK_UN)
            yield Cluster()
        finally:
            fcntl.flock(starting, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_UN)
            with contextlib.suppress(BlockingIOError):  # another worker still uses it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (_STATE / "started").exists():
                    tool("down")
                    (_STATE / "started").unlink()


def _prepare() -> None:
    """Brings up what is missing: Kueue, the manifests, and the image of the steps."""
    cluster = Cluster()
    images = tool("images").split()
    if not any(STAND_IN in image for image in images):
        _build_stand_in()
        tool("load", STAND_IN)
    for name in STEP_IMAGES:
        source = os.environ.get("TIDEMILL_CLUSTER_IMAGE", STAND_IN)
        tool("ctr", "images", "tag", "--force", f"docker.io/library/{source}", f"docker.io/library/{name}")
    if cluster.run("get", "deployment", "kueue-controller-manager", "-n", "kueue-system").returncode:
        tool("kueue")
    for namespace in (PIPELINES, TRIALS):
        if cluster.run("get", "namespace", namespace).returncode:
            cluster.kubectl("create", "namespace", namespace)
    wait_for(lambda: cluster.run("apply", "-k", str(MANIFESTS / "overlays" / "local")).returncode == 0, "Kueue")
    # The image that stands in has no TensorBoard.
    cluster.kubectl("scale", "deployment", "tidemill-tensorboard", "-n", PIPELINES, "--replicas=0")


def _build_stand_in() -> None:
    """Builds the image that stands in for those of the steps: Python, kfp's executor, and user 1000.

    The real image has 3 to 4 GB and takes minutes to load.
    """
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(Path(kfp.__file__).parent, Path(folder, "kfp"), ignore=shutil.ignore_patterns("__pycache__"))
        lines = [f"FROM {BASE}", "COPY kfp /opt/packages/kfp", "ENV PYTHONPATH=/opt/packages", "USER 1000:1000"]
        Path(folder, "Dockerfile").write_text("\n".join(lines))
        subprocess.run(["docker", "build", "-q", "-t", STAND_IN, folder], check=True, capture_output=True, timeout=300)
