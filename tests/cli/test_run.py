"""The commands `tidemill run`, `tidemill runs` and `tidemill report`, with toy pipelines."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.toy_experiment import write
from tests.local.toy_pipelines import SINGLE, TOY
from tidemill.cli.main import main
from tidemill.cli.short_paths import short_path
from tidemill.local import definitions

pytestmark = pytest.mark.process
ONE_STEP = ["--pipeline", "single", "--param", "seconds=0"]


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A working directory in which `tidemill run` runs toy pipelines."""
    monkeypatch.setattr(definitions, "find_pipeline", lambda name: {"train": TOY, "single": SINGLE}[name])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_again_from_the_cache_or_without_it(toy, capfd):
    file = write(toy, "aa", "b")
    assert main(["run", file, "--param", "rows=4"]) == 0
    out, err = capfd.readouterr()
    assert re.search(r"^ingest +started: first run$", out, re.M) and re.search(r"^train-aa +done  \d", out, re.M)
    assert re.search(
        r"^model +valid auc +auc +gates\naa +0.7000 +0.2000 +passed\nb +0.7000 +0.1000 +failed\nb: auc 0.1 < 0.2$",
        out,
        re.M,
    )
    assert "\ndecided      aa by auc on the valid split, 0.7000, the only model that passed on the test split\n" in out
    assert re.search(r"^published +\.tidemill/models/toy \(aa\)$", out, re.M)
    assert re.search(r"^report +\.tidemill/runs/[\d-]+/reports/evaluate-b-report\.html$", out, re.M)
    assert "every step was cached" not in out
    # Nothing of kfp.
    assert err == "" and "kfp" not in out.lower() and "executor" not in out and "Warning" not in out
    assert main(["run", file, "--param", "rows=4"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"^plan +checked", out, re.M) and re.search(r"^ingest +cached$", out, re.M)
    assert re.search(r"^published +\.tidemill/models/toy \(aa, by an earlier run\)$", out, re.M)
    assert re.search(r"^every step was cached; \d+\.\d s$", out, re.M)
    assert main(["run", file, "--param", "rows=4", "--no-cache"]) == 0
    assert "cached" not in capfd.readouterr().out


@pytest.mark.parametrize("root", ["gs://bucket/root", "", "file", "file/below", "/proc/no/such/folder"])
def test_rejects_a_root_that_is_not_a_folder(toy, capsys, root):
    (toy / "file").touch()
    file = write(toy, "a")
    before = sorted(toy.iterdir())
    assert main(["run", file, "--root", root]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error [invalid-value] --root: got ") and captured.out == ""
    assert sorted(toy.iterdir()) == before


def test_rejects_a_file_as_the_root_of_runs(toy, capsys):
    (toy / "file").touch()
    assert main(["runs", "list", "--root", "file"]) == 2
    assert "which is not a folder" in capsys.readouterr().err


def test_a_mistake_in_a_step_exits_with_2_and_names_the_step(toy, capsys):
    assert main(["run", write(toy, "a"), *ONE_STEP, "--param", "rows=-1"]) == 2
    captured = capsys.readouterr()
    assert "error [empty-input] source.sql: got -1 rows; ask for more rows.\n" in captured.err
    assert re.search(r"^step +ingest$", captured.err, re.M)
    assert re.search(r"^log +\.tidemill/runs/[\d-]+/steps/ingest\.log$", captured.err, re.M)
    assert "  | error [empty-input]" in captured.err
    assert re.search(r"^report +.*ingest-report.html$", captured.err, re.M)


def test_a_defect_in_a_step_exits_with_1_and_prints_the_end_of_its_log(toy, capsys):
    assert main(["run", write(toy, "a"), *ONE_STEP, "--param", "rows=13"]) == 1
    err = capsys.readouterr().err
    assert "error: exit code 1\n" in err and "  | ValueError: a defect, not a mistake\n" in err
    assert err.count("\n  | ") <= 20


def test_a_mistake_and_a_defect_exit_with_1(toy, capsys):
    assert main(["run", write(toy, "bad", "greedy")]) == 1
    err = capsys.readouterr().err
    assert "error [training-diverged]" in err and "too little memory" in err


def test_an_incomplete_artifact_prints_a_hint_at_no_cache(toy, capsys):
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
def test_rejects_wrong_parameters(toy, capsys, arguments, code):
    assert main(["run", write(toy, "a"), *arguments]) == 2
    assert f"error [{code}] --param" in capsys.readouterr().err


def test_rejects_an_unknown_pipeline(tmp_path, capsys):
    assert main(["run", write(tmp_path, "a"), "--pipeline", "trian", "--root", str(tmp_path / "r")]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_root_without_runs(toy, capsys):
    assert main(["runs", "list"]) == 0
    assert "no runs in .tidemill" in capsys.readouterr().out
    assert main(["runs", "show"]) == 2 and main(["report"]) == 2


def test_lists_and_shows_runs_and_their_reports(toy, capsys):
    file = write(toy, "aa")
    main(["run", file, *ONE_STEP, "--param", "rows=1"])
    main(["run", file, *ONE_STEP, "--param", "rows=-1"])
    capsys.readouterr()
    assert main(["runs", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["status", "failed", "succeeded"]
    assert not any("auc" in line for line in lines)
    newest, first = (line.split()[0] for line in lines[1:])
    assert main(["runs", "show"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"run {newest}: failed") and "error [empty-input] source.sql" in out
    assert main(["runs", "show", first, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "succeeded"
    assert main(["report", first]) == 0
    paths = capsys.readouterr().out.split()
    assert [Path(path).name for path in paths] == ["ingest-report.html"]
    assert all("<p>" in Path(path).read_text() for path in paths)


def test_runs_are_listed_and_shown_with_metrics(toy, capsys):
    file = write(toy, "aa", "b")
    main(["run", file])
    main(["run", write(toy, "c")])
    capsys.readouterr()
    assert main(["runs", "list"]) == 0
    _, second, first = capsys.readouterr().out.splitlines()
    assert re.search(r" aa +auc 0\.7000  auc 0\.2000$", first) and re.search(r" c, not published +auc 0\.7", second)
    assert main(["runs", "show", first.split()[0]]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^aa +0.7000 +0.2000 +passed$", out, re.M) and "\ndecided: aa by auc on the valid split" in out
    assert re.search(r"^ingest +done +\d+\.\d +\.tidemill/runs/[\d-]+/steps/ingest\.log$", out, re.M)
    assert re.search(r"^report +\.tidemill/runs/[\d-]+/reports/", out, re.M)


def test_records_of_earlier_versions_are_listed(toy, capsys):
    main(["run", write(toy, "aa"), *ONE_STEP, "--param", "rows=1"])
    (record,) = toy.glob(".tidemill/runs/*/run.json")
    data = json.loads(record.read_text())
    record.write_text(json.dumps({key: value for key, value in data.items() if key not in ("members", "published")}))
    capsys.readouterr()
    assert main(["runs", "list"]) == 0 and main(["runs", "show"]) == 0
    assert "succeeded" in capsys.readouterr().out


def test_paths_are_relative_where_that_is_shorter(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "a" / "b") == "a/b" and short_path(tmp_path.parent / "b") == "../b"
    root = str(tmp_path.parent.parent / "other" / "folder" / "root")
    assert short_path(f"{root}/runs/7", root) == "ROOT/runs/7" and short_path(tmp_path / "b", str(tmp_path)) == "b"
    assert short_path("/x") == "/x" and short_path("gs://bucket/x") == "gs://bucket/x" and short_path("") == ""


def test_open_shows_the_report_in_the_browser(toy, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    main(["run", write(toy, "aa"), *ONE_STEP, "--param", "rows=1"])
    assert main(["report", "--open"]) == 0
    assert len(opened) == 1 and opened[0].startswith("file:///") and opened[0].endswith(".html")
