"""The engine that a spec selects."""

from __future__ import annotations

import sys

import pytest

from tests.transform.preprocess_runs import example_table, spec, write_examples
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.transform.beam.beam_engine import BeamEngine
from tidemill.transform.engine import open_engine
from tidemill.transform.local_engine import LocalEngine

pytestmark = pytest.mark.beam


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_examples(tmp_path_factory.mktemp("examples") / "data", {"train": example_table(100, 1, 0.0)}))


@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        ({}, LocalEngine),
        ({"engine": "local"}, LocalEngine),
        ({"engine": "local", "local_limit": 1}, LocalEngine),
        ({"engine": "beam"}, BeamEngine),
        ({"engine": "beam", "runner": "direct", "options": ["--temp_location=/tmp"]}, BeamEngine),
        ({"runner": "direct"}, BeamEngine),
        ({"runner": "spark", "options": ["--temp_location=gs://b/t"]}, BeamEngine),
        ({"local_limit": 1}, BeamEngine),
    ],
)
def test_spec_selects_the_engine(examples: Dataset, settings: dict, engine: type):
    assert type(open_engine(spec(features={}, **settings), examples)) is engine


def test_the_limit_is_compared_with_the_size_of_train(examples: Dataset):
    size = sum(path.stat().st_size for path in examples.files("train"))
    assert type(open_engine(spec(features={}, local_limit=size), examples)) is LocalEngine
    assert type(open_engine(spec(features={}, local_limit=size - 1), examples)) is BeamEngine


def test_missing_package_of_an_engine_is_reported(examples: Dataset, monkeypatch: pytest.MonkeyPatch):
    # Python raises the same error for a package that is not installed.
    monkeypatch.setitem(sys.modules, "tidemill.transform.local_engine", None)
    with pytest.raises(TidemillError, match="install tidemill") as caught:
        open_engine(spec(features={}, engine="local"), examples)
    assert caught.value.code is Code.MISSING_PACKAGE
