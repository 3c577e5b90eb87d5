"""Passes over the rows: order, look-ahead, and failures of threads."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tests.transform.analysis.analyzers import rows
from tests.transform.analysis.constants import CONFIG, batch
from tests.transform.batch_rows import BatchRows
from tidemill.transform.analysis.passes import run_pass
from tidemill.transform.tft.trace import Trace

pytestmark = pytest.mark.tensorflow


class RowList:
    """A reduction that lists the rows that it receives."""

    scans = False

    def __init__(self, tensor, fail_at=None, wait=lambda row: None):
        self.tensors = (tensor,)
        self.calls, self.fail_at, self.wait = [], fail_at, wait
        self.max_in_work, self._started, self._collected = 0, 0, 0
        self._lock = threading.Lock()

    def start(self):
        with self._lock:
            self._started += 1
            self.max_in_work = max(self.max_in_work, self._started - self._collected)
        return []

    def add(self, partial, values):
        first = int(values[0][0])
        self.wait(first)
        if first == self.fail_at:
            raise RuntimeError(f"row {first}")
        return [*partial, *values[0].tolist()]

    def finish(self, partial):
        return tuple(partial)

    def collect(self, file, partial):
        with self._lock:
            self._collected += 1
        self.calls.append((file, *partial))

    def close(self, file):
        self.calls.append((file, "closed"))


@pytest.fixture
def trace(tmp_path):
    return Trace(lambda inputs: {"row": inputs["row"]}, BatchRows([], CONFIG).specs, tmp_path)


def run(trace, reductions, threads, units=12, by_file=None):
    """Runs a pass over three files, one of them without units; `by_file` selects the reductions of each file."""
    batches = [batch(rows(2 * units)[start : start + 2]) for start in range(0, 2 * units, 2)]
    source = BatchRows([batches[:5], [], batches[5:]], CONFIG)
    done = []
    work = [
        (file, [reductions[k] for k in (by_file or {}).get(file.index, range(len(reductions)))])
        for file in source.files
    ]
    run_pass(trace, source, work, threads=threads, progress=done.append)
    return done


def threads_of_passes():
    return [thread for thread in threading.enumerate() if thread.name.startswith("tidemill-pass")]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_units_are_collected_in_order(trace, threads):
    row_list = RowList(trace.inputs["row"], wait=lambda row: time.sleep(0.01 if row % 8 == 0 else 0))
    done = run(trace, [row_list], threads)
    units = [(0 if row < 10 else 2, row, row + 1) for row in range(0, 24, 2)]
    assert row_list.calls == [*units[:5], (0, "closed"), (1, "closed"), *units[5:], (2, "closed")]
    assert done == [2] * 12
    assert row_list.max_in_work <= threads + 2
    assert not threads_of_passes()


def test_look_ahead_is_bounded_when_the_first_unit_is_slow(trace):
    slow = threading.Event()
    row_list = RowList(trace.inputs["row"], wait=lambda row: slow.wait(0.5) if row == 0 else None)
    run(trace, [row_list], 3, units=40)
    assert row_list.max_in_work <= 3 + 2


def test_failure_of_a_thread_ends_the_pass(trace):
    row_list = RowList(trace.inputs["row"], fail_at=8)
    with pytest.raises(RuntimeError, match="row 8"):
        run(trace, [row_list], 3, units=40)
    assert not threads_of_passes()
    assert (2, "closed") not in row_list.calls


def test_raises_the_first_failure_in_row_order(trace):
    first = RowList(trace.inputs["row"], fail_at=2, wait=lambda row: time.sleep(0.1 if row == 2 else 0))
    second = RowList(trace.inputs["row"], fail_at=6)
    with pytest.raises(RuntimeError, match="row 2"):
        run(trace, [first, second], 4)


def test_interrupt_ends_all_threads(trace):
    row_list = RowList(trace.inputs["row"])

    def interrupt(file, partial):
        raise KeyboardInterrupt

    row_list.collect = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(trace, [row_list], 2)
    assert not threads_of_passes()


def test_reductions_receive_only_their_files(trace):
    one, two = RowList(trace.inputs["row"]), RowList(trace.inputs["row"])
    run(trace, [one, two], 2, by_file={0: [0], 1: [0, 1], 2: [1]})
    assert {call[0] for call in one.calls} == {0, 1} and {call[0] for call in two.calls} == {1, 2}
    assert np.all([len(call) == 3 for call in two.calls if "closed" not in call])
