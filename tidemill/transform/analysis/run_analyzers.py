"""The analysis of a traced preprocessing_fn, one phase after the other. Imports TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from tidemill.transform.analysis import nodes, passes
from tidemill.transform.analysis.background import AwaitedValues, BackgroundThread
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.reduction import Reduction, is_fed, is_scanning
from tidemill.transform.analyzer_cache import AnalyzerCache, entry_key
from tidemill.transform.rows.row_source import RowFile, RowSource
from tidemill.transform.tft import combiners
from tidemill.transform.tft.computation_fingerprint import fingerprint
from tidemill.transform.tft.trace import Trace


def run_analyzers(
    trace: Trace,
    rows: RowSource,
    counts: CountStore,
    *,
    threads: int,
    analyzer_cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Computes the values of all sinks of a trace from the rows, and binds them.

    A phase is one pass over the rows for all sinks that can be computed at that point. The results do not depend on the
    number of threads or on the analyzer cache.

    Args:
        trace: A fresh trace, whose inputs are the rows' specs.
        rows: The rows.
        counts: The store that counts vocabularies, per file if `analyzer_cache` is given. Nothing else may use it
            meanwhile.
        threads: Number of threads that read and reduce.
        analyzer_cache: A folder with the reduced state of each file, which is looked up before the file is read.
            Defaults to none. Files without a key are always read.
        progress: Called with the finished rows of the phase and their total.

    Raises:
        TidemillError: `unsupported` for an analyzer that only Beam can run, before any pass over the rows;
            `missing-column` or `feature-type` for rows that do not fit.
    """
    nodes.refuse_unknown(trace.sinks)
    cache = None if analyzer_cache is None else AnalyzerCache(analyzer_cache)
    while trace.sinks:
        ready = [sink for sink in trace.sinks if nodes.is_ready(sink, trace)]
        if not ready:
            raise ValueError(f"sinks that wait for each other: {[sink.name for sink in trace.sinks]}")
        accumulates = [operation for operation in nodes.operations(ready) if nodes.is_accumulate(operation)]
        reductions = {o: nodes.reduction(o, trace, rows, counts) for o in accumulates}
        phase = _Phase(trace, rows, reductions, cache, threads, progress)
        is_concurrent = counts.has_prefetched
        phase.run(counts, is_concurrent=is_concurrent)
        interpreter = nodes.Interpreter(trace, phase.results(), ready)
        if is_concurrent:
            with BackgroundThread(counts) as background:
                trace.bind(AwaitedValues({sink.name: background.submit(interpreter.value, sink) for sink in ready}))
        else:
            trace.bind({sink.name: interpreter.value(sink) for sink in ready})


_MIN_SUMMED_FILES = 4
"""Number of files from which the sum of all files is cached too."""
_SUM_GROWTH = 1.5
"""Growth in the number of files after which the sum is cached again."""


