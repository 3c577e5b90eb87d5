"""Work beside the thread that wants it: counting is DuckDB's work, and what is done with it is Python's."""

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
    """One thread beside this one. To be used as a context manager, which waits for it.

    Where this thread fails, or is interrupted, the other's queries are given up. What else it does is waited for.

    Args:
        counts: What the other thread uses.
    """

    def __init__(self, counts: CountStore):
        self._counts = counts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tidemill-beside")
        self._begun: list[Future[Any]] = []

    def submit(self, do: Callable[..., Value], *arguments: Any) -> Future[Value]:
        """Lets the other thread do something, after what was begun before."""
        self._begun.append(self._thread.submit(do, *arguments))
        return self._begun[-1]

    def __enter__(self) -> BackgroundThread:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=failure is None, cancel_futures=True)
        if failure is not None:
            # An interruption that comes before the query has started is lost.
            while running := [begun for begun in self._begun if not begun.done()]:
                self._counts.interrupt()
                wait(running, timeout=_INTERRUPT_SECONDS)
            self._thread.shutdown()


class AwaitedValues(Mapping[str, Value], Generic[Value]):
    """Values that are waited for when they are asked for."""

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


_MOST_ROWS = 10_000_000
"""Of more rows the values are counted in one go with what becomes of them, which takes less memory."""


def prefetch_counts(rows: RowSource, counts: CountStore) -> OnTokens | None:
    """What a `Trace` is to tell of its tokens, so that their columns are counted.

    Args:
        rows: What is analysed.
        counts: Where to count.

    Returns:
        None if prefetching does not help: with one thread, with more than 10 million rows, and with an analyzer cache,
        for which only a few of the files may have to be read.
    """
    if counts.threads < 2 or counts.per_file or sum(file.rows for file in rows.files) > _MOST_ROWS:
        return None
    files = [file.index for file in rows.files]
    facts: list[Facts] = []

    def on_tokens(inputs: Mapping[str, Any], tokens: tf.Tensor) -> None:
        if not facts:
            flat = {name: value for name, value in inputs.items() if rows.is_flat(name)}
            facts.append(Facts(tokens.graph, flat, is_width_one=False))
        # Of what the graph captures from now on nothing is known, nor of the graph of a branch or a loop.
        fact = facts[0].of(tokens) if tokens.graph is facts[0].graph else None
        if isinstance(fact, Elements) and fact.level is Level.RAW and len(fact.columns) == 1:
            (column,) = fact.columns
            if scan := rows.scan(column):
                counts.prefetch(grouped(scan, files))

    return on_tokens
