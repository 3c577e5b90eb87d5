"""Work beside the thread that wants it: counting is DuckDB's work, and what is done with it is Python's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

from tidemill.transform.analysis.counts import Counts

Value = TypeVar("Value")
_INTERRUPT_SECONDS = 0.05


class Beside:
    """One thread beside this one. To be used as a context manager, which waits for it.

    Where this thread fails, or is interrupted, the other's queries are given up. What else it does is waited for.

    Args:
        counts: What the other thread uses.
    """

    def __init__(self, counts: Counts):
        self._counts = counts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tidemill-beside")
        self._begun: list[Future[Any]] = []

    def begin(self, do: Callable[..., Value], *arguments: Any) -> Future[Value]:
        """Lets the other thread do something, after what was begun before."""
        self._begun.append(self._thread.submit(do, *arguments))
        return self._begun[-1]

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=failure is None, cancel_futures=True)
        if failure is not None:
            # An interruption that comes before the query has started is lost.
            while running := [begun for begun in self._begun if not begun.done()]:
                self._counts.interrupt()
                wait(running, timeout=_INTERRUPT_SECONDS)
            self._thread.shutdown()


class Awaited(Mapping[str, Value], Generic[Value]):
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
