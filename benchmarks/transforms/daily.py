"""A daily retraining: ten files, nine of them analyzed the day before."""

from __future__ import annotations

import os
from pathlib import Path

from tidemill.artifacts.examples import Dataset, finish_dataset
from transforms import by_local
from transforms.work import preprocessing_fn, write_rows

FILES = 10


def write(ten: Path, nine: Path, rows: int) -> None:
    """Writes a dataset of ten files of `rows` rows each, unless it exists, and a dataset of the first nine of them.

    Raises:
        SystemExit: The existing dataset has another number of files.
    """
    write_rows(ten, FILES * rows, files=FILES)
    files = Dataset(ten).files("train")
    if len(files) != FILES:
        raise SystemExit(f"{len(files)} files, not {FILES}; remove {ten}")
    if nine.exists():
        return
    (nine / "train").mkdir(parents=True)
    for path in files[:-1]:
        os.link(path, nine / "train" / path.name)
    finish_dataset(nine, Dataset(ten).schema(), {"train": [f"train/{path.name}" for path in files[:-1]]})


def analyze(examples: Path, folder: Path, threads: int, analyzer_cache: Path | None) -> float:
    """Returns the seconds of the analysis."""
    return by_local.analyze(preprocessing_fn, examples, folder, threads, analyzer_cache)[1]["analyze"]
