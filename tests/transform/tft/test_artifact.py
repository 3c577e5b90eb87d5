"""The artifact against Beam's, with the analyzers' results that Beam found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_transform as tft

from tests.transform.tft import functions
from tests.transform.tft.bound import SPECS, assert_same, batch, bind_phases
from tests.transform.tft.conftest import Reference
from tidemill.transform.tft.save import save
from tidemill.transform.tft.trace import Sink, Trace

pytestmark = pytest.mark.slow
BY_NAME = {function.__name__: function for function in functions.ALL}


def bind_all(trace: Trace, values: Mapping[str, np.ndarray | Path]) -> None:
    """Binds what Beam found."""

    def value(sink: Sink) -> np.ndarray | Path:
        if not sink.is_asset:
            return values[sink.name]
        definition = sink.node.parent_operation.operation_def
        path = trace.vocabulary_path(definition.vocab_filename, definition.file_format)
        assert path.name == values[sink.name].name
        return Path(shutil.copyfile(values[sink.name], path))

    bind_phases(trace, value)


@pytest.mark.parametrize("name", BY_NAME)
def test_same_artifact(name: str, references: dict[str, Reference], tmp_path: Path):
    reference = references[name]
    work = tmp_path / "work"
    work.mkdir()
    trace = Trace(BY_NAME[name], SPECS, work)
    bind_all(trace, reference.values)
    save(trace, tmp_path)
    shutil.rmtree(work)
    ours, theirs = tft.TFTransformOutput(str(tmp_path)), tft.TFTransformOutput(str(reference.folder))
    assert ours.transformed_metadata.schema == theirs.transformed_metadata.schema
    assert_same(ours.transform_raw_features(batch()), theirs.transform_raw_features(batch()))
    for mine, other in zip(*(parts(output, reference.folder) for output in (ours, theirs)), strict=True):
        assert mine == other


def parts(output: tft.TFTransformOutput, reference: Path) -> list[Any]:
    """What TFTransformOutput tells, beside features and schema."""
    folder = Path(output.transform_savedmodel_dir)
    files = {p.name: p.read_bytes() for p in (folder / "assets").glob("*")}
    assets = folder.parent / "transformed_metadata" / "asset_map"
    facts: list[Any] = [files, assets.read_text() if assets.exists() else None]
    names = {os.path.basename(name).removesuffix(".tfrecord.gz") for name in files} | {"the words", "my words/1"}
    for vocabulary in sorted(names):
        path = output.vocabulary_file_by_name(vocabulary)
        facts.append(path and os.path.basename(path))
        facts.append(path and output.vocabulary_size_by_name(vocabulary))
        facts.append(path and output.vocabulary_by_name(vocabulary))
    for name in sorted(output.transformed_domains()):
        if output.transformed_domains()[name].min == 0:
            facts.append(output.num_buckets_for_transformed_feature(name))
    return facts


def test_some_rows_and_columns(references: dict[str, Reference], tmp_path: Path):
    """The layer takes some of the inputs, and gives the features that need no others."""
    trace = Trace(functions.one_phase, SPECS, tmp_path)
    bind_all(trace, references["one_phase"].values)
    save(trace, tmp_path)
    ours = tft.TFTransformOutput(str(tmp_path)).transform_features_layer()
    theirs = tft.TFTransformOutput(str(references["one_phase"].folder)).transform_features_layer()
    some = {"x": batch()["x"]}
    assert_same(ours(some), theirs(some))
    assert "z" in ours(some)
    assert "unit" not in ours(some)
