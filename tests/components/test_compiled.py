"""The compiled YAMLs and the generated tables are current, load, and keep the contract of the folders."""

import ast
import configparser
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import kfp
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tidemill.cli.main import main

ROOT = Path(__file__).parents[2]
COMPONENTS = sorted(p.parent.name for p in (ROOT / "components").glob("*/component.py"))
PIPELINES = sorted(p.parent.name for p in (ROOT / "pipelines").glob("*/pipeline.py"))
OTHER_EXTRAS = {"jax"}
"""Packages that come with an extra of their own, which whoever wants them is told of."""


def test_nothing_is_stale():
    assert main(["compile", "--check"]) == 0


@pytest.mark.parametrize("name", COMPONENTS)
def test_component_loads(name):
    component = kfp.components.load_component_from_file(str(ROOT / "components" / name / "component.yaml"))
    assert component.name == name.replace("_", "-")


@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline_loads(name):
    pipeline = kfp.components.load_component_from_file(str(ROOT / "pipelines" / name / "pipeline.yaml"))
    assert pipeline.name == f"tidemill-{name}".replace("_", "-")
    assert "root" in pipeline.component_spec.inputs


@pytest.mark.parametrize("name", COMPONENTS)
def test_component_imports_the_standard_library_and_kfp_alone(name):
    tree = ast.parse((ROOT / "components" / name / "component.py").read_text())
    modules = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    # `tidemill.components` itself imports os alone and holds the images' names.
    assert set(modules) <= {"kfp", "typing", "tidemill.components"}


def test_planning_is_never_cached_and_the_rest_is():
    for name in PIPELINES:
        spec = next(yaml.safe_load_all((ROOT / "pipelines" / name / "pipeline.yaml").read_text()))
        tasks = dict(spec["root"]["dag"]["tasks"])
        for component in spec["components"].values():
            tasks |= component.get("dag", {}).get("tasks", {})
        for task, value in tasks.items():
            cached = value.get("cachingOptions", {}).get("enableCache", False)
            is_executor = "executorLabel" in spec["components"][value["componentRef"]["name"]]
            if is_executor:
                assert cached != task.startswith("plan"), (name, task)


def test_a_training_is_started_again_as_long_as_it_may_take():
    for name in PIPELINES:
        spec = next(yaml.safe_load_all((ROOT / "pipelines" / name / "pipeline.yaml").read_text()))
        groups = [component["dag"]["tasks"] for component in spec["components"].values() if "dag" in component]
        trains = [tasks["train"] for tasks in [spec["root"]["dag"]["tasks"], *groups] if "train" in tasks]
        for task in trains:
            # Argo ends the pod itself after `backoffMaxDuration`, which kfp sets to an hour where it is not given.
            assert int(task["retryPolicy"]["backoffMaxDuration"].rstrip("s")) >= 14 * 24 * 3600
            assert task["retryPolicy"]["maxRetryCount"] > 10
        assert bool(trains) == (name != "batch_predict"), name


LIST_FILES = """
import setuptools
from distutils.core import run_setup

build = run_setup("setup.py", stop_after="config").get_command_obj("build_py")
build.ensure_finalized()
data = (f"{folder}/{name}" for _, folder, _, names in build.data_files for name in names)
print(*build.get_source_files(), *data, sep="\\n")
"""


@pytest.mark.process
def test_the_distribution_holds_every_file():
    """Modules, compiled YAMLs, templates and py.typed, which setup.py finds without a list."""
    listed = subprocess.run([sys.executable, "-c", LIST_FILES], cwd=ROOT, check=True, capture_output=True, text=True)
    there = {
        path.relative_to(ROOT).as_posix()
        for folder in ("tidemill", "components", "pipelines")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".jinja", ".typed")
    }
    assert there <= set(listed.stdout.splitlines())


def test_the_steps_install_what_they_import():
    """What any module imports comes with the extra `steps`, by itself or as what another package needs."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    waiting = [
        *config["options"]["install_requires"].split("\n"),
        *config["options.extras_require"]["steps"].split("\n"),
    ]
    installed: set[str] = set()
    while waiting:
        if not (line := waiting.pop().strip()):
            continue
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name in installed or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        installed.add(name)
        waiting += importlib.metadata.requires(name) or []
    brings = importlib.metadata.packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "tidemill").rglob("*.py")
        for module in imported(path) - sys.stdlib_module_names - {"tidemill"} - OTHER_EXTRAS
        if not any(canonicalize_name(name) in installed for name in brings.get(module, []))
    }
    assert not missing


def imported(path: Path) -> set[str]:
    """The packages that a file's statements import, wherever they stand."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module or "")
    return {name.partition(".")[0] for name in names}
