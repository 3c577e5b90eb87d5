"""The index of known values finds what a dict finds."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.transform.apply import value_index
from tidemill.transform.apply.value_index import NOT_FOUND, ValueIndex

_BINARY = st.binary(max_size=20) | st.sampled_from(
    [b"", b"\x00", b"\x00\x00", b"a" * 12, b"a" * 13, b"a" * 12 + b"\x00"]
)
_NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)


def assert_finds_like_a_dict(known: pa.Array, values: pa.Array) -> None:
    positions = {value: position for position, value in enumerate(known.to_pylist())}
    expected = [positions.get(value, NOT_FOUND) for value in values.to_pylist()]
    valid = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
    assert ValueIndex(known).find(values)[valid].tolist() == np.array(expected, int)[valid].tolist()


@pytest.mark.parametrize(("type_", "values"), [(pa.large_binary(), _BINARY), (pa.int64(), _NUMBERS)])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_values(type_: pa.DataType, values: st.SearchStrategy, data: st.DataObject):
    known = data.draw(st.lists(values, unique=True, max_size=40))
    searched = data.draw(
        st.lists(st.sampled_from(known) | values | st.none() if known else values | st.none(), max_size=60)
    )
    start = data.draw(st.integers(0, 3))
    offset = [known[0] if known else None] * start
    assert_finds_like_a_dict(pa.array(known, type_), pa.array(offset + searched, type_).slice(start))


@pytest.mark.parametrize("length", [8, 12, 13, 40])
def test_many_values_of_each_length(length: int):
    rng = np.random.default_rng(length)
    words = [b"%0*d" % (length, number) for number in rng.choice(10**7, 70_000, replace=False)]
    assert_finds_like_a_dict(
        pa.array(words[:30_000], pa.large_binary()), pa.array(words[10_000:] + words[:20_000], pa.large_binary())
    )


@pytest.mark.parametrize("type_", [pa.large_binary(), pa.int64()])
def test_values_with_equal_hashes_are_told_apart(type_: pa.DataType, monkeypatch: pytest.MonkeyPatch):
    """Many values share a hash, or the half of it that is compared first."""
    plain = value_index._Keys.__init__

    def poor(self: value_index._Keys, array: pa.Array) -> None:
        plain(self, array)
        self.hashes = self.hashes & np.uint64(0x0000000300000007)

    monkeypatch.setattr(value_index._Keys, "__init__", poor)
    numbers = list(range(300))
    values = numbers if pa.types.is_int64(type_) else [b"value number %d" % number for number in numbers]
    assert_finds_like_a_dict(pa.array(values[:200], type_), pa.array(values * 2, type_))


def test_interrupt_ends_the_wait_for_a_lock():
    """Without `value_index`, Polars makes such a wait continue after a signal, from its import on."""
    event = threading.Event()
    interrupt = threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    release = threading.Timer(10, event.set)
    with pytest.raises(KeyboardInterrupt):
        release.start()
        interrupt.start()
        event.wait()
    release.cancel()
    assert not event.is_set()
