"""The model store: versions, the newest one, and claims."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tidemill.artifacts import artifact, model_store
from tidemill.errors import Code, TidemillError


def put(root, version, run, whole=True):
    folder = root / "models" / "rain" / str(version)
    (folder / "tidemill").mkdir(parents=True)
    (folder / "tidemill" / "lineage.json").write_text(json.dumps({"run_fingerprint": run}))
    if whole:
        artifact.seal(folder)


@pytest.fixture
def root(tmp_path):
    put(tmp_path, 1, "a")
    put(tmp_path, 2, "b")
    put(tmp_path, 9, "c", whole=False)
    put(tmp_path, 10, "b")
    put(tmp_path, ".11.0a.partial", "d")
    return tmp_path


def test_versions_are_whole_and_in_the_order_of_numbers(root):
    assert model_store.versions(str(root), "rain") == [1, 2, 10]
    assert model_store.versions(str(root), "snow") == []


@pytest.mark.parametrize(("exclude", "expected"), [(None, 10), ("a", 10), ("b", 1), ("zzz", 10)])
def test_newest_skips_the_versions_of_the_run_itself(root, exclude, expected):
    assert model_store.newest(str(root), "rain", exclude_run=exclude) == f"{root}/models/rain/{expected}"


def test_newest_is_none_without_versions(root):
    assert model_store.newest(str(root), "snow") is None
    put(root, "../snow/1", "only")
    assert model_store.newest(str(root), "snow", exclude_run="only") is None


@pytest.mark.parametrize(("version", "expected"), [("latest", 10), ("2", 2), (2, 2)])
def test_resolves_a_version(root, version, expected):
    assert model_store.resolve(str(root), "rain", version) == f"{root}/models/rain/{expected}"


@pytest.mark.parametrize(
    ("name", "version", "part"),
    [("rain", "9", "versions 1, 2, 10"), ("rain", "x", "versions 1, 2, 10"), ("snow", "latest", "no version exists")],
)
def test_an_unknown_version_is_an_error_that_lists_the_versions(root, name, version, part):
    with pytest.raises(TidemillError) as error:
        model_store.resolve(str(root), name, version)
    assert error.value.code is Code.NO_MODEL and part in str(error.value)


def test_each_claim_is_a_different_version(root):
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: model_store.claim(str(root), "rain", "run"), range(40)))
    assert sorted(claimed) == list(range(11, 51))
