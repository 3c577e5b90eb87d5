"""Background work of an analysis: DuckDB counts while Python traces or interprets. Imports TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

import tensorflow as tf

from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.scan_tally import grouped
from tidemill.transform.apply.facts import Elements, Facts, Level
from tidemill.transform.rows.row_source import RowSource
from tidemill.transform.tft.traced_function import OnTokens

Value = TypeVar("Value")
_INTERRUPT_SECONDS = 0.05


class BackgroundThread:
    """A second thread that runs functions one after the other. Use it as a context manager, which waits for the thread.

    If the block fails or is interrupted, the thread's DuckDB queries are interrupted, and its other work is waited for.

    Args:
        counts: The store that the second thread uses.
    """

    def __init__(self, counts: CountStore):
        self._counts = counts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tidemill-background")
        self._futures: list[Future[Any]] = []

    def submit(self, do: Callable[..., Value], *arguments: Any) -> Future[Value]:
        """Runs a function on the second thread, after the functions that were submitted before."""
        self._futures.append(self._thread.submit(do, *arguments))
        return self._futures[-1]

    def __enter__(self) -> BackgroundThread:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=failure is None, cancel_futures=True)
        if failure is not None:
            # DuckDB ignores an interrupt that comes before the query has started.
            while running := [future for future in self._futures if not future.done()]:
                self._counts.interrupt()
                wait(running, timeout=_INTERRUPT_SECONDS)
            self._thread.shutdown()


class AwaitedValues(Mapping[str, Value], Generic[Value]):
    """A mapping of futures. Reading a value waits for it."""

    def __init__(self, values: Mapping[str, Future[Value]]):
        self._values = values

    def __getitem__(self, name: str) -> Value:
        return self._values[name].result()

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


_MAX_ROWS = 10_000_000
"""With more rows, counting and replacing tokens in one query takes less memory than counting ahead."""


def prefetch_counts(rows: RowSource, counts: CountStore) -> OnTokens | None:
    """Returns a callback for `Trace` that starts counting a vocabulary's column as soon as the trace reaches it.

    Tracing runs Python on one thread. Meanwhile DuckDB can count a column's distinct values on the other threads.

    Args:
        rows: The rows of the analysis.
        counts: The store that counts.

    Returns:
        None if prefetching does not help: with one thread, with more than 10 million rows, and with an analyzer cache,
        which may leave few files to read.
    """
    if counts.threads < 2 or counts.per_file or sum(file.rows for file in rows.files) > _MAX_ROWS:
        return None
    files = [file.index for file in rows.files]
    facts: list[Facts] = []

    def on_tokens(inputs: Mapping[str, Any], tokens: tf.Tensor) -> None:
        if not facts:
            flat = {name: value for name, value in inputs.items() if rows.is_flat(name)}
            facts.append(Facts(tokens.graph, flat, is_width_one=False))
        # Facts do not cover tensors captured later or in graphs of branches and loops.
        fact = facts[0].of(tokens) if tokens.graph is facts[0].graph else None
        if isinstance(fact, Elements) and fact.level is Level.RAW and len(fact.columns) == 1:
            (column,) = fact.columns
            if scan := rows.scan(column):
                counts.prefetch(grouped(scan, files))

    return on_tokens
