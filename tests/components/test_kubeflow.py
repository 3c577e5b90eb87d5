"""What Kubeflow's backend refuses or gets wrong: the compiled pipelines and the components avoid it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.components.test_compiled import COMPONENTS, PIPELINES, compiled
from tidemill.cli.main import main
from tidemill.errors import Code, TidemillError
from tidemill.experiment import load, parse
from tidemill.experiment.parameter_text import MAX_BYTES
from tidemill.local.definitions import Definition, find_pipeline
from tidemill.planning import plan_training


def dags(pipeline: Definition) -> Iterator[dict[str, Any]]:
    """Yields the DAG of a pipeline and those of its loops and nested pipelines."""
    spec = compiled(pipeline)
    yield spec["root"]["dag"]
    yield from (component["dag"] for component in spec["components"].values() if "dag" in component)


def dag_tasks(pipeline: Definition) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yields name, task and component of each loop and nested pipeline in a pipeline."""
    components = compiled(pipeline)["components"]
    for dag in dags(pipeline):
        for name, task in dag["tasks"].items():
            component = components[task["componentRef"]["name"]]
            if "dag" in component:
                yield name, task, component


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.name)
def test_no_list_of_artifacts_enters_a_loop_or_a_nested_pipeline(pipeline):
    # The backend passes on only one artifact of the list.
    for name, _, component in dag_tasks(pipeline):
        artifacts = component.get("inputDefinitions", {}).get("artifacts", {})
        lists = [artifact for artifact, definition in artifacts.items() if definition.get("isArtifactList")]
        assert not lists, f"{name} of {pipeline.name} receives the lists {lists}; pack them into one artifact before"


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.name)
def test_no_artifact_enters_a_loop_or_a_nested_pipeline_under_two_names(pipeline):
    # The backend finds a DAG's artifacts by their ids, and would pass on one of the two names.
    for name, task, _ in dag_tasks(pipeline):
        sources = [json.dumps(source) for source in task.get("inputs", {}).get("artifacts", {}).values()]
        assert len(set(sources)) == len(sources), f"{name} of {pipeline.name} receives an artifact twice: {sources}"


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.name)
def test_a_list_comes_with_an_artifact_from_before_its_loop(pipeline):
    # The launcher opens the bucket of earlier runs if the first artifact of an input is from one, so a list that mixes
    # artifacts of this run and cached ones needs a single input that is cached whenever one of the list is.
    components = compiled(pipeline)["components"]
    for dag in dags(pipeline):
        for name, task in dag["tasks"].items():
            inputs = components[task["componentRef"]["name"]].get("inputDefinitions", {}).get("artifacts", {})
            producers = {
                artifact: source["taskOutputArtifact"]["producerTask"]
                for artifact, source in task.get("inputs", {}).get("artifacts", {}).items()
                if "taskOutputArtifact" in source
            }
            lists = [artifact for artifact, definition in inputs.items() if definition.get("isArtifactList")]
            single = {producers.get(artifact) for artifact in inputs.keys() - set(lists)}
            for artifact in lists:
                assert single & upstream(dag, producers[artifact]), (pipeline.name, name, artifact)


def upstream(dag: dict[str, Any], name: str) -> set[str]:
    """Returns the tasks of a DAG that a task depends on."""
    direct = set(dag["tasks"][name].get("dependentTasks", []))
    return direct.union(*(upstream(dag, task) for task in direct))


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.name)
def test_an_import_takes_its_uri_from_the_pipeline_around_it(pipeline):
    # The backend looks a URI that is not constant up among the parameters of the DAG, and resolves no placeholder in
    # the metadata.
    spec = compiled(pipeline)
    executors = spec["deploymentSpec"].get("executors", {})
    for dag in dags(pipeline):
        for name, task in dag["tasks"].items():
            label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            if "importer" in executors.get(label, {}):
                assert "componentInputParameter" in task["inputs"]["parameters"]["uri"], (pipeline.name, name)
                assert "{{" not in json.dumps(executors[label]["importer"].get("metadata", {}))


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_a_component_leaves_the_uri_of_its_outputs_alone(component):
    # The launcher refuses an output outside the run's folder.
    tree = ast.parse((component.folder / "component.py").read_text(encoding="utf-8"))
    targets = [target for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets]
    assert not [target for target in targets if isinstance(target, ast.Attribute) and target.attr in ("uri", "path")]


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_a_component_records_its_failures_below_the_root(component):
    # An exit code other than 1 is lost, and outputs of a failed step are not uploaded.
    source = (component.folder / "component.py").read_text(encoding="utf-8")
    assert component.name == "fan_out" or re.search(r"with step\(\s*\"\w+\", root=root, output=\w+\.uri", source)


