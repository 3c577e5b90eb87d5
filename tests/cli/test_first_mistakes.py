"""Mistakes of a user's first hour: `tidemill validate --data` answers each at once, with a remedy that works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.cli.main import main
from tidemill.experiment import parse
from tidemill.local import docker_engine
from tidemill.local.run_checks import missing_gpu

EXPERIMENT = """\
name: d
source: {tables: {d: d.csv}}
label: y
key: [id]
features:
  x: {kind: numeric}
  c: {kind: categorical}
models:
  - {family: gbdt}
"""
HEADER = "id,x,c,y"
LINES = [f"{i},{i / 2},w{i % 3},{i % 2}" for i in range(60)]
SQL = "{tables: {d: d.csv}, sql: 'SELECT"
MISTAKES = {
    "a column in another case": ("  x: {kind", "  X: {kind", "[missing-column]", "did you mean 'x'."),
    "a misspelled column": ("  x: {kind", "  xx: {kind", "[missing-column]", "did you mean 'x'."),
    "a label with three values": ("d.csv", "three.csv", "[label-type] label 'y': got the value 2", "make it 0 and 1"),
    "a label of words": ("d.csv", "words.csv", "such as 'n', 'y'", "make it 0 and 1, or false and true, in the query"),
    "a missing file": ("d.csv", "dd.csv", "[missing-file] source.tables.d", "did you mean 'd.csv'."),
    "a folder of the user": ("d.csv", "~/d.csv", "[missing-file] source.tables.d", "write the path in full"),
    "a spreadsheet": ("d.csv", "d.xlsx", "[invalid-value] source.tables.d.format", "export the sheet as CSV"),
    "a file without rows": ("d.csv", "header.csv", "[empty-input] source.tables", "check the files"),
    "a tab": ("  x: {kind", "\tx: {kind", "e.yaml, line 6", "indent with spaces instead of tabs."),
    "no space after a colon": ("label: y", "label:y", "e.yaml, line 4", "with a space after the colon"),
    "a key that is not unique": ("d.csv", "double.csv", "[duplicate-key] key id", "add a column that distinguishes"),
    "an unknown family": ("gbdt", "xgboost", "models.0.family: got 'xgboost'", "did you mean 'gbdt'."),
    "a misspelled option": ("gbdt}", "gbdt, num_leafs: 3}", "[unknown-key]", "did you mean 'num_leaves'."),
    "a missing parameter": ("{tables: {d: d.csv}}", f"{SQL} * FROM d WHERE x > $a'}}", "no value for $a", "add a: …"),
    "a misspelled table": ("{tables: {d: d.csv}}", f"{SQL} * FROM dd'}}", "got no table 'dd'", "did you mean 'd'"),
    "a column that the query misspells": (
        "{tables: {d: d.csv}}",
        f"{SQL} id, yy FROM d'}}",
        'column "yy" not found',
        'Candidate bindings: "y"',
    ),
    "a value of a wrong type": ("label: y", "label: y\ntraining: {epochs: many}", "'many'", "write an integer."),
    "percentages": (
        "label: y",
        "label: y\nsplit: {by: hash, fractions: {train: 80, valid: 10, test: 10}}",
        "split.fractions.train: got 80",
        "use 1.0 or less",
    ),
    "a time split without a column": ("label: y", "label: y\nsplit: {by: time}", "split: got", "by: time needs column"),
    "the label as a feature": (
        "  x: {kind",
        "  y: {kind",
        "the label 'y' is also a feature",
        "remove it from features",
    ),
    "a list of features": (
        "features:\n  x: {kind: numeric}\n  c: {kind: categorical}",
        "features: [x, c]",
        'features: got ["x", "c"]',
        "write a mapping",
    ),
    "text as a number": ("c: {kind: categorical}", "c: {kind: numeric}", "such as 'w0', 'w1'", "make the feature cat"),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with data files, right and wrong ones."""
    files = {
        "d.csv": LINES,
        "three.csv": [f"{line[:-1]}{i % 3}" for i, line in enumerate(LINES)],
        "words.csv": [f"{line[:-1]}{'ny'[i % 2]}" for i, line in enumerate(LINES)],
        "double.csv": [f"7{line[line.index(',') :]}" for line in LINES],
        "header.csv": [],
    }
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join([HEADER, *lines]) + "\n")
    (tmp_path / "d.xlsx").write_bytes(b"PK\3\4")
    return tmp_path


def validate(folder: Path, text: str) -> int:
    (folder / "e.yaml").write_text(text)
    return main(["validate", "--data", str(folder / "e.yaml")])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_once_with_its_remedy(folder, capsys, mistake):
    right, wrong, problem, remedy = MISTAKES[mistake]
    assert right in EXPERIMENT
    assert validate(folder, EXPERIMENT.replace(right, wrong)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error [") and captured.err.count("\n") == 1
    assert problem in captured.err and remedy in captured.err


@pytest.mark.parametrize("end", [";", " -- all rows", "; -- all rows", " WHERE c <> '';'' ;;"])
def test_a_query_may_end_as_in_a_file(folder, capsys, end):
    assert validate(folder, EXPERIMENT.replace("{tables: {d: d.csv}}", f"{SQL} * FROM d{end}'}}")) == 0
    assert "  y   BIGINT      label\n" in capsys.readouterr().out


def test_a_gpu_that_the_machine_lacks_is_no_mistake(monkeypatch):
    text = EXPERIMENT.replace("{family: gbdt}", "{family: lr}") + "compute: {train: {gpu: 1}}\n"
    monkeypatch.setattr(docker_engine, "_GPU_DEVICES", [])
    assert missing_gpu(parse(text)).startswith("compute.train.gpu is for clusters: this machine has no GPU")
    monkeypatch.setattr(docker_engine, "_GPU_DEVICES", ["/dev/null"])
    assert missing_gpu(parse(text)) == "" == missing_gpu(parse(EXPERIMENT))
