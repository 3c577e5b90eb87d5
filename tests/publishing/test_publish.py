"""The `publish` step: which member it publishes, and that a version is whole."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.publishing.tiny import member, publish_spec
from tidemill.artifacts import artifact, evaluation_artifact, model_store
from tidemill.errors import Code, TidemillError
from tidemill.evaluation.blessing import check_base_rate
from tidemill.publishing.publish import publish

pytestmark = pytest.mark.tensorflow


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_publishes_the_best_blessed_member(tmp_path, serving):
    members = [
        member(tmp_path, serving, "low", 0.6),
        member(tmp_path, serving, "high", 0.7),
        member(tmp_path, serving, "highest", 0.8, blessed=False),
    ]
    models, evaluations = [m for m, _ in members], [e for _, e in reversed(members)]
    statistics = tmp_path / "statistics"
    (statistics / "Split-train").mkdir(parents=True)
    (statistics / "Split-train" / "FeatureStats.pb").write_bytes(b"\x0a\x00")
    page, root = tmp_path / "out" / "leaderboard.html", tmp_path / "root"
    published = publish(
        publish_spec(), models, evaluations, root=str(root), statistics=str(statistics), report=str(page)
    )
    assert (published.version, published.name, published.family) == (1, "high", "tiny")
    folder = root / "models" / "rain" / "1"
    assert published.uri == str(folder)
    assert files_below(folder) >= {
        "saved_model.pb",
        "variables/variables.index",
        "assets.extra/raw_columns.json",
        "tidemill/model.json",
        "tidemill/metrics.json",
        "tidemill/report.html",
        "tidemill/lineage.json",
        "tidemill/statistics/Split-train/FeatureStats.pb",
        "manifest.json",
    }
    assert (folder / "tidemill" / "report.html").read_text() == "<p>high</p>"
    artifact.open_folder(folder, deep=True)
    lineage = model_store.lineage(published.uri)
    assert lineage["run_fingerprint"] == "run-1" and lineage["code"] == "test"
    assert lineage["model"]["fingerprint"] == "weights-of-high"
    assert lineage["members"]["highest"] == {"fingerprint": "weights-of-highest", "blessed": False}
    html = page.read_text()
    assert "high is published" in html and all(name in html for name in ("low", "highest", "not blessed"))


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("log_loss", [0.5, 0.4, 0.6], 1),
        ("calibration", [0.8, 1.3, 1.05], 2),
        ("auc", [0.5, 0.7, 0.7], 1),
        ("auc", [None, 0.5, None], 1),
        ("auc", [None, None, None], 0),
    ],
)
def test_the_best_member_follows_the_direction_of_the_objective(tmp_path, serving, metric, values, best):
    members = [member(tmp_path, serving, f"m{i}", value, metric=metric) for i, value in enumerate(values)]
    published = publish(publish_spec(), [m for m, _ in members], [e for _, e in members], root=str(tmp_path / "root"))
    assert published.name == f"m{best}"


def test_without_a_blessed_member_the_error_names_all_reasons(tmp_path, serving):
    members = [member(tmp_path, serving, name, 0.7, blessed=False) for name in ("a", "b")]
    page, root = tmp_path / "leaderboard.html", tmp_path / "root"
    with pytest.raises(TidemillError) as error:
        publish(publish_spec(), [m for m, _ in members], [e for _, e in members], root=str(root), report=str(page))
    assert error.value.code is Code.NOT_BLESSED
    assert error.value.details == {"reasons": {"a": ["auc 0.6000 is below 0.9"], "b": ["auc 0.6000 is below 0.9"]}}
    assert "a (not blessed: auc 0.6000 is below 0.9); b (not" in str(error.value)
    assert str(error.value).endswith("improve the model or change evaluation.gates.")
    assert not root.exists()
    assert "Nothing is published" in page.read_text()


@pytest.mark.parametrize("gates", [[], ["AUC 0.6000 is below 0.9"]])
def test_the_error_names_the_key_of_the_condition_on_the_base_rate(tmp_path, serving, gates):
    labels, test = np.array([1] * 30 + [0] * 70), {"metrics": {"log_loss": {"value": 0.62, "low": 0.6, "high": 0.7}}}
    reasons = [*gates, check_base_rate(0.3, labels, cast(Any, test))["text"]]
    model, evaluation = member(tmp_path, serving, "a", 0.7, blessed=False)
    document = evaluation_artifact.read_document(evaluation)
    evaluation_artifact.write(evaluation, {**document, "reasons": reasons}, "")
    with pytest.raises(TidemillError) as error:
        publish(publish_spec(), [model], [evaluation], root=str(tmp_path / "root"))
    where, want = "evaluation.better_than_base_rate", "set evaluation.better_than_base_rate to false"
    if gates:
        where, want = "evaluation.gates", f"change evaluation.gates and {want}"
    assert error.value.where == where
    assert error.value.want == f"improve the model or {want}"


def test_each_run_publishes_a_version_and_its_repeated_attempts_publish_none(tmp_path, serving):
    model, evaluation = member(tmp_path, serving, "a", 0.7)
    other, other_evaluation = member(tmp_path, serving, "b", 0.7)
    root = str(tmp_path / "root")
    assert publish(publish_spec("r1"), [model], [evaluation], root=root, publisher="gs://b/1").version == 1
    assert publish(publish_spec("r2"), [model], [evaluation], root=root, publisher="gs://b/2").version == 2
    assert publish(publish_spec("r1"), [model], [evaluation], root=root, publisher="gs://b/1").version == 1
    assert publish(publish_spec("r1"), [model], [evaluation], root=root, publisher="gs://b/3").version == 3
    assert publish(publish_spec("r1"), [other], [other_evaluation], root=root).version == 4
    assert model_store.newest(root, "rain", exclude_run="r1").endswith("/2")


def test_refuses_a_model_without_an_evaluation(tmp_path, serving):
    model, _ = member(tmp_path, serving, "a", 0.7)
    _, evaluation = member(tmp_path, serving, "b", 0.7)
    with pytest.raises(TidemillError) as error:
        publish(publish_spec(), [model], [evaluation], root=str(tmp_path / "root"))
    assert error.value.code is Code.INCOMPLETE_ARTIFACT


def test_refuses_a_damaged_model(tmp_path, serving):
    model, evaluation = member(tmp_path, serving, "a", 0.7)
    with open(Path(model) / "Format-Serving" / "saved_model.pb", "ab") as file:
        file.write(b"x")
    with pytest.raises(TidemillError) as error:
        publish(publish_spec(), [model], [evaluation], root=str(tmp_path / "root"))
    assert error.value.code is Code.INCOMPLETE_ARTIFACT and not (tmp_path / "root").exists()


def test_simultaneous_publishers_get_different_versions(tmp_path, serving):
    members = [member(tmp_path, serving, f"m{i}", 0.7) for i in range(8)]
    root = str(tmp_path / "root")
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(publish, publish_spec(f"r{i}"), [m], [e], root=root) for i, (m, e) in enumerate(members)]
        published = [job.result() for job in jobs]
    assert sorted(f.version for f in published) == list(range(1, 9)) == model_store.versions(root, "rain")
    for i, each in enumerate(published):
        artifact.open_folder(each.uri, deep=True)
        assert model_store.lineage(each.uri)["model"]["name"] == f"m{i}"


_PUBLISH = """
import os, sys
sys.path.insert(0, {repo!r})
from tests.publishing.tiny import publish_spec
from tidemill.publishing.publish import publish
model, evaluation, root = sys.argv[1:]
for run in sys.stdin:
    publisher = os.fork()
    if not publisher:
        publish(publish_spec(run.strip()), [model], [evaluation], root=root)
        os._exit(0)
    print(publisher, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(publisher, 0)[1]), flush=True)
