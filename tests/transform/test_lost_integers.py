"""Integers beyond float32: reported for a transform module, and kept by the transforms that the report names."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transform.preprocess_runs import run
from tidemill.transform import lost_integers

EPOCH = 1_700_000_000
MODULE = """import tensorflow as tf
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    tract = tf.squeeze(tf.sparse.to_dense(inputs["tract"]), 1)
    return {
        "as_is": tract,
        "id": tft.compute_and_apply_vocabulary(tract),
        "scaled": tf.cast(tft.scale_to_z_score(tf.cast(tract, tf.float64)), tf.float32),
        "small": tf.math.floormod(tract, 1000),
    }
"""


def table(values: np.ndarray) -> pa.Table:
    rows = len(values)
    return pa.table(
        {"key": [str(i) for i in range(rows)], "tract": values, "y": pa.array(np.arange(rows) % 2, pa.int8())}
    )


def test_reports_integers_of_a_module_that_become_other_numbers(tmp_path: Path):
    """Census tracts: eleven digits, 100 apart."""
    tracts = 17_031_010_100 + 100 * np.arange(200)
    result = run(tmp_path, {"train": table(tracts)}, transform_module=MODULE)
    narrow = tracts.astype(np.float32)
    changed, equal = (narrow.astype(np.int64) != tracts).mean(), 1 - len(np.unique(narrow)) / len(tracts)
    assert (changed, equal) == (pytest.approx(0.995), pytest.approx(0.9))
    ((sentence,),) = result.summary.notes.values()
    assert sentence.startswith(f"as_is: {changed:.1%} of the integers")
    assert f"{equal:.1%} of the distinct ones" in sentence


INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(2**24 - 5, 2**24 + 20) | st.integers(-100, 100)


@given(values=st.lists(INTEGERS, min_size=1, max_size=20))
@settings(max_examples=100)
def test_the_shares_are_those_of_pandas(values: list[int]):
    series = pd.Series(values, dtype="int64")
    changed = sum(int(narrow) != value for narrow, value in zip(series.astype("float32"), values, strict=True))
    sentence = lost_integers.describe("x", series.to_numpy())
    if not changed:
        assert sentence is None
        return
    equal = 1 - series.drop_duplicates().astype("float32").nunique() / series.nunique()
    assert f"{changed / len(values):.1%} of the integers" in sentence
    assert f"{equal:.1%} of the distinct ones" in sentence


def test_zscore_and_minmax_keep_integers_apart_that_float32_does_not(tmp_path: Path):
    seconds = EPOCH + 7 * np.arange(300)
    features = {"tract": {"kind": "numeric"}}
    for transform in ("zscore", "minmax"):
        features["tract"]["transform"] = transform
        found = run(tmp_path / transform, {"train": table(seconds)}, features=features)
        result = found.transformed_column("train", "tract")
        exact = (seconds - seconds.mean()) / seconds.std() if transform == "zscore" else np.linspace(0, 1, 300)
        np.testing.assert_allclose(result, exact, atol=1e-6)
        assert len(np.unique(result)) == 300 > len(np.unique(seconds.astype(np.float32)))
        assert found.summary.notes == {}
