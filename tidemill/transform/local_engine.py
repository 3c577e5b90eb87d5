"""The engine of TensorFlow Transform on this machine, without Beam. Imports TensorFlow.

The analysis is passes over the row groups of the train split, by threads, on whose number nothing depends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tidemill.artifacts.examples import Dataset
from tidemill.runtime import Progress
from tidemill.transform.analysis.analyse import analyse
from tidemill.transform.analysis.background import prefetch_counts
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.passes import use_threads
from tidemill.transform.apply.transformer import Transformer
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import PreprocessingFn, RawColumn
from tidemill.transform.rows.parquet_rows import ParquetRows
from tidemill.transform.tft.save import save
from tidemill.transform.tft.trace import Trace

MEMORY_BYTES = 3 << 29


class LocalEngine:
    """TensorFlow Transform by the threads of this process.

    Args:
        threads: How many threads read, reduce and transform. Defaults to the cores that this process may use.
        memory_bytes: What the counting of vocabularies may hold in memory before it spills to the temporary folder.
            Defaults to 1.5 GiB.
        analyzer_cache: A folder with the reduced state of each file of train, so that an analysis over more files reads
            only the new ones. The result has the same bytes. Created if it does not exist. Defaults to none.
    """

    def __init__(
        self, threads: int | None = None, memory_bytes: int = MEMORY_BYTES, analyzer_cache: Path | None = None
    ):
        self._threads = threads or _cores()
        self._memory_bytes = memory_bytes
        self._spans = analyzer_cache

    def analyse(
        self,
        preprocessing_fn: PreprocessingFn,
        columns: Sequence[RawColumn],
        examples: Dataset,
        folder: Path,
        progress: Progress,
    ) -> None:
        """See `Engine.analyse`. The progress is that of each pass.

        Raises:
            TidemillError: `unsupported` for an analyzer that only Beam can run, before any pass over the rows;
                `missing-column` or `feature-type`.
        """
        use_threads(self._threads)
        keys = [file.fingerprint for file in examples.splits["train"].files] if "train" in examples.splits else []
        rows = ParquetRows(examples.files("train"), columns, keys=keys)
        with _older_objects_left_alone(), tempfile.TemporaryDirectory(prefix="tidemill-") as work:
            with CountStore(work, self._memory_bytes, self._threads, per_file=self._spans is not None) as counts:
                trace = Trace(preprocessing_fn, rows.specs, Path(work), prefetch_counts(rows, counts))
                analyse(
                    trace,
                    rows,
                    counts,
                    threads=self._threads,
                    analyzer_cache=self._spans,
                    progress=lambda done, total: progress.rows(done, total, "analyse"),
                )
            save(trace, folder)

    def transform(self, graph: TransformGraph, examples: Dataset, folder: Path, progress: Progress) -> None:
        """See `Engine.transform`."""
        use_threads(self._threads)
        names = [file.name for split in examples.splits.values() for file in split.files]
        done, total = 0, sum(split.rows for split in examples.splits.values())

        def on_rows(rows: int) -> None:
            nonlocal done
            done += rows
            progress.rows(done, total, "transform")

        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        files = [(examples.path / name, folder / name) for name in names]
        with _older_objects_left_alone():
            transformer = Transformer(graph, self._threads)
        progress.phase(f"transform ({transformer.summary})")
        transformer.files(files, on_rows)


@contextlib.contextmanager
def _older_objects_left_alone() -> Iterator[None]:
    """Lets the garbage collector pass over what is there already.

    A trace makes so many objects that the collector goes several times through all, and most of all are those that
    importing TensorFlow made: 5% of the time of a small transform.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