ARGO_VARIABLE_BYTES = 131_072
"""The largest variable in which Argo describes a pod."""


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_the_longest_parameter_fits_into_a_pod_with_the_code_of_its_step(component):
    spec = compiled(component)
    definition = next(iter(spec["components"].values()))
    if {"experiment", "items"}.isdisjoint(definition["inputDefinitions"]["parameters"]):
        return
    container = spec["deploymentSpec"]["executors"][definition["executorLabel"]]["container"]
    pod = json.dumps({"container": container, "component": json.dumps(definition)})
    others = 8_000  # The launcher's arguments, the URIs of outputs, and what Argo adds.
    assert len(json.dumps(pod)) + others + MAX_BYTES < ARGO_VARIABLE_BYTES


BUCKET = "gs://a-company-data-platform-europe-west1/teams/ranking/tidemill"
FAMILIES = ["lr", "fm", "deepfm", "wide_deep", "dcn_v2", "dlrm", "final_mlp", "gbdt"]


def large_experiment(folder: Path, folds: int) -> dict[str, Any]:
    (folder / "t.csv").write_text("x,y\n1,0\n2,1\n")
    return {
        "name": "large",
        "source": {"tables": {"t": str(folder / "t.csv")}},
        "label": "y",
        "features": {f"x{number}": {"kind": "numeric"} for number in range(300)},
        "models": [*({"family": family} for family in FAMILIES), {"family": "gbdt", "name": "small", "num_leaves": 7}],
        "training": {"folds": folds},
        "compute": {"train": {"gpu": 1, "gpu_type": "nvidia-l4", "spot": True}},
    }


def test_more_trainings_than_fit_into_a_parameter_are_refused(tmp_path, capsys):
    file, root = tmp_path / "experiment.yaml", str(tmp_path / "root")
    for folds, code in ((10, 0), (50, 2)):
        file.write_text(yaml.safe_dump(large_experiment(tmp_path, folds)))
        assert main(["validate", str(file)]) == code
    assert "training.folds: got 450 trainings, whose list has" in capsys.readouterr().err
    with pytest.raises(TidemillError, match=r"450 trainings.*use fewer folds") as error:
        plan_training(load(file), root, cross_validate=True)
    assert error.value.code is Code.UNSUPPORTED


def test_parameters_of_a_large_cross_validation_stay_small(tmp_path):
    """Argo keeps the parameters of all tasks in one object of at most 1 MB, compressed."""
    root, experiment = str(tmp_path / "root"), large_experiment(tmp_path, folds=10)
    planned = plan_training(parse(yaml.safe_dump(experiment)), root, cross_validate=True)
    assert len(json.loads(planned["folds"])) == 90
    # The URIs' length is that of a bucket's, not of this machine's temporary folder.
    planned = {name: text.replace(root, BUCKET) for name, text in planned.items()}
    sizes = parameter_sizes(compiled(find_pipeline("cross_validate")), planned, BUCKET)
    assert len(sizes) > 90 * 3
    assert sum(sizes) < 300_000


def parameter_sizes(spec: dict[str, Any], planned: dict[str, str], root: str) -> list[int]:
    """Returns the size in characters of every parameter that every task receives, loops unrolled."""
    sizes = []

    def value(source: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, dict[str, Any]]) -> Any:
        if "runtimeValue" in source:
            return source["runtimeValue"]["constant"]
        if "taskOutputParameter" in source:
            output = source["taskOutputParameter"]
            return outputs[output["producerTask"]].get(output["outputParameterKey"], "x" * 100)
        found = inputs[source["componentInputParameter"]]
        selector = source.get("parameterExpressionSelector")
        return found if selector is None else found[re.search(r'\["(\w+)"\]', selector)[1]]

    def run(dag: dict[str, Any], inputs: dict[str, Any]) -> None:
        outputs: dict[str, dict[str, Any]] = {}
        waiting = dict(dag["tasks"])
        while waiting:
            name = next(n for n, t in waiting.items() if not set(t.get("dependentTasks", [])) & waiting.keys())
            task = waiting.pop(name)
            sources = task.get("inputs", {}).get("parameters", {})
            given = {key: value(source, inputs, outputs) for key, source in sources.items()}
            sizes.extend(len(each if isinstance(each, str) else json.dumps(each)) for each in given.values())
            outputs[name] = planned if name.startswith("plan-training") else {}
            if name.startswith("fan-out"):
                outputs[name] = {"Output": json.loads(given["items"])}
            component = spec["components"][task["componentRef"]["name"]]
            if "dag" not in component:
                continue
            if iterator := task.get("parameterIterator"):
                for item in given[iterator["items"]["inputParameter"]]:
                    sizes.append(len(json.dumps(item)))
                    run(component["dag"], given | {iterator["itemInput"]: item})
            else:
                run(component["dag"], given)

    run(spec["root"]["dag"], {"experiment": "", "root": root})
    return sizes
