"""The same bits for any number of threads, for units that end in any order, and with cached accumulators."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform.conformance.case import Inputs, repeat, repeat_joined
from tests.transform.conformance.engines import batch_rows, parquet_rows, transform_all
from tests.transform.conformance.recorded_runs import CASES
from tests.transform.conformance.rows import RowFiles, awkward_table, write_rows
from tests.transform.recordings import files_below, write_table
from tests.transform.row_engine import analyze_rows

pytestmark = pytest.mark.tensorflow
FILE_ROWS = [170, 0, 210, 130, 190, 160, 200, 180, 140, 120]


def every_analyzer(inputs: Inputs) -> dict:
    """One analyzer of each kind, all in one phase."""
    x, key, word, weight = inputs["x_dense"], inputs["key"], inputs["word"], inputs["weight"]
    constants = {
        "min": tft.min(inputs["x"]),
        "sum": tft.sum(inputs["wide"]),
        "count": tft.size(inputs["ragged_floats"]),
        "mean": tft.mean(inputs["offset"]),
        "variance": tft.var(inputs["wide"]),
        "by_column": tft.mean(inputs["vector"], reduce_instance_dims=False),
        "covariance": tft.covariance(inputs["vector"], tf.float32),
        "location": tft.tukey_location(inputs["x64"]),
        "quantiles": tft.quantiles(x, 10, 0.01, weights=weight),
    }
    keys, counts = tft.count_per_key(key)
    tft.vocabulary(word, vocab_filename="words", store_frequency=True)
    tft.vocabulary(inputs["bag"], vocab_filename="lists", store_frequency=True)
    tft.vocabulary(inputs["text"], vocab_filename="weighted", weights=weight, store_frequency=True)
    tft.vocabulary(inputs["text"], vocab_filename="informative", labels=inputs["label3"], store_frequency=True)
    tft.experimental.approximate_vocabulary(word, 1000, vocab_filename="approximate", store_frequency=True)
    return {
        **{name: repeat(constant, inputs) for name, constant in constants.items()},
        "keys": repeat_joined(keys, inputs),
        "counts": repeat_joined(counts, inputs),
        "z_per_key": tft.scale_to_z_score_per_key(x, key),
        "bucket_per_key": tft.bucketize_per_key(x, key, 3),
        "row": inputs["row"],
    }


PHASES = next(case for case in CASES if case.name == "phases")
FUNCTIONS = [
    pytest.param(every_analyzer, id="every_analyzer"),
    pytest.param(PHASES, id="phases"),
    *(pytest.param(case, id=case.name, marks=pytest.mark.full) for case in CASES if case is not PHASES),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> RowFiles:
    """The awkward rows in ten files, one of them without rows."""
    table = awkward_table(sum(FILE_ROWS))
    return write_rows(table, tmp_path_factory.mktemp("rows"), file_rows=FILE_ROWS, row_group_rows=64)


@pytest.fixture(scope="module")
def expected(rows: RowFiles, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable], dict[str, bytes]]:
    """Returns the artifact of a function, computed once by one thread without a cache."""
    artifacts: dict[int, dict[str, bytes]] = {}

    def of(function: Callable) -> dict[str, bytes]:
        if id(function) not in artifacts:
            folder = tmp_path_factory.mktemp("expected")
            artifacts[id(function)] = artifact(function, parquet_rows(rows), rows, folder, threads=1)
        return artifacts[id(function)]

    return of


def artifact(function: Callable, source, rows: RowFiles, folder: Path, **settings) -> dict[str, bytes]:
    """Analyzes rows and returns the artifact's vocabularies and metadata, and some rows that it transforms.

    Within a process TensorFlow numbers functions and tables, so that `saved_model.pb` itself may differ.
    """
    analyze_rows(function, source, folder, **settings)
    files = files_below(folder, "", ("transform_fn/assets", "transformed_metadata"))
    transformed = transform_all(folder, batch_rows(replace(rows, batches=rows.batches[:2])))
    return files | {"rows": write_table(transformed)}


def assert_same_files(got: dict[str, bytes], want: dict[str, bytes]) -> None:
    assert got.keys() == want.keys()
    assert not [name for name in want if got[name] != want[name]]


class LateUnit:
    """A unit of rows whose batches arrive after a random delay."""

    def __init__(self, unit, delays: random.Random):
        self._unit, self._delays, self.rows = unit, delays, unit.rows

    def batches(self, *arguments) -> Iterator[pa.RecordBatch]:
        for batch in self._unit.batches(*arguments):
            time.sleep(self._delays.uniform(0, 0.01))
            yield batch


@pytest.mark.parametrize("function", FUNCTIONS)
def test_threads_and_their_order_do_not_change_a_bit(function, rows: RowFiles, expected, tmp_path: Path):
    source, delays = parquet_rows(rows), random.Random(0)
    source.files = tuple(
        replace(file, units=tuple(LateUnit(unit, delays) for unit in file.units)) for file in source.files
    )
    assert_same_files(artifact(function, source, rows, tmp_path, threads=5), expected(function))
    assert not [t for t in threading.enumerate() if t.name.startswith("tidemill-pass")]


def keys(count: int) -> list[str]:
    return [f"file {number}" for number in range(count)]


def first_nine(rows: RowFiles) -> RowFiles:
    return replace(rows, files=rows.files[:-1])


@pytest.mark.parametrize("function", FUNCTIONS[1:])
def test_accumulators_of_nine_in_ten_files_do_not_change_a_bit(function, rows: RowFiles, expected, tmp_path: Path):
    settings = {"analyzer_cache": tmp_path / "cache"}
    analyze_rows(function, parquet_rows(first_nine(rows), keys=keys(9)), tmp_path / "nine", **settings)
    for name in ("ten", "again"):
        source = parquet_rows(rows, keys=keys(10))
        assert_same_files(artifact(function, source, rows, tmp_path / name, **settings), expected(function))


def with_other_values(rows: RowFiles, folder: Path) -> RowFiles:
    """Writes files with as many rows and other values, except for the last file."""
    folder.mkdir()
    files = []
    for seed, path in enumerate(rows.files[:-1], start=100):
        count = pq.read_metadata(path).num_rows
        files.append(folder / path.name)
        pq.write_table(awkward_table(max(1, count), seed).slice(0, count), files[-1], row_group_size=64)
    return replace(rows, files=[*files, rows.files[-1]])


def test_cached_files_are_not_read_and_damaged_entries_are_computed_again(rows: RowFiles, expected, tmp_path: Path):
    """The cached files are replaced under the same keys, so that reading them would change the result."""
    settings = {"analyzer_cache": tmp_path / "cache"}
    analyze_rows(every_analyzer, parquet_rows(first_nine(rows), keys=keys(9)), tmp_path / "nine", **settings)
    others = with_other_values(rows, tmp_path / "others")
    cached = artifact(every_analyzer, parquet_rows(others, keys=keys(10)), rows, tmp_path / "cached", **settings)
    assert_same_files(cached, expected(every_analyzer))

    damages = [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"[]"),
    ]
    files = [path for path in sorted((tmp_path / "cache").rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(files) > 100
    for number, path in enumerate(files):
        damages[number % len(damages)](path)
    mended = artifact(every_analyzer, parquet_rows(rows, keys=keys(10)), rows, tmp_path / "mended", **settings)
    assert_same_files(mended, expected(every_analyzer))
