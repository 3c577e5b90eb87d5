"""The recorded outputs of Beam: they are complete, and still what Beam computes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_transform as tft

from tests.transform.conformance.case import Case
from tests.transform.conformance.compare import assert_same_rows
from tests.transform.conformance.recorded_runs import rerun_random_programs
from tests.transform.record import GROUPS
from tests.transform.recordings import (
    FOLDER,
    VERSIONS,
    MissingRecording,
    Recording,
    installed_versions,
    read_arrays,
    read_table,
    write_arrays,
    write_recording,
    write_table,
)

pytestmark = pytest.mark.tensorflow


def test_every_group_is_recorded():
    for group in GROUPS:
        assert Recording(group).names()
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 2_000_000


def test_a_version_without_recordings_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_recording("some", {"a": b"1"}, tmp_path)
    assert Recording("some", tmp_path).read("a") == b"1"
    versions = tmp_path / tft.__version__ / VERSIONS
    versions.write_text(json.dumps(installed_versions() | {"tensorflow": "2.0.0"}))
    with pytest.raises(MissingRecording, match=r"2\.0\.0.*run `python -m tests\.transform\.record`"):
        Recording("some", tmp_path)
    monkeypatch.setattr(tft, "__version__", "9.9.9")
    with pytest.raises(MissingRecording, match=r"9\.9\.9.*run `python -m tests\.transform\.record`"):
        Recording("some", tmp_path)


def test_files_are_read_as_they_were_written(tmp_path: Path):
    arrays = {
        "floats": np.array([[1.5, np.nan], [-0.0, np.inf]], np.float32),
        "bytes": np.array([b"\xff", b"a\x00"], object),
        "scalar": np.int64(2**62 + 1),
        "empty": np.zeros((0, 2), object),
    }
    for name, value in read_arrays(write_arrays(arrays)).items():
        assert value.dtype == np.asarray(arrays[name]).dtype and value.shape == np.asarray(arrays[name]).shape
        np.testing.assert_array_equal(value, arrays[name])
    table = pa.table({"x": pa.array([[b"a"], []], pa.large_list(pa.large_binary()))})
    assert read_table(write_table(table)).equals(table)
    write_recording("group", {"a/b/c": b"1", "ab": b"2"}, tmp_path)
    folder = Recording("group", tmp_path).extract("a", tmp_path / "extracted")
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] == ["b/c"]


@pytest.mark.full
@pytest.mark.beam
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", GROUPS)
def test_beam_computes_what_is_recorded(group: str, tmp_path: Path):
    recording = Recording(group)
    # The random programs are those that are recorded: another version of Hypothesis draws other ones.
    files = rerun_random_programs(tmp_path) if group == "random_programs" else GROUPS[group](tmp_path)
    assert sorted(files) == recording.names()
    for name, content in files.items():
        assert_same_content(name, content, recording.read(name))


def assert_same_content(name: str, content: bytes, recorded: bytes) -> None:
    """Asserts that two files are equal; floats may differ in their last digits, as Beam's sums do."""
    if name.endswith("rows.parquet"):
        assert_same_rows(Case(name, dict), pa.table({}), read_table(recorded), read_table(content))
    elif name.endswith(".json") and isinstance(json.loads(recorded), dict) and not name.endswith("input.json"):
        assert_same_arrays(name, read_arrays(content), read_arrays(recorded))
    elif name.endswith(".pbtxt"):
        assert _without_annotations(content) == _without_annotations(recorded), name
    elif name.endswith(".gz"):
        assert gzip.decompress(content) == gzip.decompress(recorded), name
    elif name.endswith("input.parquet"):
        # Arrow stores the schema of a table that was read in other bytes. A NaN is not equal to itself, its text is.
        table, expected = read_table(content), read_table(recorded)
        assert table.schema == expected.schema and repr(table.to_pylist()) == repr(expected.to_pylist()), name
    elif "numbers_" not in name:
        assert content == recorded, name


def assert_same_arrays(name: str, arrays: dict[str, np.ndarray], recorded: dict[str, np.ndarray]) -> None:
    assert arrays.keys() == recorded.keys(), name
    for key, value in recorded.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(arrays[key], value, rtol=1e-5, atol=2e-6, err_msg=f"{name} {key}")
        else:
            np.testing.assert_array_equal(arrays[key], value, err_msg=f"{name} {key}")


def _without_annotations(schema: bytes) -> bytes:
    return b"\n".join(line for line in schema.splitlines() if b"value:" not in line)
