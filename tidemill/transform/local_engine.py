"""The transform engine for one machine, without Beam. Imports TensorFlow.

The analysis makes passes over the row groups of the train split on several threads. The result does not depend on the
number of threads.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tidemill.artifacts.examples import Dataset
from tidemill.cpus import available_cpus
from tidemill.runtime import Progress
from tidemill.transform.analysis.background import prefetch_counts
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.passes import use_threads
from tidemill.transform.analysis.run_analyzers import run_analyzers
from tidemill.transform.apply.transformer import Transformer
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import PreprocessingFn, RawColumn
from tidemill.transform.rows.parquet_rows import ParquetRows
from tidemill.transform.rows.row_source import RowSource
from tidemill.transform.tft.save import save
from tidemill.transform.tft.trace import Trace

MEMORY_BYTES = 3 << 29


class LocalEngine:
    """A transform engine that runs on the threads of this process.

    Args:
        threads: Number of threads that read, reduce and transform. Defaults to the cores that this process may use.
        memory_bytes: Memory that counting vocabularies may use before it spills to the temporary folder. Defaults to
            1.5 GiB.
        analyzer_cache: A folder with the accumulators of each file of train, so that an analysis over more files reads
            only the new ones. The result has the same bytes. Created if it does not exist. Defaults to none.
    """

    def __init__(
        self, threads: int | None = None, memory_bytes: int = MEMORY_BYTES, analyzer_cache: Path | None = None
    ):
        self._threads = threads or available_cpus()
        self._memory_bytes = memory_bytes
        self._analyzer_cache = analyzer_cache

    def analyze(
        self,
        preprocessing_fn: PreprocessingFn,
        columns: Sequence[RawColumn],
        examples: Dataset,
        folder: Path,
        progress: Progress,
    ) -> None:
        """See `Engine.analyze`. The progress is that of each pass.

        Raises:
            TidemillError: `unsupported` for an analyzer that only Beam can run, before any pass over the rows;
                `missing-column` or `feature-type`.
        """
        use_threads(self._threads)
        keys = [file.fingerprint for file in examples.splits["train"].files] if "train" in examples.splits else []
        analyze_rows(
            preprocessing_fn,
            ParquetRows(examples.files("train"), columns, keys=keys),
            folder,
            threads=self._threads,
            memory_bytes=self._memory_bytes,
            analyzer_cache=self._analyzer_cache,
            progress=lambda done, total: progress.rows(done, total, "analyze"),
        )

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
        with _frozen_garbage_collector():
            transformer = Transformer(graph, self._threads)
        progress.phase(f"transform ({transformer.summary})")
        transformer.files(files, on_rows)


def analyze_rows(
    preprocessing_fn: PreprocessingFn,
    rows: RowSource,
    folder: Path,
    *,
    threads: int,
    memory_bytes: int = MEMORY_BYTES,
    analyzer_cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Runs the analyzers of a preprocessing_fn over rows and writes `transform_fn/` and `transformed_metadata/`.

    Args:
        preprocessing_fn: The function.
        rows: The rows, whose specs are the function's inputs.
        folder: An existing folder to write to.
        threads: See `LocalEngine`.
        memory_bytes: See `LocalEngine`.
        analyzer_cache: See `LocalEngine`.
        progress: Called with the finished rows of each pass and their total.

    Raises:
        TidemillError: See `LocalEngine.analyze`.
    """
    with _frozen_garbage_collector(), tempfile.TemporaryDirectory(prefix="tidemill-") as work:
        with CountStore(work, memory_bytes, threads, per_file=analyzer_cache is not None) as counts:
            trace = Trace(preprocessing_fn, rows.specs, Path(work), prefetch_counts(rows, counts))
            run_analyzers(trace, rows, counts, threads=threads, analyzer_cache=analyzer_cache, progress=progress)
        save(trace, folder)


@contextlib.contextmanager
def _frozen_garbage_collector() -> Iterator[None]:
    """Excludes existing objects from garbage collection during the block.

    A trace creates so many objects that the collector runs several times, mostly over objects that importing TensorFlow
    made. That takes 5% of the time of a small transform.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