"""
"""Publishes once for each name of a run that it reads, each time in a fork. Prints its process id and its exit code."""


@pytest.mark.process
def test_a_killed_publisher_leaves_no_half_version(tmp_path, serving):
    """Kills publishers at random moments. The model is so large that copying takes most of the time."""
    bulky = tmp_path / "bulky"
    shutil.copytree(serving, bulky)
    for i in range(40):
        (bulky / "assets.extra" / f"extra-{i}").write_bytes(os.urandom(1 << 18))
    model, evaluation = member(tmp_path, bulky, "a", 0.7)
    root, rng = str(tmp_path / "root"), random.Random(0)
    command = [sys.executable, "-c", _PUBLISH.format(repo=str(Path(__file__).parents[2])), model, evaluation, root]
    killed, seconds = 0, None
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for attempt in range(12):
            process.stdin.write(f"run-{attempt}\n")
            process.stdin.flush()
            publisher, started = int(process.stdout.readline()), time.monotonic()
            if seconds is None:
                assert int(process.stdout.readline()) == 0
                seconds = time.monotonic() - started
            else:
                time.sleep(rng.random() * seconds)
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.kill(publisher, signal.SIGKILL)
                killed += int(process.stdout.readline()) == -signal.SIGKILL
            versions = model_store.versions(root, "rain")
            for version in versions:
                artifact.open_folder(model_store.version_uri(root, "rain", version), deep=True)
            folders = [p.name for p in (tmp_path / "root" / "models" / "rain").iterdir() if p.name.isdecimal()]
            assert sorted(map(int, folders)) == versions, "TensorFlow Serving would load a half version"
        process.stdin.close()
    assert killed >= 4
    summary = publish(publish_spec("after"), [model], [evaluation], root=root)
    assert model_store.versions(root, "rain") == [*versions, summary.version]
    lineage = json.loads((Path(summary.uri) / "tidemill" / "lineage.json").read_text())
    assert lineage["run_fingerprint"] == "after"
