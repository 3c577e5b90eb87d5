"""The commands `validate`, `schema` and `compile`, the display of a run, and the command line as a whole."""

import io
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.toy_experiment import write
from tidemill.cli.main import main
from tidemill.experiment import parse
from tidemill.experiment.placement import STEPS
from tidemill.local import definitions, run_display
from tidemill.local.step_states import State, Steps

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights" / "experiment.yaml"


def test_a_full_disk_exits_with_2_and_one_line():
    # Writing to this device fails as on a full disk.
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "tidemill.cli.main", "schema"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 2
    assert re.fullmatch(r"error \[unusable-path\] .* no space left on device; free space .*\.\n", result.stderr)


class TestValidate:
    def test_prints_a_summary_and_the_resources_of_each_step(self, capsys):
        assert main(["validate", str(FLIGHTS)]) == 0
        summary, heading, *steps = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"ok: flights: 3 tables, label late, \d+ features, models dcn_v2, gbdt", summary)
        assert re.fullmatch(r"on a cluster, for a source of 10,\d{3},\d{3} bytes:", heading)
        assert [line.split()[0] for line in steps] == list(STEPS)
        assert "  train      cpu 1, memory 4Gi (limits: cpu 1, memory 8Gi)" in steps

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, "  x   DOUBLE      numeric feature\n"),
            ({"sql": "SELECT *, if(id >= 0, error('it ran'), 1) AS z FROM d"}, "  z   "),
            ({"sql": "SELECT id, y, length(c) AS x, xx FROM d"}, "error [sql-error] source.sql: got Binder Error"),
            (
                {"feature": "cc"},
                "error [missing-column] features, evaluation.slices: got 'cc', which the query does not",
            ),
            (
                {"feature": "c"},
                "error [feature-type] features.c: got column 'c' of type string with values that are not numbers, "
                "such as 'w0', 'w1', 'w2'; write those that mean a missing value into csv.nullstr",
            ),
            ({"key": "y"}, "error [duplicate-key] key y: got 2 values that occur more than once"),
            ({"label": "c"}, "error [label-type] label 'c': got a column of type VARCHAR"),
            ({"sql": "SELECT *, id % 3 AS z FROM d", "label": "z"}, "error [label-type] label 'z': got the value 2"),
            (
                {"sql": "SELECT *, id > 9 AS z FROM d WHERE x >= 0", "label": "z"},
                "error [label-one-class] label 'z': got the single value false in all rows",
            ),
            ({"sql": "SELECT *, 1 AS z FROM d", "key": "z"}, "error [duplicate-key] key z: got "),
            (
                {"sql": "SELECT d.* FROM d JOIN d e USING (id)"},
                "not checked without running the query: the values of label y\n"
                "not checked without running the query: duplicates of key id\n",
            ),
            ({"predict": "SELECT id, x FROM d"}, "columns of predict.source:\n  id  BIGINT      key\n  x   DOUBLE"),
            ({"predict": "SELECT id, x AS xx FROM d"}, "error [missing-column] predict.source: got no 'x', which the"),
            ({"predict": "SELECT id, [x] AS x FROM d"}, "x is DOUBLE[] here and DOUBLE in training: batch_predict "),
            ({"predict": "SELEC id FROM d"}, "error [sql-error] predict.source.sql: got Parser Error"),
            (
                {"schema": "s.pbtxt"},
                "not checked: validation.schema, except the types of its columns; the step validate",
            ),
        ],
    )
    def test_data_reads_the_tables_and_does_not_run_the_query(self, tmp_path, capsys, changes, expected):
        (tmp_path / "d.csv").write_text("id,x,c,y\n" + "".join(f"{i},{i / 2},w{i},{i % 2}\n" for i in range(8)))
        source = {"tables": {"d": "d.csv"}} | {key: changes[key] for key in ("sql",) if key in changes}
        content = {"name": "d", "source": source, "label": changes.get("label", "y"), "key": [changes.get("key", "id")]}
        content["features"] = {changes.get("feature", "x"): {"kind": "numeric"}}
        if "predict" in changes:
            content["predict"] = {"source": {"tables": {"d": "d.csv"}, "sql": changes["predict"]}}
        if "schema" in changes:
            (tmp_path / "s.pbtxt").write_text('feature { name: "gone" type: INT presence { min_count: 1 } }')
            content["validation"] = {"schema": changes["schema"]}
        (tmp_path / "e.yaml").write_text(json.dumps(content | {"models": [{"family": "gbdt"}]}))
        code = main(["validate", "--data", str(tmp_path / "e.yaml")])
        out, err = capsys.readouterr()
        assert (code, expected in out + err) == (2 if expected.startswith("error") else 0, True), out + err

    def test_a_mistake_exits_with_2_and_one_line(self, tmp_path, capsys):
        file = write(tmp_path, "a")
        Path(file).write_text(Path(file).read_text().replace("label", "lable"))
        assert main(["validate", file]) == 2
        captured = capsys.readouterr()
        assert captured.err == "error [unknown-key] lable: got the unknown key 'lable'; did you mean 'label'.\n"
        assert captured.out == ""

    @pytest.mark.parametrize(
        ("table", "code"),
        [
            ("nothing.csv", "missing-file"),
            ("data/*.csv", "missing-file"),
            ("pkg://tidemill/nothing.csv", "missing-file"),
            ("pkg://no_such_package/x.csv", "missing-package"),
            ("ftp://host/x.csv", "invalid-value"),
        ],
    )
    def test_rejects_missing_local_files(self, tmp_path, capsys, table, code):
        assert main(["validate", write(tmp_path, "a", table=table)]) == 2
        assert capsys.readouterr().err.startswith(f"error [{code}] ")

    def test_names_of_files_may_have_any_character(self, tmp_path, capsys):
        folder = tmp_path / "Data [2024] it''s 100%".replace("''", "'")
        folder.mkdir()
        (folder / "d #1 (a).csv").write_text("id,x,y\n" + "".join(f"{i},{i / 2},{i % 2}\n" for i in range(8)))
        for name in ("Data [2024] it''s 100%/d #1 (a).csv", "Data [[]2024] it''s*/d #? (a).csv"):
            assert main(["validate", "--data", write(tmp_path, "a", table=name)]) == 0
            assert "  x   DOUBLE      numeric feature\n" in capsys.readouterr().out
        assert main(["validate", write(tmp_path, "a", table="Data [2024] it''s 100%/d #2 (a).csv")]) == 2
        assert "d #2 (a).csv\", which matches no file; did you mean 'd #1 (a).csv'" in capsys.readouterr().err

    def test_does_not_open_remote_files(self, tmp_path, capsys):
        assert main(["validate", write(tmp_path, "a", table="gs://bucket/x.csv")]) == 0
        assert "planning sets CPU and memory by the bytes of the source" in capsys.readouterr().out

    def test_accepts_globs_and_members_of_archives(self, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.zip").touch()
        assert main(["validate", write(tmp_path, "a", table="data/*.zip")]) == 0
        assert main(["validate", write(tmp_path, "a", table="data/a.zip#inner.csv")]) == 0

    def test_resolved_prints_the_experiment_with_its_sql(self, capsys):
        assert main(["validate", "--resolved", str(FLIGHTS)]) == 0
        experiment = parse(capsys.readouterr().out)
        assert experiment.source.sql.startswith("--") and "SELECT" in experiment.source.sql

    def test_imports_no_framework(self):
        heavy = ["kfp", "tensorflow", "apache_beam", "pyarrow", "lightgbm"]
        program = f"""
import sys
from tidemill.cli.main import main
assert main(["validate", {str(FLIGHTS)!r}]) == 0
assert not set({heavy}) & set(sys.modules), set({heavy}) & set(sys.modules)
"""
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_schema_is_printed_or_written(tmp_path, capsys):
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert main(["schema", "-o", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text()) == printed
    assert "models" in printed["properties"]
    assert main(["schema", "-o", str(tmp_path / "no" / "s.json")]) == 2


class TestCompile:
    @pytest.fixture
    def copy(self, tmp_path, monkeypatch):
        """Redirects the generated files of all components and pipelines to a temporary folder."""
        real = definitions.definitions()

        def sources():
            return [replace(s, folder=tmp_path / f"{s.kind}s" / s.name) for s in real]

        for source, moved in zip(real, sources(), strict=True):
            moved.folder.mkdir(parents=True)
            moved.readme.write_text(source.readme.read_text())
        monkeypatch.setattr("tidemill.cli.compile_command.definitions", sources)
        return tmp_path

    def test_check_names_stale_files(self, copy, capsys):
        assert main(["compile", "--check", "ingest"]) == 1
        assert "components/ingest/component.yaml" in capsys.readouterr().out
        assert not (copy / "components/ingest/component.yaml").exists()
        assert main(["compile", "ingest"]) == 0
        assert main(["compile", "--check", "ingest"]) == 0
        compiled = copy / "components/ingest/component.yaml"
        compiled.write_text(compiled.read_text() + "\n")
        assert main(["compile", "--check", "ingest"]) == 1

    def test_compiling_twice_writes_the_same_files(self, copy, capsys):
        assert main(["compile"]) == 0
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        assert main(["compile"]) == 0
        assert capsys.readouterr().out.endswith("everything is current\n")
        assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before

    def test_rejects_an_unknown_name(self, copy, capsys):
        assert main(["compile", "ingset"]) == 2
        assert "did you mean 'ingest'" in capsys.readouterr().err


def test_prints_help_and_rejects_an_unknown_command(capsys):
    for command in ([], ["validate"], ["schema"], ["run"], ["report"], ["runs"], ["runs", "list"], ["compile"]):
        with pytest.raises(SystemExit) as raised:
            main([*command, "--help"])
        assert raised.value.code == 0
    with pytest.raises(SystemExit) as raised:
        main(["fly"])
    assert raised.value.code == 2


def test_a_closed_pipe_prints_no_traceback(tmp_path):
    command = f"{sys.executable} -m tidemill.cli.main schema | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.stderr == "" and result.stdout == "{\n"


def test_the_live_table_shows_states_bars_and_rates(tmp_path):
    task = {"componentRef": {"name": "c"}, "cachingOptions": {"enableCache": True}}
    dag = {"tasks": {"ingest": task, "train": {**task, "dependentTasks": ["ingest"]}}}
    steps = Steps({"root": {"dag": dag}, "components": {"c": {}}}, tmp_path)
    console = Console(width=100, record=True, file=io.StringIO())
    live = run_display.LiveTable(console)
    step = steps.start("ingest", "", None)
    steps.mark_running(step)
    step.progress_file.write_text(
        '{"seconds": 0, "what": "read"}\n'
        '{"seconds": 1.0, "rows": 5000, "total": 10000, "step_rows": 5000, "what": "read"}\n'
        '{"seconds": 1.0, "metrics": "AUC 0.7000 valid", "what": "read"}\n'
    )
    step.started = time.monotonic() - 2
    console.print(live.view(steps))
    text = console.export_text()
    assert re.search(r"ingest +running +2\.\d s +━+.* +2,\d\d\d +read", text)
    assert re.search(r"^ingest: AUC 0.7000 valid$", text.rstrip(), re.M)
    # The last phase was quick; the rate is that of the whole time.
    step.progress_file.write_text('{"seconds": 3.2, "rows": 8000, "total": 8000, "step_rows": 8000, "what": "write"}\n')
    step.started = time.monotonic() - 4
    steps.end(step, State.DONE)
    console.print(run_display.LiveTable(console).view(steps))
    rate = re.search(r"ingest +done +4\.\d s +([\d,]+)", console.export_text())
    assert rate is not None and 1900 < int(rate.group(1).replace(",", "")) <= 2000


def test_lines_show_running_steps_and_rates(tmp_path):
    task = {"componentRef": {"name": "c"}, "cachingOptions": {"enableCache": True}}
    steps = Steps({"root": {"dag": {"tasks": {"train": task}}}, "components": {"c": {}}}, tmp_path)
    console = Console(width=200, record=True, file=io.StringIO())
    with run_display.Lines(console, interval_s=0.05).showing(steps):
        step = steps.start("train", "", None)
        steps.mark_running(step)
        step.progress_file.write_text(
            '{"seconds": 1.0, "rows": 50, "total": 100, "step_rows": 5000, "what": "epoch 2/3"}\n'
            '{"seconds": 1.0, "metrics": "log loss 0.6100 train", "what": "epoch 2/3"}\n'
        )
        step.started = time.monotonic() - 2
        deadline = time.monotonic() + 20
        while "log loss" not in (text := console.export_text(clear=False)) and time.monotonic() < deadline:
            time.sleep(0.02)
        steps.end(step, State.DONE)
    assert re.search(r"train +running  2\.\d s, 2,\d\d\d rows/s: epoch 2/3, log loss 0\.6100 train", text)
    assert re.search(r"train +done  2\.\d s, 2,\d\d\d rows/s\n$", console.export_text())
