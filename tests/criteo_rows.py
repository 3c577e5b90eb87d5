"""Rows of the Criteo example's generator, generated once per test session."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.csv
import pytest

from tests.sharing import once

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "criteo"
ROWS = 40_000
FILES = 3
SEED = 5


@functools.cache
def generator() -> ModuleType:
    """Returns the script as a module. Its chunks are smaller, so that few rows need little time and several chunks."""
    spec = importlib.util.spec_from_file_location("criteo_generate", EXAMPLE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look the module up by name
    spec.loader.exec_module(module)
    module._CHUNK_ROWS = 1 << 14
    return module


def generated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with 40,000 rows in three files, and `truth.json`."""
    return once(tmp_path_factory, "criteo", lambda folder: generator().generate(ROWS, folder, seed=SEED, files=FILES))


def read_rows(folder: Path) -> pa.Table:
    """Reads all files of a folder in the order of their names."""
    module = generator()
    types = {c: pa.string() for c in module.CATEGORIES} | {c: pa.int64() for c in ["label", *module.NUMBERS]}
    return pa.concat_tables(
        pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(column_names=module.COLUMNS),
            parse_options=pyarrow.csv.ParseOptions(delimiter="\t"),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""]),
        )
        for path in sorted(folder.glob("*.tsv"))
    )
