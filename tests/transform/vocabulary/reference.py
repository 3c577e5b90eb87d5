"""A reference of TFT's vocabulary nodes in plain Python.

`test_beam_vocabularies` compares the local engine with Beam on the same settings.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from tests.transform.vocabulary.single_vocabulary import Vocabulary, VocabularyResult

DUMMY = (1, b"49d0cd50-04bb-48c0-bc6f-5b575dce351a")
INTEGER_DUMMY = (1, b"-1")
Pair = tuple[float, bytes]


def expected(want: Vocabulary, counts: Counter | dict) -> VocabularyResult:
    """Returns the text vocabulary of tokens, bytes or int, with their counts or weights."""
    pairs = [(metric, token if isinstance(token, bytes) else str(token).encode()) for token, metric in counts.items()]
    pruned = _pruned(want, pairs)
    lines = [line for line in pruned if line[1] not in (want.reserved or ())]
    if want.fingerprint_shuffle:
        lines.sort(key=lambda pair: hashlib.sha1(pair[1]).digest())
    else:
        lines.sort(reverse=True)
    lines[:0] = [(-1, token) for token in want.reserved or ()]
    lines = lines or [_dummy(want)]
    if want.store_frequency:
        text = [f"{metric} ".encode() + token for metric, token in lines]
    else:
        text = [token for _, token in lines]
    return VocabularyResult(b"".join(line + b"\n" for line in text), max(len(pairs), 1), max(len(pruned), 1))


def _pruned(want: Vocabulary, pairs: list[Pair]) -> list[Pair]:
    kept = _largest(_above(pairs, want.frequency_threshold), want.top_k)
    if want.top_k is not None and not kept:
        kept = [_dummy(want)]
    if want.key_fn is None:
        return kept
    covered = _above(pairs, want.coverage_frequency_threshold)
    keys = {want.key_fn(token) for _, token in covered}
    for key in keys:
        kept += _largest([pair for pair in covered if want.key_fn(pair[1]) == key], want.coverage_top_k)
    return list(set(kept))


def _above(pairs: Iterable[Pair], threshold: float) -> list[Pair]:
    return [pair for pair in pairs if not threshold > 0 or pair[0] >= threshold]


def _largest(pairs: list[Pair], most: int | None) -> list[Pair]:
    return sorted(pairs, reverse=True)[:most]


def _dummy(want: Vocabulary) -> Pair:
    return DUMMY if want.input_dtype == "string" else INTEGER_DUMMY
