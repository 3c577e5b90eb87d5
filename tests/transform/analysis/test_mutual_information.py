"""Mutual information of single tokens; recorded vocabularies compare it with Beam's."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.transform.analysis.mutual_information import MutualInformation, Occurrences

pytestmark = pytest.mark.tensorflow


def occurrences(count: int, *means: float) -> Occurrences:
    return Occurrences(np.int64(count), np.float32(1), np.array(means, np.float32))


def test_token_that_determines_a_balanced_label_has_one_bit_per_record():
    information = MutualInformation(occurrences(8, 0.5, 0.5), False, 0)
    bits, weight = information.of(b"a", occurrences(4, 0.0, 1.0))
    assert (bits, weight) == (pytest.approx(4, rel=1e-4), 4)
    assert information.of(b"b", occurrences(4, 0.5, 0.5)) == (pytest.approx(0, abs=1e-6), 4)


def test_adjusted_information_is_smaller():
    every, token = occurrences(8, 0.5, 0.5), occurrences(4, 0.0, 1.0)
    plain, adjusted = (MutualInformation(every, adjusted, 0).of(b"a", token)[0] for adjusted in (False, True))
    assert 0 < adjusted < plain


def test_counts_near_their_expected_value_add_no_information():
    assert MutualInformation(occurrences(8, 0.5, 0.5), False, 3.0).of(b"a", occurrences(4, 0.0, 1.0)) == (0, 4)


def test_token_in_every_record_has_no_information():
    assert MutualInformation(occurrences(8, 0.5, 0.5), False, 0).of(b"a", occurrences(8, 0.5, 0.5)) == (0, 8)


def test_label_that_never_occurs_has_no_information():
    with_label, without = occurrences(8, 0.5, 0.5, 0.0), occurrences(8, 0.5, 0.5)
    results = [
        MutualInformation(every, False, 0).of(b"a", occurrences(4, 0.25, 0.75)) for every in (with_label, without)
    ]
    assert results[0] == results[1]


def test_information_without_records_is_nan():
    bits, weight = MutualInformation(occurrences(0, 0.0), False, 0).of(b"a", occurrences(0, 0.0))
    assert np.isnan(bits) and weight == 0


def test_rejects_a_token_in_more_records_than_exist():
    with pytest.raises(ValueError, match=r"'a' higher than number of records 9\.0 > 8\.0"):
        MutualInformation(occurrences(8, 1.0), False, 0).of("a", occurrences(9, 1.0))
