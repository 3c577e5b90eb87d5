"""The commands, called as the console does."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.local.toy_pipelines import SINGLE, TOY
from tidemill.cli import run_display
from tidemill.cli.main import main
from tidemill.experiment import parse
from tidemill.local import definitions
from tidemill.local.step_states import State, Steps

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights" / "experiment.yaml"


def write(folder: Path, *members: str, table: str = "pkg://tidemill/errors.py") -> str:
    models = ", ".join(f"{{family: gbdt, name: {name}}}" for name in members)
    file = folder / "toy.yaml"
    data = f"name: toy\nsource: {{tables: {{t: '{table}'}}}}\nlabel: y\nfeatures: {{x: {{kind: numeric}}}}\n"
    file.write_text(f"{data}models: [{models}]\n")
    return str(file)


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Makes the toy the pipeline that `tidemill run` runs."""
    monkeypatch.setattr(definitions, "find_pipeline", lambda name: {"train": TOY, "single": SINGLE}[name])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_full_disk_ends_with_2_and_a_sentence():
    # The device on which writing fails as on a full disk.
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "tidemill.cli.main", "schema"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert re.fullmatch(r"error \[unusable-path\] .* no space left on device; free space .*\.\n", ended.stderr)


class TestValidate:
    def test_a_valid_file_is_summed_up_in_a_line(self, capsys):
        assert main(["validate", str(FLIGHTS)]) == 0
        out = capsys.readouterr().out
        assert re.fullmatch(r"ok: flights: 3 tables, label late, \d+ features, models dcn_v2, gbdt\n", out)

    def test_a_mistake_ends_with_2_and_a_sentence(self, tmp_path, capsys):
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
    def test_local_files_must_exist(self, tmp_path, capsys, table, code):
        assert main(["validate", write(tmp_path, "a", table=table)]) == 2
        assert capsys.readouterr().err.startswith(f"error [{code}] ")

    def test_remote_files_are_not_looked_at(self, tmp_path):
        assert main(["validate", write(tmp_path, "a", table="gs://bucket/x.csv")]) == 0

    def test_globs_and_members_of_archives(self, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.zip").touch()
        assert main(["validate", write(tmp_path, "a", table="data/*.zip")]) == 0
        assert main(["validate", write(tmp_path, "a", table="data/a.zip#inner.csv")]) == 0

    def test_resolved_is_what_a_pipeline_takes(self, capsys):
        assert main(["validate", "--resolved", str(FLIGHTS)]) == 0
        experiment = parse(capsys.readouterr().out)
        assert experiment.source.sql.startswith("--") and "SELECT" in experiment.source.sql

    def test_it_imports_nothing_heavy(self):
        heavy = ["kfp", "tensorflow", "apache_beam", "duckdb", "pyarrow", "lightgbm"]
        program = f"""
import sys
from tidemill.cli.main import main
assert main(["validate", {str(FLIGHTS)!r}]) == 0
assert not set({heavy}) & set(sys.modules), set({heavy}) & set(sys.modules)
"""
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_schema(tmp_path, capsys):
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert main(["schema", "-o", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text()) == printed
    assert "models" in printed["properties"]
    assert main(["schema", "-o", str(tmp_path / "no" / "s.json")]) == 2


class TestRun:
    def test_first_and_second_run(self, toy, capsys):
        file = write(toy, "aa", "bbb")
        assert main(["run", file, "--param", "rows=4"]) == 0
        out = capsys.readouterr().out
        assert re.search(r"^ingest +started: first run$", out, re.M) and re.search(r"^train-bbb +done  \d", out, re.M)
        assert re.search(r"^bbb +0.3000 +passed$", out, re.M)
        assert re.search(r"^published +\.tidemill/models/toy \(aa\)$", out, re.M)
        assert re.search(r"^report +\.tidemill/runs/[\d-]+/reports/evaluate-bbb-report\.html$", out, re.M)
        assert "every step was cached" not in out
        assert main(["run", file, "--param", "rows=4"]) == 0
        out = capsys.readouterr().out
        assert re.search(r"^plan +checked", out, re.M) and re.search(r"^ingest +cached$", out, re.M)
        assert re.search(r"^every step was cached; \d+\.\d s$", out, re.M)
        assert main(["run", file, "--param", "rows=4", "--no-cache"]) == 0
        assert "cached" not in capsys.readouterr().out

    @pytest.mark.parametrize("root", ["gs://bucket/root", "", "file", "file/below", "/proc/no/such/folder"])
    def test_a_root_that_cannot_be(self, toy, capsys, root):
        (toy / "file").touch()
        file = write(toy, "a")
        before = sorted(toy.iterdir())
        assert main(["run", file, "--root", root]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error [invalid-value] --root: got ") and captured.out == ""
        assert sorted(toy.iterdir()) == before

    def test_a_root_that_is_a_file_has_no_runs(self, toy, capsys):
        (toy / "file").touch()
        assert main(["runs", "list", "--root", "file"]) == 2
        assert "which is not a folder" in capsys.readouterr().err

    def test_the_gates_that_failed_are_listed(self, toy, capsys):
        assert main(["run", write(toy, "aa", "b")]) == 0
        out = capsys.readouterr().out
        assert re.search(r"^model +auc +gates\naa +0.2000 +passed\nb +0.1000 +failed\nb: auc 0.1 < 0.2$", out, re.M)

    def test_a_mistake_in_a_step(self, toy, capsys):
        assert main(["run", write(toy, "a"), "--param", "rows=-1"]) == 2
        captured = capsys.readouterr()
        assert "error [empty-input] source.sql: got -1 rows; ask for more rows.\n" in captured.err
        assert re.search(r"^step +ingest$", captured.err, re.M)
        assert re.search(r"^log +\.tidemill/runs/[\d-]+/steps/ingest\.log$", captured.err, re.M)
        assert "  | error [empty-input]" in captured.err
        assert re.search(r"^report +.*ingest-report.html$", captured.err, re.M)

    def test_a_defect_in_a_step_shows_the_end_of_its_log(self, toy, capsys):
        assert main(["run", write(toy, "a"), "--param", "rows=13"]) == 1
        err = capsys.readouterr().err
        assert "error: exit code 1\n" in err and "  | ValueError: a defect, not a mistake\n" in err
        assert err.count("\n  | ") <= 20

    def test_mistakes_and_defects_together_are_a_defect(self, toy, capsys):
        assert main(["run", write(toy, "bad", "greedy")]) == 1
        err = capsys.readouterr().err
        assert "error [training-diverged]" in err and "too little memory" in err

    def test_a_step_that_finds_its_input_incomplete_hints_at_no_cache(self, toy, capsys):
        file = write(toy, "a")
        assert main(["run", file]) == 0
        examples = next(toy.glob(".tidemill/artifacts/*/ingest/examples"))
        (examples / "manifest.json").unlink()
        Path(file).write_text(Path(file).read_text().replace("name: a}", "name: new}"))
        capsys.readouterr()
        assert main(["run", file]) == 2
        err = capsys.readouterr().err
        assert "error [incomplete-artifact]" in err and "--no-cache" in err

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["--param", "rows"], "invalid-value"),
            (["--param", "rows=many"], "invalid-value"),
            (["--param", "rowz=1"], "unknown-key"),
            (["--param", "root=x"], "invalid-value"),
        ],
    )
    def test_wrong_parameters(self, toy, capsys, arguments, code):
        assert main(["run", write(toy, "a"), *arguments]) == 2
        assert f"error [{code}] --param" in capsys.readouterr().err

    def test_an_unknown_pipeline(self, tmp_path, capsys):
        assert main(["run", write(tmp_path, "a"), "--pipeline", "trian", "--root", str(tmp_path / "r")]) == 2
        assert "did you mean 'train'" in capsys.readouterr().err
        assert not (tmp_path / "r").exists()

    def test_nothing_of_kfp_reaches_the_terminal(self, toy, capfd):
        assert main(["run", write(toy, "a")]) == 0
        captured = capfd.readouterr()
        assert captured.err == ""
        assert "kfp" not in captured.out.lower() and "executor" not in captured.out and "Warning" not in captured.out


