"""What the containers of a run see of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.samples import EXPERIMENT
from tidemill.experiment import parse
from tidemill.local.container_mounts import Mount, absolute_output, experiment_mounts


def mounts(tables: str, more: str = "", output: str = "") -> list[Mount]:
    text = EXPERIMENT.replace("{clicks: clicks.csv}", tables) + more
    return experiment_mounts(parse(text), output)


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ("{clicks: /data/clicks.csv}", ["/data/clicks.csv"]),
        ("{clicks: 'file:///data/a%20b.csv'}", ["/data/a b.csv"]),
        ("{clicks: '/data/day=*/part-?.parquet'}", ["/data"]),
        ("{clicks: '/data/a.zip#inner/b.csv'}", ["/data/a.zip"]),
        ("{clicks: '/data/a #1.csv'}", ["/data/a #1.csv"]),
        ("{clicks: ['/a/1.csv', '/a/2.csv', '/a/1.csv']}", ["/a/1.csv", "/a/2.csv"]),
        ("{clicks: 'gs://bucket/clicks.csv'}", []),
        ("{clicks: 'pkg://package_of_the_image/clicks.csv'}", []),
    ],
)
def test_tables_are_mounted_for_reading(tables, expected):
    assert mounts(tables) == [Mount(Path(path)) for path in expected]


def test_a_file_whose_name_has_a_wildcard_is_mounted_itself(tmp_path):
    file = tmp_path / "clicks[1].csv"
    file.touch()
    assert mounts(f"{{clicks: '{file}'}}") == [Mount(file)]


def test_everything_else_that_an_experiment_names_is_mounted(tmp_path):
    more = (
        "validation: {schema: /schemas/schema.pbtxt}\ntraining: {warm_start: /models/clicks/3}\n"
        "predict: {source: {tables: {rows: /rows.csv}, sql: SELECT * FROM rows}}\n"
    )
    paths = [mount.source for mount in mounts("{clicks: /clicks.csv}", more)]
    assert paths == [Path(p) for p in ("/clicks.csv", "/rows.csv", "/schemas/schema.pbtxt", "/models/clicks/3")]
    assert mounts("{clicks: /clicks.csv}", "training: {warm_start: previous}\n") == [Mount(Path("/clicks.csv"))]


def test_the_folder_of_the_predictions_is_created_and_writable(tmp_path):
    output = tmp_path / "new" / "predictions"
    assert mounts("{clicks: 'gs://b/c.csv'}", output=str(output)) == [Mount(output.parent, writable=True)]
    assert output.parent.is_dir() and not output.exists()
    assert mounts("{clicks: 'gs://b/c.csv'}", output="gs://bucket/predictions") == []


def test_containers_get_an_absolute_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"model_version": "3", "output": "predictions"}
    assert absolute_output(given) == {"model_version": "3", "output": str(tmp_path / "predictions")}
    assert absolute_output({"output": "gs://bucket/x"}) == {"output": "gs://bucket/x"}
    assert absolute_output({"model_version": "3"}) == {"model_version": "3"}


def test_the_option_is_a_line_of_csv():
    assert Mount(Path("/a,b")).option() == 'type=bind,"source=/a,b","target=/a,b",readonly'
    assert Mount(Path("/a"), "/tmp", writable=True).option() == "type=bind,source=/a,target=/tmp"
