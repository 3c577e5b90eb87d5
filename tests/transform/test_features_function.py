"""Each transform of `features`, compared with a NumPy reference."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from tests.transform.preprocess_runs import FEATURES, Run
from tidemill.errors import Code, TidemillError
from tidemill.experiment.experiment import Experiment
from tidemill.transform.features_function import LN_IDS, LOG2_IDS, feature_columns

pytestmark = pytest.mark.tensorflow
SPLITS = ("train", "valid", "test")


def numbers(run: Run, split: str, column: str) -> np.ndarray:
    """Returns a raw column as float64, rounded to float32 unless it has integers, with NaN for missing values."""
    values = run.raw(split, column)
    if any(isinstance(v, float) for v in values):
        return np.array([math.nan if v is None else v for v in values], np.float32).astype(np.float64)
    return np.array([math.nan if v is None else v for v in values], np.float64)


def assert_close(run: Run, split: str, feature: str, expected: np.ndarray) -> None:
    made = run.transformed_column(split, feature)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("feature", "fill"), [("zscore", None), ("zscore_zero", 0.0), ("zscore_number", -7.5)])
def test_zscore(all_kinds: Run, split: str, feature: str, fill: float | None):
    train, x = numbers(all_kinds, "train", feature), numbers(all_kinds, split, feature)
    mean, deviation = np.nanmean(train), np.nanstd(train)
    expected = (np.where(np.isnan(x), mean if fill is None else fill, x) - mean) / deviation
    assert_close(all_kinds, split, feature, expected)


def test_statistics_come_only_from_train(all_kinds: Run):
    assert abs(all_kinds.transformed_column("train", "zscore").mean()) < 1e-5
    assert all_kinds.transformed_column("valid", "zscore").mean() > 0.5
    assert all_kinds.transformed_column("valid", "minmax").max() > 1
    assert all_kinds.transformed_column("train", "minmax").max() == 1


@pytest.mark.parametrize("split", SPLITS)
def test_minmax_log_none(all_kinds: Run, split: str):
    train, x = numbers(all_kinds, "train", "minmax"), numbers(all_kinds, split, "minmax")
    mean, low, high = np.nanmean(train), np.nanmin(train), np.nanmax(train)
    filled = np.where(np.isnan(x), mean, x)
    assert_close(all_kinds, split, "minmax", (filled - low) / (high - low))
    assert_close(all_kinds, split, "none", filled)
    zero = np.where(np.isnan(x), 0, x)
    assert_close(all_kinds, split, "log", np.sign(zero) * np.log1p(np.abs(zero)))


@pytest.mark.parametrize("split", SPLITS)
def test_quantile(all_kinds: Run, split: str):
    train, x = numbers(all_kinds, "train", "quantile"), numbers(all_kinds, split, "quantile")
    filled, known = np.where(np.isnan(x), np.nanmean(train), x), np.sort(train[~np.isnan(train)])
    below = np.searchsorted(known, filled, "left") + np.searchsorted(known, filled, "right")
    ranks = all_kinds.transformed_column(split, "quantile")
    np.testing.assert_allclose(ranks, below / (2 * len(known)), atol=0.002)
    assert 0 <= ranks.min() <= ranks.max() <= 1


def test_clip(all_kinds: Run):
    x, made = numbers(all_kinds, "train", "clipped"), all_kinds.transformed_column("train", "clipped")
    x, made = x[~np.isnan(x)], made[~np.isnan(x)].astype(np.float64)
    low, high = np.quantile(x, [0.05, 0.9])
    assert np.mean(made == made.min()) == pytest.approx(0.05, abs=0.003)
    assert np.mean(made == made.max()) == pytest.approx(0.1, abs=0.003)
    clipped = np.clip(x, low, high)
    np.testing.assert_allclose(made, (clipped - clipped.mean()) / clipped.std(), atol=0.02)
    assert (abs(made.mean()), made.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    valid, x = all_kinds.transformed_column("valid", "clipped"), numbers(all_kinds, "valid", "clipped")
    assert np.float32(made.min()) <= valid.min() <= valid.max() == np.float32(made.max())
    inside = (x > low + 0.1) & (x < high - 0.1)
    np.testing.assert_allclose(valid[inside], (x[inside] - clipped.mean()) / clipped.std(), atol=0.02)


@pytest.mark.parametrize("split", SPLITS)
def test_constants_and_booleans(all_kinds: Run, split: str):
    assert_close(all_kinds, split, "constant", np.zeros(all_kinds.examples.rows(split)))
    assert_close(all_kinds, split, "constant_minmax", np.zeros(all_kinds.examples.rows(split)))
    flag = numbers(all_kinds, split, "flag")
    assert_close(all_kinds, split, "flag", np.where(np.isnan(flag), 0.5, flag))


def test_bucketize(all_kinds: Run):
    x, ids = numbers(all_kinds, "train", "buckets"), all_kinds.transformed_column("train", "buckets")
    assert ids.dtype == np.int32
    assert all_kinds.num_ids("buckets") == 9
    assert (ids[np.isnan(x)] == 8).all()
    present = ~np.isnan(x)
    shares = np.bincount(ids[present], minlength=8) / present.sum()
    np.testing.assert_allclose(shares, 1 / 8, atol=0.2 / 8)
    both_x = np.concatenate([x, numbers(all_kinds, "valid", "buckets")])
    both_ids = np.concatenate([ids, all_kinds.transformed_column("valid", "buckets")])[~np.isnan(both_x)]
    both_x = both_x[~np.isnan(both_x)]
    for bucket in range(7):
        assert both_x[both_ids == bucket].max() < both_x[both_ids == bucket + 1].min()


def test_bucketize_fills_missing_values(all_kinds: Run):
    x, ids = numbers(all_kinds, "valid", "buckets_number"), all_kinds.transformed_column("valid", "buckets_number")
    assert all_kinds.num_ids("buckets_number") == 8
    assert (ids[np.isnan(x)] == 7).all()
    np.testing.assert_array_equal(ids[~np.isnan(x)], all_kinds.transformed_column("valid", "buckets")[~np.isnan(x)])


def log2_squared(value: int | None) -> int:
    if value is None:
        return 0
    if value <= 2:
        return max(value, -10) + 11
    return 13 + math.floor(math.log2(value) ** 2 + 1e-9)


@pytest.mark.parametrize("split", SPLITS)
def test_log2_squared(all_kinds: Run, split: str):
    values = all_kinds.raw(split, "log2")
    np.testing.assert_array_equal(all_kinds.transformed_column(split, "log2"), [log2_squared(v) for v in values])
    filled = [log2_squared(3 if v is None else v) for v in values]
    np.testing.assert_array_equal(all_kinds.transformed_column(split, "log2_number"), filled)
    assert all_kinds.num_ids("log2") == LOG2_IDS == 13 + 63 * 63 + 1
    assert all_kinds.transformed_column("train", "log2")[0] == LOG2_IDS - 1


@pytest.mark.parametrize("split", SPLITS)
def test_ln_squared_is_what_the_winners_of_criteo_computed(all_kinds: Run, split: str):
    """Their code: `int(math.log(value) ** 2)` above 2, else `SP` and the value."""
    values = all_kinds.raw(split, "ln")
    ids = all_kinds.transformed_column(split, "ln")
    for value, i in zip(values, ids, strict=True):
        if value is None:
            assert i == 0
        else:
            assert i == (14 + int(math.log(value) ** 2) if value > 2 else max(value, -10) + 11)
    assert all_kinds.num_ids("ln") == LN_IDS == 14 + int(math.log(2**63 - 1) ** 2) + 1


def vocabulary(values: list[str], top_k: int | None, min_count: int) -> list[str]:
    """Returns tokens in TFT's order: by count, then by bytes, both descending; without tokens with line breaks."""
    counts = Counter(v for v in values if "\n" not in v)
    order = sorted(counts, key=lambda v: (counts[v], v.encode() or b"\x00"), reverse=True)
    return [v for v in order if counts[v] >= min_count][:top_k]


