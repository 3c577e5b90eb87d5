"""Runs of small real pipelines through kfp.local."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import yaml

from tests.local.toy_pipelines import SINGLE, TOY, experiment
from tidemill.artifacts import artifact
from tidemill.errors import Code, TidemillError
from tidemill.local import run_record
from tidemill.local.execution import RunResult, run_pipeline, typed_arguments
from tidemill.local.step_states import State


def go(root: Path, arguments: dict, source=TOY, **options) -> RunResult:
    values = {"root": str(root), **arguments}
    return run_pipeline(source, values, experiment="toy", file="toy.yaml", root=root, **options)


def states(result: RunResult) -> dict[str, str]:
    return {step.name: step.state.value for step in result.steps}


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> RunResult:
    # kfp's own runner would change `python3` inside a step's paths, and does not quote the interpreter's.
    root = tmp_path_factory.mktemp("a python3 root") / "deep" / "er"
    return go(root, {"experiment": experiment("bb", "a"), "rows": "4"})


def test_all_steps_run_in_pipeline_order(first):
    assert list(states(first).items()) == [
        ("plan", "checked"),
        ("fan-out", "checked"),
        ("ingest", "done"),
        ("train-bb", "done"),
        ("train-a", "done"),
        ("evaluate-bb", "done"),
        ("evaluate-a", "done"),
        ("publish", "done"),
    ]
    assert first.succeeded and not first.run.every_step_cached


def test_each_step_has_its_own_log(first):
    logs = {path.name: path.read_text() for path in (first.run.folder / "steps").glob("*.log")}
    assert set(logs) == {f"{name}.log" for name in states(first)}
    assert "writing python3 rows to" in logs["ingest.log"]
    assert not [name for name, text in logs.items() if "writing" in text and name != "ingest.log"]


def test_kfp_prints_nothing_and_logs_to_its_file(tmp_path, capfd):
    print_before, handlers = print, logging.getLogger().handlers[:]
    result = go(tmp_path, {"experiment": experiment("a", "b")})
    assert capfd.readouterr() == ("", "")
    assert print is print_before and logging.getLogger().handlers == handlers
    assert "Executing task" in (result.run.folder / "kfp.log").read_text()


def test_record_tells_the_whole_run(first):
    written = json.loads((first.run.folder / "run.json").read_text())
    assert written["status"] == "succeeded"
    assert written["seconds"] > 0
    assert [step["name"] for step in written["steps"]] == list(states(first))
    ingest = next(step for step in written["steps"] if step["name"] == "ingest")
    assert ingest["outputs"]["examples"]["metadata"] == {"rows": 4}
    assert artifact.open_folder(ingest["outputs"]["examples"]["uri"])
    assert [Path(path).name for path in written["reports"]] == [
        "ingest-report.html",
        "evaluate-bb-report.html",
        "evaluate-a-report.html",
    ]
    assert not Path(written["temporary"]).exists()
    assert yaml.safe_load((first.run.folder / "pipeline.yaml").read_text())["pipelineInfo"]["name"] == "toy"


def test_results(first):
    members = [(m.name, m.blessed, m.metrics["auc"]) for m in first.outputs.members]
    assert members == [("bb", True, 0.2), ("a", False, 0.1)]
    assert first.outputs.published == [(str(Path(first.run.root) / "models" / "toy"), "aa")]


def test_second_run_is_cached(first):
    second = go(Path(first.run.root), {"experiment": experiment("bb", "a"), "rows": "4"})
    expected = {name: "checked" if name in ("plan", "fan-out") else "cached" for name in states(first)}
    assert states(second) == expected
    assert second.run.every_step_cached
    assert second.outputs.members == first.outputs.members
    assert second.run.seconds < 10


def test_a_new_member_runs_alone(first):
    third = go(Path(first.run.root), {"experiment": experiment("bb", "ccc"), "rows": "4"})
    assert states(third)["train-bb"] == states(third)["evaluate-bb"] == states(third)["ingest"] == "cached"
    assert states(third)["train-ccc"] == states(third)["publish"] == "done"
    assert not third.run.every_step_cached


def test_without_cache_everything_runs_and_is_cached_anew(tmp_path):
    arguments = {"rows": "4", "seconds": "0"}
    old = go(tmp_path, arguments, SINGLE)
    new = go(tmp_path, arguments, SINGLE, use_cache=False)
    after = go(tmp_path, arguments, SINGLE)
    uris = [next(iter(result.steps)).outputs["examples"]["uri"] for result in (old, new, after)]
    assert states(new) == {"ingest": "done"}
    assert states(after) == {"ingest": "cached"}
    assert uris[0] != uris[1] == uris[2]


def test_a_damaged_artifact_is_made_again(tmp_path):
    arguments = {"rows": "4", "seconds": "0"}
    result = go(tmp_path, arguments, SINGLE)
    damages = {
        "a missing file": lambda folder: (folder / "rows.txt").unlink(),
        "a shorter file": lambda folder: (folder / "rows.txt").write_text("x"),
        "no folder": shutil.rmtree,
    }
    for name, damage in damages.items():
        damage(Path(next(iter(result.steps)).outputs["examples"]["uri"]))
        result = go(tmp_path, arguments, SINGLE)
        assert states(result) == {"ingest": "done"}, name


def test_a_mistake_keeps_its_code_its_log_and_its_report(tmp_path):
    result = go(tmp_path, {"rows": "-1", "seconds": "0"}, SINGLE)
    step = next(iter(result.steps))
    assert result.run.status == run_record.FAILED and not result.succeeded
    assert step.error["code"] == "empty-input"
    assert step.error["message"] == "source.sql: got -1 rows; ask for more rows."
    assert "error [empty-input]" in step.log.read_text()
    assert [path.name for path in result.outputs.reports] == ["ingest-report.html"]
    assert [path.name for path in tmp_path.glob("artifacts/*/ingest/*")] == ["report"]


def test_a_defect_has_no_code_and_its_traceback_is_in_the_log(tmp_path):
    step = next(iter(go(tmp_path, {"rows": "13", "seconds": "0"}, SINGLE).steps))
    assert step.error["code"] is None and step.error["message"] == "exit code 1"
    assert "ValueError: a defect, not a mistake" in step.log.read_text()


def test_a_failed_member_does_not_stop_the_others_but_the_run(tmp_path):
    result = go(tmp_path, {"experiment": experiment("aa", "bad", "greedy")})
    assert states(result)["train-aa"] == states(result)["evaluate-aa"] == "done"
    assert states(result)["publish"] == "skipped"
    errors = {step.name: step.error for step in result.steps.failed()}
    assert errors["train-bad"]["code"] == "training-diverged"
    assert errors["train-greedy"]["code"] is None and "137" in errors["train-greedy"]["message"]
    again = go(tmp_path, {"experiment": experiment("aa", "bad", "greedy")})
    assert states(again)["train-aa"] == "cached" and states(again)["train-bad"] == "failed"


def test_parameters_that_are_too_long_are_a_mistake(tmp_path):
    result = go(tmp_path, {"experiment": experiment("aa")[:-1] + f', "description": "{"x" * 140_000}"}}'})
    assert result.steps.failed()[0].error["code"] == "unsupported"
    assert "128 KiB" in result.steps.failed()[0].error["message"]


def test_another_run_may_use_the_root(tmp_path):
    facts = {"experiment": "e", "pipeline": "p", "file": "f", "arguments_fingerprint": "0", "temporary": ""}
    with run_record.record_run(tmp_path, **facts) as other:
        assert go(tmp_path, {"rows": "1", "seconds": "0"}, SINGLE).succeeded
        assert {run.id: run.status for run in run_record.list_runs(tmp_path)}[other.id] == "running"
    assert sorted(run.status for run in run_record.list_runs(tmp_path)) == ["failed", "succeeded"]


def test_arguments_are_read_by_their_types():
    kinds = {"a": "STRING", "b": "NUMBER_INTEGER", "c": "NUMBER_DOUBLE", "d": "BOOLEAN", "e": "LIST", "f": "STRUCT"}
    spec = {"root": {"inputDefinitions": {"parameters": {n: {"parameterType": k} for n, k in kinds.items()}}}}
    texts = {"a": "1", "b": "1", "c": "1", "d": "true", "e": "[1]", "f": '{"g": 1}', "experiment": "left out"}
    assert typed_arguments(spec, texts) == {"a": "1", "b": 1, "c": 1.0, "d": True, "e": [1], "f": {"g": 1}}
    for name, wrong in [("b", "1.5"), ("b", "true"), ("c", "x"), ("d", "1"), ("e", "{}"), ("f", "[]")]:
        with pytest.raises(TidemillError) as error:
            typed_arguments(spec, {**texts, name: wrong})
        assert error.value.code is Code.INVALID_VALUE and name in error.value.where
    with pytest.raises(TidemillError, match="no value of 'f'"):
        typed_arguments(spec, {name: text for name, text in texts.items() if name != "f"})
    with pytest.raises(TidemillError, match="did you mean 'label'"):
        typed_arguments({"root": {"inputDefinitions": {"parameters": {"label": kinds}}}}, {"lable": "x"})


def test_observers_see_each_change_once(tmp_path):
    seen = []
    for _ in range(2):
        go(tmp_path, {"rows": "1", "seconds": "0"}, SINGLE, on_change=lambda step: seen.append(step.state))
    assert seen == [State.RUNNING, State.DONE, State.CACHED]
