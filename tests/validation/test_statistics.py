from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import statistics_pb2

from tests.validation.shop_data import shop, spec, write
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.validation import columns, scan, statistics
from tidemill.validation.domain_counts import DomainRequests
from tidemill.validation.statistics import ExtraCounts, SplitStatistics

FLOAT, INT, STRING = (statistics_pb2.FeatureNameStatistics.Type.Value(t) for t in ("FLOAT", "INT", "STRING"))


def compute(tmp_path, tables, asked=None, split="train", **changes) -> SplitStatistics:
    dataset = Dataset(write(tmp_path / "examples", tables, row_group_rows=512, shard_rows=1024))
    resolved = columns.resolve(spec(**changes), dataset.schema(), None)
    with scan.connect(tmp_path) as connection:
        return statistics.compute(connection, dataset, split, resolved, asked or ExtraCounts(), Progress("validate"))


@pytest.fixture(scope="module")
def table():
    return shop(3000)


@pytest.fixture(scope="module")
def result(table, tmp_path_factory):
    return compute(tmp_path_factory.mktemp("statistics"), {"train": table})


def test_numbers_equal_numpy(table, result):
    price = table["price"].drop_null().to_numpy()
    feature = result.features["price"]
    stats = feature.num_stats
    assert (feature.type, result.proto.num_examples) == (FLOAT, 3000)
    assert stats.common_stats.num_non_missing == len(price)
    assert stats.common_stats.num_missing == 3000 - len(price) > 0
    assert (stats.min, stats.max, stats.median) == (price.min(), price.max(), np.median(price))
    assert stats.mean == pytest.approx(price.mean(), rel=1e-12)
    assert stats.std_dev == pytest.approx(price.std(), rel=1e-12)
    standard, quantiles = stats.histograms
    assert standard.type == statistics_pb2.Histogram.STANDARD
    counts, edges = np.histogram(price, 10)
    assert [b.sample_count for b in standard.buckets] == counts.tolist()
    assert [b.low_value for b in standard.buckets] == pytest.approx(edges[:-1])
    assert quantiles.type == statistics_pb2.Histogram.QUANTILES
    assert sum(b.sample_count for b in quantiles.buckets) == len(price)
    for bucket in quantiles.buckets[:-1]:
        assert bucket.sample_count == ((price >= bucket.low_value) & (price < bucket.high_value)).sum()


def test_counts_zeros(table, result):
    visits = table["visits"].to_numpy()
    assert result.features["visits"].num_stats.num_zeros == (visits == 0).sum()


def test_counts_strings(table, result):
    feature = result.features["site"]
    stats, site = feature.string_stats, table["site"].drop_null()
    counts = sorted(((c["values"], c["counts"]) for c in site.value_counts().to_pylist()), key=lambda c: (-c[1], c[0]))
    assert feature.type == STRING
    assert stats.unique == 8
    assert [(t.value, t.frequency) for t in stats.top_values] == counts
    assert [(b.label, b.sample_count) for b in stats.rank_histogram.buckets] == counts
    assert stats.avg_length == pytest.approx(pc.mean(pc.utf8_length(site)).as_py())
    assert stats.common_stats.num_missing == table["site"].null_count


def test_integer_categories_keep_their_type(result):
    feature = result.features["hour"]
    assert feature.type == INT
    assert feature.WhichOneof("stats") == "string_stats"
    assert {b.label for b in feature.string_stats.rank_histogram.buckets} == {str(h) for h in range(24)}


def test_booleans_and_instants_are_numbers(table, result):
    assert result.features["member"].num_stats.mean == pytest.approx(pc.mean(table["member"].cast(pa.int8())).as_py())
    assert result.features["at"].num_stats.max == 2999 * 60


def test_high_cardinality_is_exact_and_bounded(tmp_path):
    table = shop(5000).set_column(3, "site", pa.array([f"user{i // 2}" for i in range(5000)]))
    stats = compute(tmp_path, {"train": table}).features["site"].string_stats
    assert stats.unique == 2500
    assert len(stats.top_values) == 20
    assert len(stats.rank_histogram.buckets) == 1000


def test_nan_is_missing_and_infinity_is_present(tmp_path):
    values = [1.0, 2.0, float("nan"), float("inf"), None, 3.0]
    table = shop(6).set_column(1, "price", pa.array(values))
    result = compute(tmp_path, {"train": table})
    stats = result.features["price"].num_stats
    assert (stats.common_stats.num_non_missing, stats.common_stats.num_missing) == (4, 2)
    assert (stats.min, stats.max, stats.mean) == (1, float("inf"), 2)
    assert (result.nan["price"], stats.histograms[0].num_nan, result.infinite["price"]) == (1, 0, 1)


@given(values=st.lists(st.none() | st.floats(width=32), min_size=1, max_size=20))
@settings(max_examples=10, deadline=None)
def test_infinities_and_nan_are_counted_as_numpy_counts_them(tmp_path_factory, values):
    table = shop(len(values)).set_column(1, "price", pa.array(values, pa.float64()))
    result = compute(tmp_path_factory.mktemp("t"), {"train": table})
    array = np.array([v for v in values if v is not None], np.float64)
    present = array[~np.isnan(array)]
    assert result.nan.get("price", 0) == np.isnan(array).sum()
    assert result.infinite.get("price", 0) == np.isinf(array).sum()
    if len(present):
        assert result.ranges["price"] == (present.min(), present.max())


