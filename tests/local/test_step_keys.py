"""The recorded content of cache keys, and the reasons why a step runs again."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest

from tidemill.local import step_keys
from tidemill.local.step_keys import StepKey, differences, previous, reasons, step_key
from tidemill.steps import step_codes

CODE = step_codes()["train"]


def spec(**changes) -> str:
    fields = {
        "step": "train",
        "code": CODE.fingerprint(),
        "libraries": {"keras": "3.1", "numpy": "2.0"},
        "training": {"epochs": 2, "optimizer": {"name": "adam"}},
        "labels": ["late"],
    }
    return json.dumps(fields | changes)


def artifact(uri: str, **metadata) -> SimpleNamespace:
    return SimpleNamespace(uri=uri, metadata=metadata)


def key(text: str, **inputs) -> StepKey:
    return step_key("hash", {"spec": text, "root": "/root"}, inputs, ["image"])


def test_a_spec_is_taken_apart():
    found = key(spec(), examples=artifact("/a", fingerprint="f"), models=[artifact("/m1"), artifact("/m2")])
    assert found.code == CODE.files()
    assert found.libraries == {"keras": "3.1", "numpy": "2.0"}
    expected = {"step": "train", "training.epochs": 2, "training.optimizer.name": "adam", "labels": ["late"]}
    assert found.parameters == expected
    assert found.inputs["examples"] == [{"uri": "/a", "fingerprint": "f"}]
    assert [each["uri"] for each in found.inputs["models"]] == ["/m1", "/m2"]


def test_code_of_other_sources_is_kept_as_a_fingerprint():
    assert key(spec(code="elsewhere")).code == {"(all)": "elsewhere"}


def test_parameters_without_a_spec_are_kept_by_name():
    found = step_key("hash", {"items": "[1]", "limit": 3, "text": "{no json", "root": "/r"}, {}, [])
    assert found.parameters == {"items": "[1]", "limit": 3, "text": "{no json"}


def test_source_tables_are_told_apart(tmp_path):
    def ingest(flights: str, planes: str) -> StepKey:
        files = [
            {"table": "flights", "uri": "/f", "bytes": 1, "version": flights},
            {"table": "planes", "uri": "/p", "bytes": 1, "version": planes},
        ]
        name = flights + planes
        (tmp_path / "sources").mkdir(exist_ok=True)
        (tmp_path / "sources" / f"{name}.json").write_text(json.dumps({"fingerprint": name, "files": files}))
        text = json.dumps({"step": "ingest", "code": "c", "source_fingerprint": name})
        return step_key("hash", {"spec": text, "root": str(tmp_path)}, {}, [])

    before = ingest("a", "b")
    assert set(before.sources) == {"flights", "planes"}
    assert differences(ingest("x", "b"), before) == ["source table flights changed"]
    assert "source_fingerprint" not in before.parameters


def test_without_its_source_record_all_tables_are_one(tmp_path):
    text = json.dumps({"step": "ingest", "code": "c", "source_fingerprint": "gone"})
    assert step_key("hash", {"spec": text, "root": str(tmp_path)}, {}, []).sources == {"(all)": "gone"}


def _changed(**changes) -> StepKey:
    changed = copy.deepcopy(key(spec(), examples=artifact("/a", fingerprint="f")))
    for name, value in changes.items():
        getattr(changed, name).update(value)
    return changed


DIFFERENCES = {
    "equal": ({}, []),
    "code": ({"code": {"tidemill/training/loop.py": "x"}}, ["code of train changed: tidemill/training/loop.py"]),
    "library": ({"libraries": {"keras": "3.2"}}, ["library keras changed from 3.1 to 3.2"]),
    "new library": ({"libraries": {"jax": "1"}}, ["library jax changed from none to 1"]),
    "parameter": ({"parameters": {"training.epochs": 3}}, ["parameter training.epochs changed from 2 to 3"]),
    "new parameter": ({"parameters": {"training.seed": 1}}, ["parameter training.seed changed from none to 1"]),
    "long parameter": ({"parameters": {"labels": ["x" * 99]}}, ["parameter labels changed"]),
    "input": ({"inputs": {"examples": [{"uri": "/b", "fingerprint": "g"}]}}, ["input examples changed"]),
    "same input": (
        {"inputs": {"examples": [{"uri": "/b", "fingerprint": "f"}]}},
        ["input examples was written again, with the same content"],
    ),
    "no fingerprint": ({"inputs": {"examples": [{"uri": "/b", "fingerprint": None}]}}, ["input examples changed"]),
    "derived only": ({"parameters": {"lineage": "x"}}, ["lineage changed"]),
    "derived too": (
        {"parameters": {"lineage": "x", "training.epochs": 3}},
        ["parameter training.epochs changed from 2 to 3"],
    ),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_names_each_difference(case):
    changes, expected = DIFFERENCES[case]
    assert differences(_changed(**changes), _changed()) == expected


def test_a_changed_component_is_named_only_if_no_code_is():
    before, now = _changed(), _changed()
    now.component = "other"
    assert differences(now, before) == ["component changed"]
    now.code["components/train/component.py"] = "x"
    assert differences(now, before) == ["code of train changed: components/train/component.py"]


def test_the_reason_for_an_equal_key_is_what_became_of_the_result():
    now = _changed()
    assert reasons(now, None, "", use_cache=True) == [step_keys.FIRST_RUN]
    assert reasons(now, now, "done", use_cache=False) == [step_keys.NO_CACHE]
    assert reasons(now, now, "cached", use_cache=True) == [step_keys.CACHE_REMOVED]
    assert reasons(now, now, "failed", use_cache=True) == [step_keys.UNFINISHED]
    before = copy.deepcopy(now)
    before.key = "other"
    assert reasons(now, before, "done", use_cache=True) == [step_keys.INPUT_METADATA]


def test_finds_the_newest_earlier_run_of_the_same_pipeline(tmp_path):
    def run(name: str, pipeline: str, keyed: bool = True) -> None:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        steps = [{"name": "train-a", "state": "done"}]
        (folder / "run.json").write_text(json.dumps({"experiment": "e", "pipeline": pipeline, "steps": steps}))
        if keyed:
            key(spec()).write(folder, "train-a")

    for name, pipeline, keyed in (("1", "train", True), ("2", "train", False), ("3", "other", True)):
        run(name, pipeline, keyed)
    run("4", "train")
    assert previous(tmp_path, "4", "e", "train", "train-a") == ("1", key(spec()), "done")
    assert previous(tmp_path, "4", "e", "train", "train-b") is None
    assert previous(tmp_path, "1", "e", "train", "train-a") is None


def test_an_unreadable_key_counts_as_none(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "train.json").write_text('{"key": "x", "unknown": 1}')
    assert StepKey.read(tmp_path, "train") is None and StepKey.read(tmp_path, "other") is None
