"""Tests of the compiled YAMLs, the generated tables and the distribution."""

from __future__ import annotations

import ast
import configparser
import functools
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kfp
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tidemill.components.fan_out.component import fan_out

from tidemill.cli.main import main
from tidemill.local.definitions import Definition, definitions, pipeline_names
from tidemill.steps import step_codes

ROOT = Path(__file__).parents[2]
COMPONENTS = [definition for definition in definitions() if definition.kind == "component"]
PIPELINES = [definition for definition in definitions() if definition.kind == "pipeline"]
TRAINING = {"train", "cross_validate", "member", "fold"}
"""The pipelines that train."""
OTHER_EXTRAS = {"jax"}
"""Packages of an extra of their own. An error names the extra if it is missing."""


@functools.cache
def compiled(pipeline: Definition) -> dict[str, Any]:
    return next(yaml.safe_load_all(pipeline.compiled.read_text(encoding="utf-8")))


def test_generated_files_are_current():
    assert main(["compile", "--check"]) == 0


@pytest.mark.parametrize("definition", [*COMPONENTS, *PIPELINES], ids=lambda definition: definition.name)
def test_kfp_loads_each_compiled_definition(definition):
    loaded = kfp.components.load_component_from_text(definition.compiled.read_text(encoding="utf-8"))
    prefix = "tidemill-" if definition.kind == "pipeline" else ""
    assert loaded.name == prefix + definition.name.replace("_", "-")
    # A pipeline that writes nothing takes no root.
    assert definition.kind == "component" or {"root", "uri"} & loaded.component_spec.inputs.keys()


def test_every_definition_has_a_readme():
    folders = {definition.folder for definition in definitions()}
    missing = [
        folder for folder in folders | {folder.parent for folder in folders} if not (folder / "README.md").is_file()
    ]
    assert not missing


def test_every_step_has_a_component():
    assert set(step_codes()) <= {component.name for component in COMPONENTS}


def test_every_component_that_takes_a_spec_has_a_step():
    takes_spec = {
        component.name
        for component in COMPONENTS
        if "spec"
        in compiled(component)["components"][f"comp-{component.name.replace('_', '-')}"]["inputDefinitions"][
            "parameters"
        ]
    }
    assert takes_spec == set(step_codes())


def test_help_names_every_pipeline(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert ", ".join(pipeline_names()) in " ".join(capsys.readouterr().out.split())


def test_every_task_is_cached_except_planning():
    for pipeline in PIPELINES:
        components = compiled(pipeline)["components"]
        for name, task in tasks(pipeline):
            if "executorLabel" in components[task["componentRef"]["name"]]:
                cached = task.get("cachingOptions", {}).get("enableCache", False)
                assert cached != name.startswith("plan"), (pipeline.name, name)


def test_kubeflow_restarts_training_for_weeks():
    for pipeline in PIPELINES:
        trainings = [task for name, task in tasks(pipeline) if name == "train"]
        for task in trainings:
            # Argo ends the pod after `backoffMaxDuration`. KFP's default is an hour.
            assert int(task["retryPolicy"]["backoffMaxDuration"].rstrip("s")) >= 14 * 24 * 3600
            assert task["retryPolicy"]["maxRetryCount"] > 10
        assert bool(trainings) == (pipeline.name in TRAINING), pipeline.name


def tasks(pipeline: Definition) -> list[tuple[str, dict[str, Any]]]:
    """Returns the tasks of a pipeline and of the pipelines in it."""
    spec = compiled(pipeline)
    dags = [spec["root"], *spec["components"].values()]
    return [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).items()]


LIST_FILES = """
import setuptools
from distutils.core import run_setup

build = run_setup("setup.py", stop_after="config").get_command_obj("build_py")
build.ensure_finalized()
data = (f"{folder}/{name}" for _, folder, _, names in build.data_files for name in names)
print(*build.get_source_files(), *data, sep="\\n")
"""


@pytest.mark.process
def test_the_distribution_contains_every_file():
    """Modules, compiled YAMLs, templates and py.typed."""
    listed = subprocess.run([sys.executable, "-c", LIST_FILES], cwd=ROOT, check=True, capture_output=True, text=True)
    expected = {
        path.relative_to(ROOT).as_posix()
        for folder in ("tidemill", "components", "pipelines")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".jinja", ".typed")
    }
    assert expected <= set(listed.stdout.splitlines())


def test_the_extra_steps_installs_every_import():
    """Each package that a module imports is a requirement of the extra `steps`, or of one of its requirements."""
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
    distributions = importlib.metadata.packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "tidemill").rglob("*.py")
        for module in imported(path) - sys.stdlib_module_names - {"tidemill"} - OTHER_EXTRAS
        if not any(canonicalize_name(name) in installed for name in distributions.get(module, []))
    }
    assert not missing


def imported(path: Path) -> set[str]:
    """Returns the packages that a file imports, also inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.process
def test_the_log_has_what_the_step_prints_and_no_inputs(tmp_path):
    """The component's source logs as kfp's executor does; its errors stay in the log."""
    container = fan_out.component_spec.implementation.container
    source, outputs = tmp_path / "component.py", tmp_path / "outputs.json"
    source.write_text(container.command[-1])
    log = {}
    for items in ('["a", "b"]', '["a'):
        inputs = {"inputs": {"parameterValues": {"items": items}}, "outputs": {"outputFile": str(outputs)}}
        inputs["outputs"]["parameters"] = {"Output": {"outputFile": str(tmp_path / "Output")}}
        command = [sys.executable, "-m", "kfp.dsl.executor_main", "--component_module_path", str(source)]
        command += ["--executor_input", json.dumps(inputs), "--function_to_execute", "fan_out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        log[done.returncode] = done.stdout + done.stderr
    assert "executor_input" not in log[0] and "parameterValues" not in log[0] and log[0].count("\n") <= 4
    assert "JSONDecodeError" in log[1]
    assert outputs.is_file()
