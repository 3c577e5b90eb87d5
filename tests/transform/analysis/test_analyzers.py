"""Every analyzer except exact vocabularies computes what Beam computes, for many rows, one row and no rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.transform.analysis.analyzers import BATCHES, FAIL_WITHOUT_ROWS, FUNCTIONS, combined
from tests.transform.analysis.constants import beam_constants, local_constants
from tests.transform.recordings import Recording

pytestmark = pytest.mark.tensorflow
Constants = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def local() -> Callable[[str], Constants]:
    """Returns the local engine's constants for one of `BATCHES`, of all functions that Beam runs; computed once."""
    results: dict[str, Constants] = {}

    def of(batches: str) -> Constants:
        if batches not in results:
            names = [name for name in FUNCTIONS if BATCHES[batches] or name not in FAIL_WITHOUT_ROWS]
            results[batches] = local_constants(combined(names), BATCHES[batches])
        return results[batches]

    return of


def constants_of(function: str, constants: Constants) -> Constants:
    """Returns the constants of one function."""
    prefix = f"{function}/"
    return {name.removeprefix(prefix): value for name, value in constants.items() if name.startswith(prefix)}


def assert_near(got: Constants, want: Constants) -> None:
    """Asserts that floats are equal to 1e-5, and that other constants are equal."""
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


@pytest.mark.parametrize("batches", ["many_rows", pytest.param("one_row", marks=pytest.mark.full)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_constants_are_beams(function: str, batches: str, local: Callable[[str], Constants]):
    got = constants_of(function, local(batches))
    want = Recording("analyzers").arrays(f"{function}/{batches}.json")
    if batches == "one_row" and function == "simple":
        # Beam's covariance is the rounding error of a float32 square, so its principal components have no direction.
        assert not got.pop("covariance").any() and np.abs(want.pop("covariance")).max() < 1e-3
        del got["pca"], want["pca"]
    assert_near(got, want)


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name not in FAIL_WITHOUT_ROWS])
def test_constants_without_rows_are_beams(function: str, local: Callable[[str], Constants]):
    got = constants_of(function, local("no_rows"))
    assert_near(got, Recording("analyzers").arrays(f"{function}/no_rows.json"))


def test_buckets_per_key_without_rows():
    got = local_constants(FUNCTIONS["buckets"], [])
    assert {name: len(value) for name, value in got.items() if "keys" in name} == {"keys": 0, "weighted_keys": 0}


def test_phases_without_rows():
    got = local_constants(FUNCTIONS["phases"], [])
    assert {name: got[name].tolist() for name in ("sum_z", "sum_by_key", "sum_large")} == {
        "sum_z": [0.0],
        "sum_by_key": [0.0],
        "sum_large": [0.0],
    }


@pytest.mark.full
@pytest.mark.beam
@pytest.mark.parametrize(
    ("function", "message"),
    [("phases", "slice index 0|out of bounds"), ("buckets", "out of bounds|too many indices")],
)
def test_beam_fails_without_rows(function: str, message: str):
    with pytest.raises((ValueError, IndexError), match=message):
        beam_constants(FUNCTIONS[function], [])
