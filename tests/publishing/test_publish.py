"""Publishing: the right member, whole or not at all, one version each."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.publishing.tiny import member, publish_spec
from tidemill.artifacts import artifact, model_store
from tidemill.errors import Code, TidemillError
from tidemill.publishing.publish import publish


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_the_best_blessed_member_is_published(tmp_path, serving):
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
    found = publish(publish_spec(), models, evaluations, root=str(root), statistics=str(statistics), report=str(page))
    assert (found.version, found.name, found.family) == (1, "high", "tiny")
    folder = root / "models" / "rain" / "1"
    assert found.uri == str(folder)
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
    lineage = model_store.lineage(found.uri)
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
def test_best_goes_the_objectives_way(tmp_path, serving, metric, values, best):
    members = [member(tmp_path, serving, f"m{i}", value, metric=metric) for i, value in enumerate(values)]
    found = publish(publish_spec(), [m for m, _ in members], [e for _, e in members], root=str(tmp_path / "root"))
    assert found.name == f"m{best}"


def test_none_blessed_names_every_members_reasons(tmp_path, serving):
    members = [member(tmp_path, serving, name, 0.7, blessed=False) for name in ("a", "b")]
    page, root = tmp_path / "leaderboard.html", tmp_path / "root"
    with pytest.raises(TidemillError) as error:
        publish(publish_spec(), [m for m, _ in members], [e for _, e in members], root=str(root), report=str(page))
    assert error.value.code is Code.NOT_BLESSED
    assert error.value.details == {"reasons": {"a": ["auc 0.6000 is below 0.9"], "b": ["auc 0.6000 is below 0.9"]}}
    assert "a (not blessed: auc 0.6000 is below 0.9); b (not" in str(error.value)
    assert not root.exists()
    assert "Nothing is published" in page.read_text()


def test_the_same_run_and_model_is_published_once(tmp_path, serving):
    model, evaluation = member(tmp_path, serving, "a", 0.7)
    other, other_evaluation = member(tmp_path, serving, "b", 0.7)
    root = str(tmp_path / "root")
    assert publish(publish_spec("r1"), [model], [evaluation], root=root).version == 1
    assert publish(publish_spec("r2"), [model], [evaluation], root=root).version == 2
    assert publish(publish_spec("r1"), [model], [evaluation], root=root).version == 1
    assert publish(publish_spec("r1"), [other], [other_evaluation], root=root).version == 3
    assert model_store.newest(root, "rain", exclude_run="r1").endswith("/2")


def test_a_model_without_evaluation_is_refused(tmp_path, serving):
    model, _ = member(tmp_path, serving, "a", 0.7)
    _, evaluation = member(tmp_path, serving, "b", 0.7)
    with pytest.raises(TidemillError) as error:
        publish(publish_spec(), [model], [evaluation], root=str(tmp_path / "root"))
    assert error.value.code is Code.INCOMPLETE_ARTIFACT


def test_a_truncated_model_is_refused(tmp_path, serving):
    model, evaluation = member(tmp_path, serving, "a", 0.7)
    with open(Path(model) / "Format-Serving" / "saved_model.pb", "ab") as file:
        file.write(b"x")
    with pytest.raises(TidemillError) as error:
        publish(publish_spec(), [model], [evaluation], root=str(tmp_path / "root"))
    assert error.value.code is Code.INCOMPLETE_ARTIFACT and not (tmp_path / "root").exists()


def test_publishers_at_once_get_different_versions(tmp_path, serving):
    members = [member(tmp_path, serving, f"m{i}", 0.7) for i in range(8)]
    root = str(tmp_path / "root")
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(publish, publish_spec(f"r{i}"), [m], [e], root=root) for i, (m, e) in enumerate(members)]
        found = [job.result() for job in jobs]
    assert sorted(f.version for f in found) == list(range(1, 9)) == model_store.versions(root, "rain")
    for i, each in enumerate(found):
        artifact.open_folder(each.uri, deep=True)
        assert model_store.lineage(each.uri)["model"]["name"] == f"m{i}"


_PUBLISH = """
import sys, json
sys.path.insert(0, {repo!r})
from tests.publishing.tiny import publish_spec
from tidemill.publishing.publish import publish
model, evaluation, root, run = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
publish(publish_spec(run), [model], [evaluation], root=root)
"""


def test_a_killed_publisher_leaves_no_half_version(tmp_path, serving):
    """SIGKILL at random moments; the sizes are such that copying takes most of the time."""
    bulky = tmp_path / "bulky"
    bulky.mkdir()
    for path in files_below(serving):
        (bulky / path).parent.mkdir(parents=True, exist_ok=True)
        (bulky / path).write_bytes((serving / path).read_bytes())
    for i in range(40):
        (bulky / "assets.extra" / f"extra-{i}").write_bytes(os.urandom(1 << 18))
    model, evaluation = member(tmp_path, bulky, "a", 0.7)
    root, rng = str(tmp_path / "root"), random.Random(0)
    script = _PUBLISH.format(repo=str(Path(__file__).parents[2]))
    killed, took = 0, None
    for attempt in range(12):
        command = [sys.executable, "-c", script, model, evaluation, root, f"run-{attempt}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        process.stdin.write("\n")
        process.stdin.flush()
        if took is None:
            assert process.wait() == 0
            took = time.monotonic() - started
        else:
            time.sleep(rng.random() * took)
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        process.stdin.close()
        process.stdout.close()
        for version in model_store.versions(root, "rain"):
            artifact.open_folder(model_store.version_uri(root, "rain", version), deep=True)
        folders = [p.name for p in (tmp_path / "root" / "models" / "rain").iterdir() if p.name.isdecimal()]
        assert sorted(map(int, folders)) == model_store.versions(root, "rain"), (
            "TensorFlow Serving would load a half version"
        )
    assert killed >= 4
    before = model_store.versions(root, "rain")
    found = publish(publish_spec("after"), [model], [evaluation], root=root)
    assert model_store.versions(root, "rain") == [*before, found.version]
    assert json.loads((Path(found.uri) / "tidemill" / "lineage.json").read_text())["run_fingerprint"] == "after"
