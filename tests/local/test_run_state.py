"""Steps, progress, records and compiled sources, without running anything."""

import json
import subprocess
import sys

import pytest
from kfp import compiler
from kfp.local.orchestrator import task_executor

from tests.local.toy_pipelines import TOY
from tidemill.errors import Code, TidemillError
from tidemill.local import definitions, pipeline_runner, run_record
from tidemill.local.execution import typed_arguments
from tidemill.local.progress_reader import ProgressReader, StepProgress
from tidemill.local.step_states import State, Steps, iteration_label


@pytest.fixture
def steps(tmp_path):
    import yaml

    compiler.Compiler().compile(TOY.definition, str(tmp_path / "toy.yaml"))
    return Steps(yaml.safe_load((tmp_path / "toy.yaml").read_text()), tmp_path / "steps")


def names(steps: Steps) -> list[str]:
    return [step.name for step in steps]


def test_steps_are_listed_in_pipeline_order(steps):
    assert names(steps) == ["plan", "fan-out", "ingest", "train", "evaluate", "publish"]
    assert [step.cacheable for step in steps] == [False, False, True, True, True, True]


def test_iterations_take_the_place_of_their_task_in_the_loops_order(steps):
    steps.start("train", "for-loop-1-iteration-10", "k")
    steps.start("train", "for-loop-1-iteration-2", "c")
    steps.start("evaluate", "for-loop-1-iteration-10", "k")
    steps.start("train", "for-loop-1-iteration-0", None)
    steps.start("evaluate", "for-loop-1-iteration-2", "c")
    expected = ["plan", "fan-out", "ingest", "train-1-0", "train-c", "train-k", "evaluate-c", "evaluate-k", "publish"]
    assert names(steps) == expected


def test_equal_labels_get_names_of_their_own(steps):
    for number in range(3):
        steps.start("train", f"for-loop-1-iteration-{number}", "same")
    assert [name for name in names(steps) if name.startswith("train")] == ["train-same", "train-same-2", "train-same-3"]


def test_a_run_is_cached_when_all_that_can_be_is(steps):
    assert not steps.all_cached()
    for task in ("plan", "fan-out", "ingest", "train", "evaluate"):
        step = steps.start(task, "", None)
        steps.end(step, State.CACHED if step.cacheable else State.CHECKED)
    assert not steps.all_cached()
    steps.end(steps.start("publish", "", None), State.CACHED)
    assert steps.all_cached()


@pytest.mark.parametrize(
    ("item", "label"),
    [
        ({"name": "dcn_v2", "train": "{}"}, "dcn_v2"),
        ('{"name": "a b/c"}', "a-b-c"),
        ({"model": {"name": "x"}}, "x"),
        ("month-12", "month-12"),
        ({"train": "{}"}, None),
        ("x" * 41, None),
        ([1, 2], None),
        (None, None),
        (7.0, "7.0"),
        ("", None),
    ],
)
def test_item_label(item, label):
    assert iteration_label(item) == label


def test_progress_is_read_from_where_it_stopped(tmp_path):
    file = tmp_path / "progress.jsonl"
    reader = ProgressReader(file)
    assert reader.read() == StepProgress()
    with open(file, "w") as out:

        def write(text: str) -> StepProgress:
            out.write(text)
            out.flush()
            return reader.read()

        first = '{"seconds": 1.0, "what": "read"}\n'
        first += '{"seconds": 3.0, "rows": 100, "total": 400, "step_rows": 100, "what": "read"}\n{"sec'
        assert write(first) == StepProgress("read", 100, 400, 100)
        assert reader.read().share() == 0.25
        rest = 'onds": 4.0, "rows": 300, "total": 400, "step_rows": 300, "what": "read"}\n'
        assert write(rest) == StepProgress("read", 300, 400, 300)
        again = '{"seconds": 5.0, "rows": 10, "total": null, "step_rows": 300, "what": "write"}\n'
        assert write(again) == StepProgress("write", 10, None, 300)
        assert reader.read().share() is None
        # Columns are no rows.
        columns = '{"seconds": 8.0, "rows": 900, "total": 0, "what": "columns"}\n'
        assert write(columns) == StepProgress("columns", 900, 0, 300)
        metrics = '{"seconds": 9.0, "metrics": "AUC 0.7000 valid", "what": "epoch 2/3"}\n'
        assert write(metrics) == StepProgress("columns", 900, 0, 300, "AUC 0.7000 valid")
        assert write('{"seconds": 9.5, "what": "export"}\n') == StepProgress(
            "export", rows=300, metrics="AUC 0.7000 valid"
        )


