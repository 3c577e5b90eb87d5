"""Values that a model does not get as they are: numbers beyond float32, tokens with line breaks, default null words."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.runs import Runner, rows
from tests.validation.shop_data import run, shop, spec
from tests.validation.test_statistics import compute
from tidemill.artifacts.examples import NULL_WORDS
from tidemill.validation import columns as columns_
from tidemill.validation import lost_values

EPOCH = 1_700_000_000
NUMBERS = {
    "seconds since 1970": (np.arange(EPOCH, EPOCH + 600, dtype=np.float64), 0.98),
    "whole seconds since 1970": (np.arange(EPOCH, EPOCH + 600), 0.98),
    "small integers": (np.arange(600), 0),
    "fractions": (np.linspace(0, 1, 600), 0),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_counts_numbers_that_become_equal(tmp_path, case):
    values, least = NUMBERS[case]
    result = compute(tmp_path, {"train": shop(600).set_column(1, "price", pa.array(values))})
    merged = 1 - len(np.unique(values.astype(np.float32))) / len(np.unique(values))
    assert result.lost["price"] == pytest.approx(merged)
    assert merged >= least


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(EPOCH, EPOCH + 300), min_size=1))
@settings(max_examples=10, deadline=None)
def test_the_share_is_that_of_numpy(tmp_path_factory, values):
    table = shop(len(values)).set_column(1, "price", pa.array([float(v) for v in values]))
    result = compute(tmp_path_factory.mktemp("t"), {"train": table})
    distinct = np.unique(np.array(values, np.float64) + 0.0)
    with np.errstate(over="ignore"):
        narrow = distinct.astype(np.float32)
    # A number beyond float32 is lost, too.
    merged = 1 - len(np.unique(narrow[np.isfinite(narrow)])) / len(distinct)
    assert result.lost["price"] == pytest.approx(merged)


@given(texts=st.lists(st.none() | st.text("ab\n\r\u2028", max_size=3), min_size=1, max_size=30))
@settings(max_examples=10, deadline=None)
def test_the_share_of_texts_with_line_breaks_is_that_of_pandas(tmp_path_factory, texts):
    table = shop(len(texts)).set_column(3, "site", pa.array(texts, pa.string()))
    share = pd.Series(texts, dtype=object).dropna().str.contains("[\n\r]").mean()
    lost = compute(tmp_path_factory.mktemp("t"), {"train": table}).lost
    assert lost.get("site", 0) == pytest.approx(share if share == share else 0)


def test_counts_texts_with_line_breaks(tmp_path):
    sites = pa.array(["a\nb", "c", "d\r", None])
    assert compute(tmp_path, {"train": shop(4).set_column(3, "site", sites)}).lost["site"] == pytest.approx(2 / 3)


def test_default_null_words_of_text_columns_are_counted(tmp_path):
    runner = Runner(tmp_path)
    lines = [f"{('NA', 'DE', '')[i % 3]},{('NA', i)[i % 2]},{i // 2 % 2}\n" for i in range(600)]
    text = "country,x,y\n" + "".join(lines)
    path = runner.write("a.csv", text)
    found = runner.run({"t": path}).dataset.metadata[NULL_WORDS]
    assert found == {"t": {"country": {"NA": pytest.approx(1 / 3), "": pytest.approx(1 / 3)}}}
    declared = {"uri": path, "columns": {"country": "VARCHAR", "x": "BIGINT", "y": "BIGINT"}}
    assert runner.run({"t": declared}).dataset.metadata[NULL_WORDS] == found
    assert runner.run({"t": {"uri": path, "csv": {"nullstr": ["", "NA"]}}}).dataset.metadata[NULL_WORDS] == {}
    assert runner.run({"t": runner.write("b.csv", rows(300))}).dataset.metadata[NULL_WORDS] == {}
    json.dumps(found)


def test_says_what_to_do():
    given = spec()
    columns = columns_.resolve(given, shop(40).schema, None)
    shares = {"price": 0.5, "visits": 0.5, "site": 0.1}
    lost = lost_values.find(shares, columns, given.features, {"t": {"site": {"NA": 0.25}}}, {"price": 0.125})
    assert "12.5 % of the rows are infinite" in lost.pop(1).text
    assert [(each.column, each.reason, each.share, each.is_dropped) for each in lost] == [
        ("price", "float32", 0.5, False),
        ("site", "line break", 0.1, True),
        ("site", "null word", 0.25, False),
    ]
    assert "source.tables.t.csv.nullstr" in lost[2].text
    without = lost_values.find(shares, columns, None, {})
    assert [each.column for each in without] == ["price", "visits", "site"]
    assert all("transform module" in each.text and not each.is_dropped for each in without)


def test_infinities_are_reported(tmp_path):
    """A model reads them as missing values (`transform.raw`)."""
    price = pa.array([1.0, float("inf"), float("-inf"), None] + [2.5] * 36)
    splits = {"train": shop(40).set_column(1, "price", price), "valid": shop(20, 1), "test": shop(20, 2)}
    summary, _ = run(tmp_path, splits, leakage={"max_strength": 1})
    (note,) = summary.notes["lost values"]
    assert note.startswith("price: 5.0 % of the rows are infinite, which is a missing value")


EXACT = ["zscore", "minmax", "ln_squared", {"clip": [0, 0.9]}]
ROUNDED = ["none", "log", "quantile", {"bucketize": 9}, {"clip": [0, 0.9], "then": "log"}]


@pytest.mark.parametrize("transform", [*EXACT, *ROUNDED], ids=str)
def test_hashed_features_and_integers_that_a_transform_rounds(transform):
    features = {
        "site": {"kind": "categorical", "hash": {"buckets": 9}},
        "visits": {"kind": "numeric", "transform": transform},
    }
    given = spec(features=features, feature_columns=list(features))
    columns = columns_.resolve(given, shop(40).schema, None)
    lost = lost_values.find({"visits": 0.5, "site": 0.1}, columns, given.features, {})
    expected = [("visits", False)] * (transform in ROUNDED) + [("site", False)]
    assert [(each.column, each.is_dropped) for each in lost] == expected