class _Phase:
    """A phase: the pass over the rows for some reductions."""

    def __init__(
        self,
        trace: Trace,
        rows: RowSource,
        reductions: dict[nodes.Operation, Reduction],
        analyzer_cache: AnalyzerCache | None,
        threads: int,
        progress: Callable[[int, int], None],
    ):
        self._trace, self._rows, self._reductions, self._cache = trace, rows, reductions, analyzer_cache
        self._scanning = {o: reduction for o, reduction in reductions.items() if is_scanning(reduction)}
        self._threads, self._progress = threads, progress
        self._done = 0
        self._total = sum(file.rows for file in rows.files)
        self._graphs = {} if analyzer_cache is None else {o: self._describe(o) for o in reductions}
        self._summed: dict[nodes.Operation, int] = {}
        """Number of first files whose sum comes from one cache entry."""

    def run(self, counts: CountStore, *, is_concurrent: bool) -> None:
        """Reads the files that are not in the cache, so that all reductions are closed for all files.

        Args:
            counts: The store that the reductions use.
            is_concurrent: Whether to scan while the other reductions are fed, which takes more memory.
        """
        self._load_sums()
        missing = [(file, self._missing(file)) for file in self._rows.files]
        if not is_concurrent:
            self._scan(missing)
            self._feed(missing)
        else:
            with BackgroundThread(counts) as background:
                scanned = background.submit(self._scan, missing)
                self._feed(missing)
                scanned.result()
        for file, readers in missing:
            self._save(file, readers)

    def _scan(self, missing: Sequence[tuple[RowFile, list[Reduction]]]) -> None:
        for reduction in self._scanning.values():
            files = [file.index for file, readers in missing if reduction in readers]
            if files:
                reduction.run(files)

    def _feed(self, missing: Sequence[tuple[RowFile, list[Reduction]]]) -> None:
        fed = [(file, [r for r in readers if is_fed(r)]) for file, readers in missing]
        fed = [(file, readers) for file, readers in fed if readers]
        self._advance(self._total - sum(file.rows for file, _ in fed))
        if fed:
            passes.run_pass(self._trace, self._rows, fed, threads=self._threads, progress=self._advance)

    def results(self) -> dict[nodes.Operation, object]:
        """Returns the reductions' results."""
        results = {operation: reduction.result() for operation, reduction in self._reductions.items()}
        files = self._rows.files
        for operation, reduction in self._scanning.items():
            # Rewritten only if it grew much: an entry is as large as the vocabulary.
            if len(files) < max(_MIN_SUMMED_FILES, _SUM_GROWTH * self._summed.get(operation, 0)):
                continue
            self._save_entry(self._key(operation, *files), reduction.dump_sum)
        return results

    def _load_sums(self) -> None:
        files = self._rows.files
        for operation, reduction in self._scanning.items():
            for count in range(len(files), _MIN_SUMMED_FILES - 1, -1):
                if self._load_entry(self._key(operation, *files[:count]), reduction.load_sum):
                    self._summed[operation] = count
                    break

    def _missing(self, file: RowFile) -> list[Reduction]:
        """Returns the reductions that must read a file."""
        readers = []
        position = self._rows.files.index(file)
        for operation, reduction in self._reductions.items():
            if position < self._summed.get(operation, 0):
                continue
            load = functools.partial(reduction.load, file.index)
            if not self._load_entry(self._key(operation, file), load):
                readers.append(reduction)
        return readers

    def _save(self, file: RowFile, readers: Sequence[Reduction]) -> None:
        for operation, reduction in self._reductions.items():
            if reduction in readers:
                self._save_entry(self._key(operation, file), functools.partial(reduction.dump, file.index))

    def _load_entry(self, key: str | None, read: Callable[[Path], None]) -> bool:
        return self._cache is not None and key is not None and self._cache.load(key, read)

    def _save_entry(self, key: str | None, write: Callable[[Path], None]) -> None:
        if self._cache is not None and key is not None:
            self._cache.save(key, write)

    def _describe(self, operation: nodes.Operation) -> tuple[str, object] | None:
        """Returns what a reduction's state depends on besides the file; None if the state may differ in another run."""
        description, tensors = combiners.describe(operation.operation_def), nodes.source_tensors(operation)
        graph, filters = fingerprint(tensors, self._trace), self._trace.token_filter
        is_filtered = [filters[tensor.name] for tensor in tensors if tensor.name in filters]
        return None if description is None else (graph, [description, is_filtered])

    def _key(self, operation: nodes.Operation, *files: RowFile) -> str | None:
        """Returns the name of the entry of a file, or of several files together."""
        described = self._graphs.get(operation)
        keys = [file.key for file in files if file.key is not None]
        if described is None or len(keys) < len(files):
            return None
        *before, last = keys
        return entry_key(last, self._rows.fingerprint, *described, before=before)

    def _advance(self, rows: int) -> None:
        self._done += rows
        self._progress(self._done, self._total)
