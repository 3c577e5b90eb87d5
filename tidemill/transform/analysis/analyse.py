"""The analysis of a traced preprocessing_fn, phase after phase. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tidemill.transform.analysis import nodes, passes
from tidemill.transform.analysis.background import AwaitedValues, BackgroundThread
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.reduction import Reduction
from tidemill.transform.analyzer_cache import AnalyzerCache, entry_key
from tidemill.transform.rows.row_source import RowFile, RowSource
from tidemill.transform.tft import combiners
from tidemill.transform.tft.path_fingerprint import fingerprint
from tidemill.transform.tft.trace import Trace


def analyse(
    trace: Trace,
    rows: RowSource,
    counts: CountStore,
    *,
    threads: int,
    analyzer_cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Computes all that a trace's sinks want from the rows, and binds it.

    A phase is one pass over the rows for all sinks that can be computed by then. The results do not depend on the
    number of threads, nor on what `analyzer_cache` holds.

    Args:
        trace: A fresh trace, whose inputs are the rows' specs.
        rows: The rows.
        counts: Counts vocabularies, per file if `analyzer_cache` is given. Nothing else may use it meanwhile.
        threads: How many threads read and reduce.
        analyzer_cache: A folder with the reduced state of each file, which is looked up before the file is read.
            Defaults to none. Files without a key are always read.
        progress: Told how many rows of the phase's are through, and how many there are.

    Raises:
        TidemillError: `unsupported` for an analyzer that only Beam can run, before any pass over the rows;
            `missing-column` or `feature-type` for rows that do not fit.
    """
    nodes.refuse_unknown(trace.sinks)
    kept = None if analyzer_cache is None else AnalyzerCache(analyzer_cache)
    while trace.sinks:
        ready = [sink for sink in trace.sinks if nodes.is_ready(sink, trace)]
        if not ready:
            raise ValueError(f"sinks that wait for each other: {[sink.name for sink in trace.sinks]}")
        accumulates = [operation for operation in nodes.operations(ready) if nodes.is_accumulate(operation)]
        reductions = {o: nodes.reduction(o, trace, rows, counts) for o in accumulates}
        phase = _Phase(trace, rows, reductions, kept, threads, progress)
        at_once = counts.has_prefetched
        phase.run(counts, at_once=at_once)
        interpreter = nodes.Interpreter(trace, phase.results(), ready)
        if at_once:
            with BackgroundThread(counts) as background:
                trace.bind(AwaitedValues({sink.name: background.submit(interpreter.value, sink) for sink in ready}))
        else:
            trace.bind({sink.name: interpreter.value(sink) for sink in ready})


_LEAST_SUMMED = 4
"""Files from which on what they sum up to is kept too."""
_MORE_SUMMED = 1.5
"""How many times as many files there must be until it is kept again."""


class _Phase:
    """The passes over the rows for some reductions."""

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
        self._threads, self._progress = threads, progress
        self._done = 0
        self._total = sum(file.rows for file in rows.files)
        self._graphs = {} if analyzer_cache is None else {o: self._describe(o) for o in reductions}
        self._summed: dict[nodes.Operation, int] = {}
        """How many of the first files come from an entry of all of them together."""

    def run(self, counts: CountStore, *, at_once: bool) -> None:
        """Reads what has to be read, so that all reductions are closed for all files.

        Args:
            counts: What the reductions use.
            at_once: Whether to scan while the others are fed. Takes more memory.
        """
        self._load_sums()
        missing = [(file, self._missing(file)) for file in self._rows.files]
        if not at_once:
            self._scan(missing)
            self._feed(missing)
        else:
            with BackgroundThread(counts) as background:
                scanned = background.submit(self._scan, missing)
                self._feed(missing)
                scanned.result()
        for file, wanting in missing:
            self._keep(file, wanting)

    def _scan(self, missing: Sequence[tuple[RowFile, list[Reduction]]]) -> None:
        for reduction in self._reductions.values():
            files = [file.index for file, wanting in missing if reduction.scans and reduction in wanting]
            if files:
                reduction.run(files, self._threads, lambda rows: None)

    def _feed(self, missing: Sequence[tuple[RowFile, list[Reduction]]]) -> None:
        fed = [(file, [r for r in wanting if not r.scans]) for file, wanting in missing]
        fed = [(file, wanting) for file, wanting in fed if wanting]
        self._advance(self._total - sum(file.rows for file, _ in fed))
        if fed:
            passes.run_pass(self._trace, self._rows, fed, threads=self._threads, progress=self._advance)

    def results(self) -> dict[nodes.Operation, object]:
        """The reductions' results."""
        found = {operation: reduction.result() for operation, reduction in self._reductions.items()}
        files = self._rows.files
        for operation, reduction in self._reductions.items():
            # Written again only when there is much more to it: an entry is as large as the vocabulary.
            if len(files) < max(_LEAST_SUMMED, _MORE_SUMMED * self._summed.get(operation, 0)):
                continue
            if reduction.scans and (key := self._key(operation, *files)):
                self._cache.save(key, reduction.dump_sum)
        return found

    def _load_sums(self) -> None:
        files = self._rows.files
        for operation, reduction in self._reductions.items():
            for count in range(len(files), _LEAST_SUMMED - 1, -1) if reduction.scans else []:
                key = self._key(operation, *files[:count])
                if key is not None and self._cache.load(key, reduction.load_sum):
                    self._summed[operation] = count
                    break

    def _missing(self, file: RowFile) -> list[Reduction]:
        """The reductions that have to read a file."""
        found = []
        place = self._rows.files.index(file)
        for operation, reduction in self._reductions.items():
            if place < self._summed.get(operation, 0):
                continue
            key = self._key(operation, file)
            load = lambda folder, r=reduction: r.load(file.index, folder)  # noqa: E731
            if key is None or not self._cache.load(key, load):
                found.append(reduction)
        return found

    def _keep(self, file: RowFile, wanting: Sequence[Reduction]) -> None:
        for operation, reduction in self._reductions.items():
            key = self._key(operation, file)
            if key is not None and reduction in wanting:
                self._cache.save(key, lambda folder, r=reduction: r.dump(file.index, folder))

    def _describe(self, operation: nodes.Operation) -> tuple[str, object] | None:
        """What a reduction's state depends on beside the file; None where it is not known to be the same next time."""
        description, tensors = combiners.describe(operation.operation_def), nodes.source_tensors(operation)
        graph, filters = fingerprint(tensors, self._trace), self._trace.token_filter
        is_filtered = [filters[tensor.name] for tensor in tensors if tensor.name in filters]
        return None if description is None or graph is None else (graph, [description, is_filtered])

    def _key(self, operation: nodes.Operation, *files: RowFile) -> str | None:
        """The name of an entry of a file, or of several together."""
        described = self._graphs.get(operation)
        keys = [file.key for file in files]
        if described is None or None in keys:
            return None
        *before, last = keys
        return entry_key(last, self._rows.fingerprint, *described, before=before)

    def _advance(self, rows: int) -> None:
        self._done += rows
        self._progress(self._done, self._total)
