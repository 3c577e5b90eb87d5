"""Vocabularies that Beam computed once, and that the local engine must match."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.transform.vocabulary.single_vocabulary import Batch, Ordering, Vocabulary, beam_vocabularies
from tests.transform.vocabulary.tokens import AWKWARD, NO_UTF8, VOCABULARIES

_TOKENS = 90
_INTEGERS = [5, 4, 40, 39, -3, 0, 2**63 - 1, -(2**63), 2**53, 2**53 + 1, 111, 10]
Wanted = dict[str, tuple[Vocabulary, list[Batch]]]


@dataclass(frozen=True)
class Group:
    """Vocabularies that one Beam pipeline computes.

    Attributes:
        wanted: By name the settings of a vocabulary and its batches.
        local: Arguments of `local_vocabulary`.
    """

    wanted: Wanted
    local: dict[str, int | bool] = dataclasses.field(default_factory=dict)


def every_vocabulary(batches: list[Batch], **fields: object) -> Wanted:
    """Returns each of `VOCABULARIES` over the same batches."""
    return {name: (dataclasses.replace(want, **fields), batches) for name, want in VOCABULARIES.items()}


def token_batches(tokens: list, seed: int) -> list[Batch]:
    """Returns batches of tokens, some of them frequent; one batch is empty."""
    rng = np.random.default_rng(seed)
    dtype = object if isinstance(tokens[0], bytes) else np.int64
    indices = np.minimum(rng.geometric(0.15, _TOKENS) - 1, len(tokens) - 1)
    values = np.array([tokens[i] for i in indices], dtype)
    return [(values[:31],), (values[:0],), (values[31:70],), (values[70:],)]


def weighted_batches(seed: int) -> list[Batch]:
    """Returns batches of tokens with positive, negative, tiny and huge weights."""
    rng = np.random.default_rng(seed)
    names, batches = [b"a", b"b", b"c", b"d1", b"d2"], []
    for size in (3, 0, 5, 4):
        weights = rng.choice([*rng.normal(0, 5, 4), 0.0, -0.0, 2.0**-20, 1e9], size).astype(np.float32)
        batches.append((rng.permutation(np.array(names, object))[:size], weights))
    return batches


def labeled_batches(weighted: bool, seed: int) -> list[Batch]:
    """Returns batches of rows with distinct tokens and a label, reduced as TFT's graph reduces a batch."""
    rng = np.random.default_rng(seed)
    names, weights = [b"a", b"b", b"c", b"d", b"d1"], [0.5, 1.0, 2.0, 0.1, 3.7] if weighted else [1.0]
    rows = [
        (
            set(rng.choice(names, rng.integers(0, 4), replace=False).tolist()),
            int(rng.integers(0, 3)),
            rng.choice(weights),
        )
        for _ in range(50)
    ]
    return [_reduce(rows[start : start + 17], weighted) for start in range(0, len(rows), 17)]


def _reduce(rows: list[tuple[set[bytes], int, float]], weighted: bool) -> Batch:
    """Does what `tf_utils.reduce_batch_weighted_cooccurrences` does."""
    labels = max(label for _, label, _ in rows) + 1
    names = [*sorted({token for tokens, _, _ in rows for token in tokens}), b"global_y_count_sentinel"]
    index = {token: position for position, token in enumerate(names)}
    weights, counts = np.zeros(len(names), np.float32), np.zeros(len(names), np.int64)
    positives = np.zeros((len(names), labels), np.float32)
    for tokens, label, weight in rows:
        for token in [*tokens, names[-1]]:
            weights[index[token]] += np.float32(weight)
            counts[index[token]] += 1
            positives[index[token], label] += np.float32(weight)
    array = np.array(names, object)
    return (array, weights, positives, counts) if weighted else (array, positives, counts)


def _records() -> Wanted:
    weights = [(np.array([b"a", b"b"], object), np.array([0.1, 2], np.float32))] * 2
    weighted = Vocabulary(ordering=Ordering.WEIGHTED_FREQUENCY, store_frequency=True, top_k=1)
    tokens, records = token_batches(AWKWARD, 4), {"file_format": "tfrecord_gzip"}
    return {
        "all": (Vocabulary(**records), token_batches(AWKWARD + NO_UTF8, 0)),
        "weights": (weighted, weights),
        "none": (Vocabulary(**records, frequency_threshold=1e9), tokens),
        "some": (Vocabulary(**records, store_frequency=True), tokens),
        "reserved": (Vocabulary(**records, reserved=(b"a", b"r")), tokens),
    }


def _informative(weighted: bool, seed: int) -> Wanted:
    batches = labeled_batches(weighted, seed)
    ordering = Ordering.WEIGHTED_MUTUAL_INFORMATION if weighted else Ordering.MUTUAL_INFORMATION
    kinds = {
        "information": {"min_diff_from_avg": 0},
        "adjusted": {"min_diff_from_avg": 0, "adjusted": True},
        "least": {},
        "least_adjusted": {"adjusted": True},
        "top": {"min_diff_from_avg": 0, "top_k": 2},
        "threshold": {"min_diff_from_avg": 0, "informativeness_threshold": 0.3},
        "shuffled": {"min_diff_from_avg": 0, "fingerprint_shuffle": True},
        "none": {"informativeness_threshold": 1e9, "top_k": 1},
    }
    fields = {"ordering": ordering, "store_frequency": True}
    return {name: (Vocabulary(**kind, **fields), batches) for name, kind in kinds.items()}


_WEIGHTS = {"ordering": Ordering.WEIGHTED_FREQUENCY, "store_frequency": True}
# With one unit, sums of weights are added in Beam's order.
GROUPS = {
    "bytes": Group(every_vocabulary(token_batches(AWKWARD + NO_UTF8, 1)), {"files": 2, "through_disk": True}),
    # With frequencies, Beam fails on a token that is not UTF-8.
    "frequencies": Group(every_vocabulary(token_batches(AWKWARD, 2), store_frequency=True)),
    "integers": Group(
        every_vocabulary(token_batches(_INTEGERS, 3), input_dtype="int64", store_frequency=True), {"files": 2}
    ),
    "records": Group(_records()),
    "weights": Group(every_vocabulary(weighted_batches(0), **_WEIGHTS), {"unit": 99}),
    "weights_from_disk": Group(every_vocabulary(weighted_batches(1), **_WEIGHTS), {"unit": 99, "through_disk": True}),
    "informative": Group(_informative(False, 0), {"unit": 99}),
    "informative_from_disk": Group(_informative(False, 1), {"unit": 99, "through_disk": True}),
    "informative_weights": Group(_informative(True, 2), {"unit": 99}),
    "informative_weights_from_disk": Group(_informative(True, 3), {"unit": 99, "through_disk": True}),
}


def record(folder: Path) -> dict[str, bytes]:
    """Returns the vocabularies that Beam computes, and the number of tokens before and after pruning."""
    files = {}
    for group_name, group in GROUPS.items():
        for name, result in beam_vocabularies(group.wanted, folder / group_name).items():
            files[f"{group_name}/{name}/file"] = result.file
            files[f"{group_name}/{name}/sizes.json"] = json.dumps([result.unpruned, result.pruned]).encode()
    return files
