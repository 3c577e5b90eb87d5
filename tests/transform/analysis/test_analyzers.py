"""Every analyzer but the vocabularies gives what Beam gives, on many batches, a single row, and no row at all."""

from __future__ import annotations

import numpy as np
import pytest

from tests.transform.analysis.analyzers import BATCHES, FUNCTIONS
from tests.transform.analysis.constants import by_beam, by_local

FAIL_WITHOUT_ROWS = {"phases": "slice index 0|out of bounds", "buckets": "out of bounds|too many indices"}
"""Where Beam gives keys that are none a shape in which TFT's graph then finds no dimension."""


def assert_near(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    """All constants are equal to 1e-5, and those that are no floats are equal."""
    assert got.keys() == want.keys()
    wrong = []
    for name, value in want.items():
        try:
            if value.dtype.kind == "f":
                np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=2e-6, err_msg=name)
            else:
                np.testing.assert_array_equal(got[name], value, err_msg=name)
        except AssertionError as error:
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)


def bits(array: np.ndarray) -> bytes | list:
    """What two arrays have in common if not a bit differs."""
    return array.tolist() if array.dtype == object else array.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("of", BATCHES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_constants_are_those_of_beam(function, of):
    batches = BATCHES[of]
    if of == "no row" and function in FAIL_WITHOUT_ROWS:
        assert by_local(FUNCTIONS[function], batches)
        with pytest.raises((ValueError, IndexError), match=FAIL_WITHOUT_ROWS[function]):
            by_beam(FUNCTIONS[function], batches)
        return
    got, want = by_local(FUNCTIONS[function], batches), by_beam(FUNCTIONS[function], batches)
    if of == "one row" and function == "simple":
        # Beam's is no more than the rounding of a square of float32; there is no direction in it.
        assert not got.pop("covariance").any() and np.abs(want.pop("covariance")).max() < 1e-3
        del got["pca"], want["pca"]
    assert_near(got, want)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_neither_threads_nor_files_nor_kept_spans_change_a_bit(function, tmp_path):
    files = [BATCHES["many"][:2], [], BATCHES["many"][2:]]
    want = by_local(FUNCTIONS[function], files, threads=1)
    keys = ["a", "b", "c"]
    for settings in (
        {"threads": 3},
        {"spans": tmp_path, "keys": keys},
        {"spans": tmp_path, "keys": keys, "threads": 3},
    ):
        got = by_local(FUNCTIONS[function], files, **settings)
        assert got.keys() == want.keys()
        for name in want:
            assert bits(got[name]) == bits(want[name]), name