class TestRunsAndReport:
    def test_without_runs(self, toy, capsys):
        assert main(["runs", "list"]) == 0
        assert "no runs in .tidemill" in capsys.readouterr().out
        assert main(["runs", "show"]) == 2 and main(["report"]) == 2

    def test_list_show_and_report(self, toy, capsys):
        file = write(toy, "aa")
        main(["run", file])
        main(["run", file, "--param", "rows=-1"])
        capsys.readouterr()
        assert main(["runs", "list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in lines] == ["status", "failed", "succeeded"]
        newest, first = (line.split()[0] for line in lines[1:])
        assert main(["runs", "show"]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"run {newest}: failed") and "error [empty-input] source.sql" in out
        assert main(["runs", "show", first, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "succeeded"
        assert main(["report", first]) == 0
        paths = capsys.readouterr().out.split()
        assert [Path(path).name for path in paths] == ["ingest-report.html", "evaluate-aa-report.html"]
        assert all("<p>" in Path(path).read_text() for path in paths)

    def test_open_asks_the_browser(self, toy, monkeypatch):
        opened = []
        monkeypatch.setattr("webbrowser.open", opened.append)
        main(["run", write(toy, "aa"), "--pipeline", "single", "--param", "rows=1", "--param", "seconds=0"])
        assert main(["report", "--open"]) == 0
        assert len(opened) == 1 and opened[0].startswith("file:///") and opened[0].endswith(".html")


class TestCompile:
    @pytest.fixture
    def copy(self, tmp_path, monkeypatch):
        """The sources with a folder of their own for what is generated."""
        real = definitions.definitions()

        def sources():
            return [replace(s, folder=tmp_path / f"{s.kind}s" / s.name) for s in real]

        for source, moved in zip(real, sources(), strict=True):
            moved.folder.mkdir(parents=True)
            moved.readme.write_text(source.readme.read_text())
        monkeypatch.setattr("tidemill.cli.compile_command.definitions", sources)
        return tmp_path

    def test_check_names_what_is_not_current(self, copy, capsys):
        assert main(["compile", "--check", "ingest"]) == 1
        assert "components/ingest/component.yaml" in capsys.readouterr().out
        assert not (copy / "components/ingest/component.yaml").exists()
        assert main(["compile", "ingest"]) == 0
        assert main(["compile", "--check", "ingest"]) == 0
        compiled = copy / "components/ingest/component.yaml"
        compiled.write_text(compiled.read_text() + "\n")
        assert main(["compile", "--check", "ingest"]) == 1

    def test_compiling_twice_gives_the_same(self, copy, capsys):
        assert main(["compile"]) == 0
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        assert main(["compile"]) == 0
        assert capsys.readouterr().out.endswith("everything is current\n")
        assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before

    def test_an_unknown_name(self, copy, capsys):
        assert main(["compile", "ingset"]) == 2
        assert "did you mean 'ingest'" in capsys.readouterr().err


def test_help_and_usage(capsys):
    for command in ([], ["validate"], ["schema"], ["run"], ["report"], ["runs"], ["runs", "list"], ["compile"]):
        with pytest.raises(SystemExit) as raised:
            main([*command, "--help"])
        assert raised.value.code == 0
    with pytest.raises(SystemExit) as raised:
        main(["fly"])
    assert raised.value.code == 2


def test_a_closed_pipe_is_no_traceback(tmp_path):
    command = f"{sys.executable} -m tidemill.cli.main schema | head -1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ended.stderr == "" and ended.stdout == "{\n"


def test_the_live_table_shows_states_bars_and_rates(tmp_path):
    task = {"componentRef": {"name": "c"}, "cachingOptions": {"enableCache": True}}
    dag = {"tasks": {"ingest": task, "train": {**task, "dependentTasks": ["ingest"]}}}
    steps = Steps({"root": {"dag": dag}, "components": {"c": {}}}, tmp_path)
    console = Console(width=100, record=True, file=io.StringIO())
    live = run_display.LiveTable(console)
    step = steps.begin("ingest", "", None)
    steps.run(step)
    step.progress_file.write_text(
        '{"seconds": 0, "what": "read"}\n{"seconds": 2.0, "rows": 5000, "total": 10000, "what": "read"}\n'
    )
    console.print(live.table(steps))
    text = console.export_text()
    assert re.search(r"ingest +running +0\.\d s +━+.* +2,500 +read", text)
    assert re.search(r"train +waiting", text)
    steps.end(step, State.FAILED, {}, {"code": None, "message": "", "details": {}})
    console.print(live.table(steps))
    assert re.search(r"ingest +failed", console.export_text())


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s")]
)
def test_duration(seconds, text):
    assert run_display.duration(seconds) == text
