"""Sizes of embedding tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tidemill.errors import Code, TidemillError
from tidemill.models.core.inputs import FLOAT_BYTES, Layout, TableSizes
from tidemill.models.core.sizes import report, table_sizes, within_budget
from tidemill.models.dcn_v2 import DcnV2
from tidemill.models.deepfm import DeepFm
from tidemill.models.lr import LogisticRegression

LAYOUT = Layout(("a", "b", "c"), (1000, 3, 1000), ("x",))


def test_sizes_are_explicit_or_by_rule():
    assert table_sizes(LogisticRegression(family="lr"), LAYOUT).dims == (1, 1, 1)
    assert table_sizes(DcnV2(family="dcn_v2"), LAYOUT).dims == (16, 3, 16)
    assert table_sizes(DeepFm(family="deepfm"), LAYOUT).dims == (16, 16, 16)
    assert table_sizes(DeepFm(family="deepfm", embedding_dims={"a": 8}), LAYOUT).dims == (8, 16, 16)
    # 6 * 1000^(1/4) is 33.7, and 6 * 3^(1/4) is 7.9.
    assert table_sizes(DeepFm(family="deepfm", embedding_dims="auto", embedding_dim=64), LAYOUT).dims == (36, 8, 36)
    assert table_sizes(DeepFm(family="deepfm", embedding_dims="auto"), LAYOUT).dims == (16, 8, 16)


def test_shared_tables_count_once():
    sizes = table_sizes(DeepFm(family="deepfm", shared_embeddings=[["c", "a"]]), LAYOUT)
    assert sizes.tables == (0, 1, 0)
    # DeepFM has a vector and a weight for each id.
    assert sizes.bytes == 1003 * 17 * FLOAT_BYTES
    assert table_sizes(LogisticRegression(family="lr"), LAYOUT).bytes == 2003 * FLOAT_BYTES


@pytest.mark.parametrize(
    "settings",
    [{"embedding_dims": {"x": 8}}, {"shared_embeddings": [["a", "b"]]}, {"shared_embeddings": [["a", "no_such"]]}],
    ids=["a number", "other vocabularies", "no feature"],
)
def test_rejects_features_that_do_not_fit(settings):
    with pytest.raises(TidemillError) as error:
        table_sizes(DeepFm(family="deepfm", **settings), LAYOUT)
    assert error.value.code is Code.INVALID_VALUE


def counts(*numbers_of_ids: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.zipf(1.5, n).clip(0, 10_000).astype(np.int64) for n in numbers_of_ids]


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 4)), min_size=1, max_size=4),
    st.integers(0, 2000),
    st.integers(0, 99),
)
def test_keeps_the_budget_and_the_most_frequent_ids(tables, budget, seed):
    ns, dims = tuple(n for n, _ in tables), tuple(d for _, d in tables)
    whole = TableSizes(dims, ns, tuple(range(len(ns))), dims)
    occurrences = counts(*ns, seed=seed)
    if budget < sum(dims) * FLOAT_BYTES and budget < whole.bytes:
        with pytest.raises(TidemillError):
            within_budget(whole, occurrences, budget, "models.m.max_embedding_bytes")
        return
    cut = within_budget(whole, occurrences, budget, "models.m.max_embedding_bytes")
    assert cut.bytes <= budget
    assert all(1 <= rows <= n for rows, n in zip(cut.rows, ns, strict=True))
    if len(set(dims)) == 1 and whole.bytes > budget:
        # If all vectors have one size, it keeps the most frequent ids, as many as fit.
        kept = sum(c[s < rows - 1].sum() for c, s, rows in zip(occurrences, cut.slots, cut.rows, strict=True))
        free_rows = budget // (dims[0] * FLOAT_BYTES) - len(ns)
        # The least frequent id of a table never has a row of its own: it belongs to the last row.
        candidates = np.sort(np.concatenate([np.sort(c)[1:] for c in occurrences]))[::-1]
        assert kept == candidates[:free_rows].sum()
        for slots, rows in zip(cut.slots, cut.rows, strict=True):
            assert np.array_equal(np.unique(slots), np.arange(min(rows, len(slots))))


def test_reports_the_share_of_rows_without_a_row_of_their_own():
    occurrences = counts(1000, 3, 1000)
    cut = within_budget(TableSizes((4, 4, 4), LAYOUT.num_ids, (0, 1, 2), (4, 4, 4)), occurrences, 1600, "x")
    features = report(cut, LAYOUT, occurrences)["features"]
    assert features["b"]["cut_share"] == 0 if cut.rows[1] == 3 else features["b"]["cut_share"] > 0
    expected = np.sort(occurrences[0])[::-1][cut.rows[0] - 1 :].sum() / occurrences[0].sum()
    assert features["a"] == {"ids": 1000, "rows": cut.rows[0], "dim": 4, "cut_share": pytest.approx(expected, abs=1e-6)}


@pytest.mark.parametrize("groups", [[["a", "b"], ["b", "c"]], [["a", "a"]]])
def test_rejects_a_feature_in_two_groups(groups):
    with pytest.raises(ValidationError, match="twice"):
        DeepFm(family="deepfm", shared_embeddings=groups)