@pytest.mark.parametrize(("values", "mean"), [([np.inf, np.inf], np.inf), ([-np.inf, np.inf], np.nan)])
def test_statistics_of_infinities_say_so(tmp_path, values, mean):
    table = shop(2).set_column(1, "price", pa.array(values))
    stats = compute(tmp_path, {"train": table}).features["price"].num_stats
    assert (stats.min, stats.max) == (min(values), max(values))
    np.testing.assert_equal([stats.mean, stats.median], [mean, mean])


def test_finds_nan_that_parquet_metadata_ignores(tmp_path):
    table = shop(6).set_column(1, "price", pa.array([1.0, 2.0, float("nan")] * 2))
    stats = compute(tmp_path, {"train": table}).features["price"].num_stats
    assert (stats.common_stats.num_missing, stats.max) == (2, 2)


def test_counts_values_outside_a_domain(tmp_path):
    table = shop(4).set_column(3, "site", pa.array(["a", "b", "b", None]))
    asked = DomainRequests(strings={"site": ["a"]})
    outside = compute(tmp_path, {"train": table}, ExtraCounts(domains=asked)).domains.outside["site"]
    assert (outside.rows, outside.values) == (2, ["b"])


def test_counts_rows_in_given_bins(table, tmp_path):
    edges = np.array([1.0, 5.0, 20.0])
    result = compute(tmp_path, {"train": table}, ExtraCounts(bin_edges={"price": {"mine": edges}}))
    price = table["price"].drop_null().to_numpy()
    expected = np.histogram(price, [-np.inf, *edges, np.inf])[0]
    np.testing.assert_array_equal(result.bin_counts["price"]["mine"], expected)


@pytest.mark.parametrize("rows", [0, 1])
def test_describes_splits_without_or_with_one_row(tmp_path, rows):
    result = compute(tmp_path, {"train": shop(10), "valid": shop(rows)}, split="valid")
    assert result.proto.num_examples == rows
    assert result.features["visits"].num_stats.common_stats.num_non_missing == rows
    assert result.features["hour"].string_stats.unique == rows


def test_describes_unusual_types(tmp_path):
    extra = {
        "decimal": pa.array([1, None, 3], pa.decimal128(5, 2)),
        "blob": pa.array([b"ab", b"abcd", None]),
        "list": pa.array([[1], [], None]),
        "day": pa.array([0, 1, 2], pa.date32()),
        "big": pa.array([0, 2**64 - 1, 5], pa.uint64()),
        "nothing": pa.nulls(3),
        'a "quoted" name': pa.array([1, 2, 3]),
    }
    table = shop(3)
    for name, values in extra.items():
        table = table.append_column(name, values)
    features = compute(tmp_path, {"train": table}).features
    assert features["decimal"].num_stats.mean == 2
    blob = features["blob"].bytes_stats
    assert (blob.avg_num_bytes, blob.min_num_bytes, blob.max_num_bytes) == (3, 2, 4)
    assert features["list"].num_stats.common_stats.num_missing == 1
    assert features["day"].num_stats.max == 2 * 86400
    assert features["big"].num_stats.max == pytest.approx(2.0**64)
    assert features["nothing"].struct_stats.common_stats.num_non_missing == 0
    assert features['a "quoted" name'].num_stats.mean == 2


def test_bytes_do_not_depend_on_the_order_of_rows(table, tmp_path):
    shuffled = table.take(np.random.default_rng(1).permutation(len(table)))
    blobs = []
    for name, rows in {"one": table, "two": shuffled}.items():
        (tmp_path / name).mkdir()
        statistics.write(tmp_path / name / "s", {"train": compute(tmp_path / name, {"train": rows})})
        blobs.append((tmp_path / name / "s" / "Split-train" / "FeatureStats.pb").read_bytes())
    assert blobs[0] == blobs[1]


def test_reads_written_statistics(result, tmp_path):
    statistics.write(tmp_path / "s", {"train": result})
    assert statistics.read(tmp_path / "s", "train") == result.proto


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b""])
def test_rejects_unreadable_statistics(data):
    with pytest.raises(TidemillError) as raised:
        statistics.parse(data, "somewhere")
    assert raised.value.code is Code.UNREADABLE_FILE


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([5, 5, 5], pa.int64()),
        ([2**62, 2**62 + 1, 2**62 + 2], pa.int64()),
        ([-(2**63), 0, 2**63 - 1], pa.int64()),
        ([0, 1, 10_000], pa.int64()),
        ([1e308, -1e308, 0.0], pa.float64()),
        ([5e-324, 0.0, 0.0], pa.float64()),
        ([0.5, 0.5, 0.5], pa.float64()),
    ],
)
def test_extreme_ranges_keep_all_rows(tmp_path, values, kind):
    table = shop(3).set_column(1, "price", pa.array(values, kind))
    result = compute(tmp_path, {"train": table})
    stats = result.features["price"].num_stats
    assert (stats.min, stats.max, stats.median) == tuple(map(float, (min(values), max(values), sorted(values)[1])))
    assert result.chart_counts["price"].sum() == 3
    for histogram in stats.histograms:
        assert sum(bucket.sample_count for bucket in histogram.buckets) == 3
