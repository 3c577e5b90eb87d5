"""Vocabulary files against those of TFT's Beam implementation, byte by byte."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.transform.vocabulary.single_vocabulary import Batch, Ordering, Wanted, by_beam, by_local
from tests.transform.vocabulary.tokens import AWKWARD, NO_UTF8, VOCABULARIES

RNG_TOKENS = 90
FEW = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def assert_same(wanted: dict[str, tuple[Wanted, list[Batch]]], **settings: int | bool) -> None:
    """Both engines, all vocabularies."""
    with tempfile.TemporaryDirectory() as folder:
        theirs = by_beam(wanted, Path(folder) / "beam")
        for name, (want, batches) in wanted.items():
            ours = by_local(want, batches, Path(folder) / f"local_{name}", **settings)
            assert ours == theirs[name], name


def all_of(batches: list[Batch], **fields: object) -> dict[str, tuple[Wanted, list[Batch]]]:
    """Every kind of vocabulary of the batches."""
    return {name: (dataclasses.replace(want, **fields), batches) for name, want in VOCABULARIES.items()}


def drawn(tokens: list, seed: int) -> list[Batch]:
    """Batches of tokens, some of them often, and one batch that is empty."""
    rng = np.random.default_rng(seed)
    dtype = object if isinstance(tokens[0], bytes) else np.int64
    indices = np.minimum(rng.geometric(0.15, RNG_TOKENS) - 1, len(tokens) - 1)
    values = np.array([tokens[i] for i in indices], dtype)
    return [(values[:31],), (values[:0],), (values[31:70],), (values[70:],)]


def test_records_and_weights_in_one_run():
    """The fast one of these tests."""
    tokens = drawn(AWKWARD + NO_UTF8, 0)
    weights = [(np.array([b"a", b"b"], object), np.array([0.1, 2], np.float32))] * 2
    weighted = Wanted(ordering=Ordering.WEIGHTED_FREQUENCY, store_frequency=True, top_k=1)
    assert_same({"records": (Wanted(file_format="tfrecord_gzip"), tokens), "weights": (weighted, weights)})


@pytest.mark.slow
def test_bytes():
    assert_same(all_of(drawn(AWKWARD + NO_UTF8, 1)), files=2, through_disk=True)


@pytest.mark.slow
def test_texts_with_frequencies():
    # Beam fails on a token that is no UTF-8 where it writes the frequency too.
    assert_same(all_of(drawn(AWKWARD, 2), store_frequency=True))


@pytest.mark.slow
def test_integers():
    tokens = [5, 4, 40, 39, -3, 0, 2**63 - 1, -(2**63), 2**53, 2**53 + 1, 111, 10]
    assert_same(all_of(drawn(tokens, 3), input_dtype="int64", store_frequency=True), files=2)


@pytest.mark.slow
def test_compressed_records_of_nothing_and_with_frequencies():
    wanted = {"none": (Wanted(file_format="tfrecord_gzip", frequency_threshold=1e9), drawn(AWKWARD, 4))}
    wanted["some"] = (Wanted(file_format="tfrecord_gzip", store_frequency=True), drawn(AWKWARD, 4))
    wanted["reserved"] = (Wanted(file_format="tfrecord_gzip", reserved=(b"a", b"r")), drawn(AWKWARD, 4))
    assert_same(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_weights(seed: int):
    rng = np.random.default_rng(seed)
    names, batches = [b"a", b"b", b"c", b"d1", b"d2"], []
    for size in (3, 0, 5, 4):
        weights = rng.choice([*rng.normal(0, 5, 4), 0.0, -0.0, 2.0**-20, 1e9], size).astype(np.float32)
        batches.append((rng.permutation(np.array(names, object))[:size], weights))
    # One unit, so that the sums are added in Beam's order.
    wanted = all_of(batches, ordering=Ordering.WEIGHTED_FREQUENCY, store_frequency=True)
    assert_same(wanted, unit=99, through_disk=bool(seed))


@st.composite
def labelled_batches(draw, weighted: bool) -> list[Batch]:
    """Rows of distinct tokens with a label, reduced as TFT's graph reduces a batch."""
    row = st.tuples(
        st.sets(st.sampled_from([b"a", b"b", b"c", b"d", b"d1"]), max_size=3),
        st.integers(0, 2),
        st.sampled_from([0.5, 1.0, 2.0, 0.1, 3.7]) if weighted else st.just(1.0),
    )
    rows = draw(st.lists(row, min_size=20, max_size=60))
    size = draw(st.integers(5, 60))
    return [reduced(rows[start : start + size], weighted) for start in range(0, len(rows), size)]


def reduced(rows: list[tuple[set[bytes], int, float]], weighted: bool) -> Batch:
    """What `tf_utils.reduce_batch_weighted_cooccurrences` gives."""
    labels = max(label for _, label, _ in rows) + 1
    tokens = [*sorted({token for found, _, _ in rows for token in found}), b"global_y_count_sentinel"]
    place = {token: index for index, token in enumerate(tokens)}
    weights, counts = np.zeros(len(tokens), np.float32), np.zeros(len(tokens), np.int64)
    positives = np.zeros((len(tokens), labels), np.float32)
    for found, label, weight in rows:
        for token in [*found, tokens[-1]]:
            weights[place[token]] += np.float32(weight)
            counts[place[token]] += 1
            positives[place[token], label] += np.float32(weight)
    names = np.array(tokens, object)
    return (names, weights, positives, counts) if weighted else (names, positives, counts)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
@FEW
@given(data=st.data(), analyzer_cache=st.booleans())
def test_mutual_information(weighted: bool, data: st.DataObject, analyzer_cache: bool):
    batches = data.draw(labelled_batches(weighted))
    ordering = Ordering.WEIGHTED_MUTUAL_INFORMATION if weighted else Ordering.MUTUAL_INFORMATION
    kinds = {
        "information": Wanted(min_diff_from_avg=0),
        "adjusted": Wanted(min_diff_from_avg=0, adjusted=True),
        "least": Wanted(),
        "least_adjusted": Wanted(adjusted=True),
        "top": Wanted(min_diff_from_avg=0, top_k=2),
        "threshold": Wanted(min_diff_from_avg=0, informativeness_threshold=0.3),
        "shuffled": Wanted(min_diff_from_avg=0, fingerprint_shuffle=True),
        "none": Wanted(informativeness_threshold=1e9, top_k=1),
    }
    changed = {"ordering": ordering, "store_frequency": True}
    wanted = {name: (dataclasses.replace(kind, **changed), batches) for name, kind in kinds.items()}
    assert_same(wanted, unit=99, through_disk=analyzer_cache)