FACTS = {"experiment": "e", "pipeline": "p", "file": "f", "arguments_fingerprint": "0", "temporary": ""}


def test_runs_are_found_by_the_beginning_of_their_id(tmp_path):
    with pytest.raises(TidemillError, match="without runs"):
        run_record.find_run(tmp_path, None)
    ids = []
    for _ in range(3):
        with run_record.record_run(tmp_path, **FACTS) as run:
            ids.append(run.id)
            run_record.finish_run(run, run_record.SUCCEEDED)
    assert len(set(ids)) == 3
    assert [run.id for run in run_record.list_runs(tmp_path)] == sorted(ids, reverse=True)
    assert run_record.find_run(tmp_path, None).id == max(ids)
    assert run_record.find_run(tmp_path, ids[0]).id == ids[0]
    for wanted in ("1999", ids[0][:4]):
        with pytest.raises(TidemillError, match=ids[0]) as raised:
            run_record.find_run(tmp_path, wanted)
        assert raised.value.code is Code.NO_RUN


def test_a_run_that_raises_has_failed_and_one_whose_process_is_gone_was_interrupted(tmp_path):
    with pytest.raises(ValueError), run_record.record_run(tmp_path, **FACTS) as run:
        raise ValueError
    assert run_record.find_run(tmp_path, run.id).status == "failed"
    written = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**written, "status": "running"}))
    assert run_record.find_run(tmp_path, run.id).status == "interrupted"


def test_an_unreadable_record_is_named(tmp_path):
    with run_record.record_run(tmp_path, **FACTS) as run:
        pass
    (run.folder / "run.json").write_text("{")
    with pytest.raises(TidemillError, match=r"run\.json") as raised:
        run_record.list_runs(tmp_path)
    assert raised.value.code is Code.UNREADABLE_FILE


def test_discovers_components_and_pipelines():
    found = {(definition.kind, definition.name) for definition in definitions.definitions()}
    assert {("component", "ingest"), ("component", "train"), ("pipeline", "train"), ("pipeline", "fold")} <= found
    assert definitions.find_pipeline("train").kind == "pipeline"
    with pytest.raises(TidemillError, match="did you mean 'train'"):
        definitions.find_pipeline("tain")


def test_nested_pipelines_do_not_run_by_themselves():
    names = definitions.pipeline_names()
    assert names == ["batch_predict", "cross_validate", "train"]
    with pytest.raises(TidemillError, match=f"use one of {', '.join(names)}"):
        definitions.find_pipeline("member")


def test_another_kfp_is_refused(monkeypatch):
    pipeline_runner.check_kfp()
    monkeypatch.setattr(task_executor, "execute_single_task", lambda task_name: None)
    with pytest.raises(TidemillError, match=r"install kfp==2\.17\.0") as raised:
        pipeline_runner.check_kfp()
    assert raised.value.code is Code.UNSUPPORTED and "execute_single_task" in raised.value.got


def test_light_commands_import_nothing_heavy():
    modules = ["tidemill.cli.main", "tidemill.cli.validate_command", "tidemill.cli.runs_command"]
    code = f"import sys, {', '.join(modules)}; print(sorted({{m.partition('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"kfp", "tensorflow", "duckdb", "numpy", "pyarrow", "gcsfs", "rich", "jinja2"}
    assert not heavy & set(eval(loaded))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": "2", "rowz": "1"}, "parameters: got the unknown parameter 'rowz'; did you mean 'rows'."),
        ({"rows": "many"}, "parameters rows: got 'many'; give an integer."),
        ({}, "parameters: got no value of 'rows'; give rows a value."),
    ],
)
def test_mistakes_in_arguments_name_where_they_were_given(arguments, message):
    spec = {"root": {"inputDefinitions": {"parameters": {"rows": {"parameterType": "NUMBER_INTEGER"}}}}}
    with pytest.raises(TidemillError) as error:
        typed_arguments(spec, arguments, "parameters")
    assert str(error.value) == message