def tokens(values: list, missing: str) -> list[str]:
    return [missing if v is None else str(int(v)) if isinstance(v, bool | int) else v for v in values]


@pytest.mark.parametrize(
    ("feature", "top_k", "min_count", "oov", "missing"),
    [
        ("text", None, 1, 1, ""),
        ("text_top", 5, 1, 3, "none"),
        ("text_min", None, 60, 1, ""),
        ("integer", None, 1, 1, ""),
        ("boolean", None, 1, 1, ""),
    ],
)
def test_vocabulary(all_kinds: Run, feature: str, top_k: int | None, min_count: int, oov: int, missing: str):
    words = vocabulary(tokens(all_kinds.raw("train", feature), missing), top_k, min_count)
    assert all_kinds.num_ids(feature) == len(words) + oov
    index = {word: i for i, word in enumerate(words)}
    for split in SPLITS:
        values = tokens(all_kinds.raw(split, feature), missing)
        ids = all_kinds.transformed_column(split, feature)
        assert ids.dtype == np.int32
        known = np.array([v in index for v in values])
        np.testing.assert_array_equal(ids[known], [index[v] for v in values if v in index])
        assert ((ids[~known] >= len(words)) & (ids[~known] < len(words) + oov)).all()
        by_value: dict[str, set] = {}
        for value, i in zip(values, ids, strict=True):
            by_value.setdefault(value, set()).add(int(i))
        assert all(len(ids_of_value) == 1 for ids_of_value in by_value.values())


