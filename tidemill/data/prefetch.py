"""Reading ahead on a thread, so that reading and writing overlap."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_WAIT_S = 0.1


def prefetched(items: Iterator[Item], ahead: int) -> Generator[Item, None, None]:
    """Yields the items of an iterator that is read on a thread of its own.

    Waits for the thread when closed. An exception of the iterator is raised after the items before it.

    Args:
        items: The iterator. Nothing else may use it.
        ahead: Number of items that are read in advance.
    """
    ready: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(ahead)
    closed = threading.Event()

    def put(is_item: bool, value: Item | BaseException | None) -> None:
        while not closed.is_set():
            try:
                return ready.put((is_item, value), timeout=_WAIT_S)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in items:
                put(True, item)
                if closed.is_set():
                    return
            put(False, None)
        except BaseException as error:  # It is raised in the thread that reads the items.
            put(False, error)

    thread = threading.Thread(target=read, name="tidemill-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = ready.get()
            if is_item:
                yield value  # type: ignore[misc]
            elif isinstance(value, BaseException):
                raise value
            else:
                return
    finally:
        closed.set()
        thread.join()