def test_rows_contain_awkward_and_unknown_words(all_kinds: Run):
    """Checks the rows of the vocabulary test."""
    train, valid = set(all_kinds.raw("train", "text")), set(all_kinds.raw("valid", "text"))
    assert {"", None, "größe", "line\nbreak"} <= train
    assert "" not in valid
    assert all_kinds.num_ids("text_min") < all_kinds.num_ids("text")
    assert {2**63 - 1, -(2**63) + 1} <= set(all_kinds.raw("train", "integer"))


@pytest.mark.parametrize("split", SPLITS)
def test_hash_and_cross(all_kinds: Run, split: str):
    import tensorflow as tf

    hashed = tf.strings.to_hash_bucket_fast(tokens(all_kinds.raw(split, "hashed"), ""), 50).numpy()
    np.testing.assert_array_equal(all_kinds.transformed_column(split, "hashed"), hashed)
    pairs = [tokens(all_kinds.raw(split, c), "\x00") for c in ("text", "integer")]
    joined = [f"{a}\x1f{b}" for a, b in zip(*pairs, strict=True)]
    np.testing.assert_array_equal(
        all_kinds.transformed_column(split, "crossed"), tf.strings.to_hash_bucket_fast(joined, 97).numpy()
    )
    assert all_kinds.num_ids("hashed") == 50
    assert all_kinds.num_ids("crossed") == 97
    assert len(set(hashed)) > 4


def test_outputs_have_the_order_and_kinds_of_the_features(all_kinds: Run):
    assert [f["name"] for f in all_kinds.graph.features] == list(FEATURES)
    assert all_kinds.transformed.schema().names == [*FEATURES, "y"]
    for feature in all_kinds.graph.features:
        for split in SPLITS:
            values = all_kinds.transformed_column(split, feature["name"])
            if feature["kind"] == "id":
                assert 0 <= values.min() <= values.max() < feature["num_ids"]
            else:
                assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("column", "type_", "feature"),
    [
        ("a", pa.string(), {"a": {"kind": "numeric"}}),
        ("a", pa.timestamp("us"), {"a": {"kind": "numeric"}}),
        ("a", pa.float64(), {"a": {"kind": "categorical"}}),
        ("a", pa.list_(pa.string()), {"a": {"kind": "categorical"}}),
        ("a", pa.float32(), {"c": {"kind": "cross", "of": ["a", "b"]}}),
    ],
)
def test_rejects_a_column_of_another_type(column: str, type_: pa.DataType, feature: dict):
    source = {"tables": {"t": "t.csv"}}
    models = [{"family": "dcn_v2"}]
    experiment = Experiment.model_validate(
        {"name": "x", "source": source, "label": "y", "features": feature, "models": models}
    )
    with pytest.raises(
        TidemillError, match=repr(column) if type_ in (pa.string(), pa.float32(), pa.float64()) else column
    ) as caught:
        feature_columns(experiment.features, pa.schema([(column, type_), ("b", pa.string())]))
    assert caught.value.code is Code.FEATURE_TYPE
