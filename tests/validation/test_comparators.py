"""The distances of a schema's comparators, against the values of TFDV's own tests (metrics_test.cc)."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tests.validation.shop_data import run, shop
from tidemill.errors import Code, TidemillError
from tidemill.validation import comparators
from tidemill.validation.statistics import read

_Statistics = statistics_pb2.FeatureNameStatistics


def numbers(*buckets: tuple[float, float, float], kind: str = "STANDARD") -> _Statistics:
    stats = _Statistics(type=_Statistics.FLOAT)
    stats.num_stats.common_stats.num_non_missing = 1
    histogram = stats.num_stats.histograms.add(type=statistics_pb2.Histogram.HistogramType.Value(kind))
    for low, high, count in buckets:
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count)
    return stats


def texts(**counts: float) -> _Statistics:
    stats = _Statistics(type=_Statistics.STRING)
    stats.string_stats.common_stats.num_non_missing = 1
    for label, count in counts.items():
        stats.string_stats.rank_histogram.buckets.add(label=label, sample_count=count)
    return stats


def measured(one: _Statistics, two: _Statistics, comparator: str) -> comparators.ComparatorResult:
    """Compares `x` of train with that of a published model's train."""
    sides = []
    for stats in (one, two):
        proto = statistics_pb2.DatasetFeatureStatistics(num_examples=1, features=[stats])
        proto.features[0].path.step.append("x")
        sides.append(proto)
    text = f'feature {{ name: "x" drift_comparator {{ {comparator} }} }}'
    schema = text_format.Parse(text, schema_pb2.Schema())
    (result,) = comparators.compare(schema, None, {"train": sides[0]}, sides[1])
    return result


JENSEN = "jensen_shannon_divergence { threshold: 0.01 }"


@pytest.mark.parametrize(
    ("one", "two", "comparator", "expected"),
    [
        (numbers((1, 2, 2), (2, 3, 2)), numbers((2, 4, 2), (4, 6, 2)), JENSEN, 0.65563906222),
        (numbers((1, 2, 2)), numbers((3, 4, 2)), JENSEN, 1.0),
        (numbers((0, 0, 1), (1, 1, 1)), numbers((0, 0, 1), (2, 2, 1)), JENSEN, 0.5),
        (numbers((1, 2, 3), (2, 3, 3)), numbers((1, 3, 2)), JENSEN, 0.0),
        (texts(b=2, a=2, c=1), texts(a=2, Z=1, Y=1, X=1), JENSEN, 0.6),
        (texts(hello=0.1, world=0.9), texts(hello=0.3, world=0.7), "infinity_norm { threshold: 0.1 }", 0.2),
        (texts(b=0.9, c=0.1), texts(a=0.3, b=0.7), "infinity_norm { threshold: 0.1 }", 0.3),
        (
            texts(hello=0.1, world=0.9),
            texts(hello=0.3, world=0.7),
            "normalized_abs_difference { threshold: 0.05 }",
            0.1,
        ),
        (texts(hello=1, world=5), texts(hello=10, world=50), "normalized_abs_difference { threshold: 0.05 }", 45 / 66),
    ],
)
def test_distances_are_those_of_tfdv(one, two, comparator, expected):
    result = measured(one, two, comparator)
    assert result.measurement is not None
    assert result.measurement.value == pytest.approx(expected, abs=1e-8)
    assert bool(result.type) == (expected > result.measurement.threshold)
    (info,) = comparators.to_proto([result])
    assert info.drift_measurements[0].value == result.measurement.value


def test_the_source_chooses_the_histogram():
    one, two = numbers((0, 1, 1), kind="QUANTILES"), numbers((0, 1, 1), kind="QUANTILES")
    for side, low in ((one, 0), (two, 5)):
        side.num_stats.histograms.add(type=statistics_pb2.Histogram.STANDARD).buckets.add(
            low_value=low, high_value=low + 1, sample_count=1
        )
    by_quantiles = "jensen_shannon_divergence { threshold: 0.1 source { type: QUANTILES } }"
    assert measured(one, two, by_quantiles).type == ""
    assert measured(one, two, JENSEN).type == "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"


def test_a_threshold_for_one_feature_stops_the_run(tmp_path):
    text = """feature { name: "id" type: INT } feature { name: "price" type: FLOAT }
        feature { name: "visits" type: INT } feature { name: "hour" type: INT } feature { name: "member" type: INT }
        feature { name: "at" type: INT } feature { name: "bought" type: INT }
        feature { name: "site" type: BYTES skew_comparator { infinity_norm { threshold: %g } } }"""
    moved = shop(200, seed=1)
    moved = moved.set_column(3, "site", [["site1"] * 200])
    splits = {"train": shop(1000), "valid": shop(200, seed=2), "test": moved}
    with pytest.raises(
        TidemillError, match=r"site in test: the L-infinity distance between train and test is 0\.8"
    ) as e:
        run(tmp_path / "1", splits, schema_text=text % 0.5)
    assert e.value.code is Code.SCHEMA_ANOMALY
    assert len(e.value.details["anomalies"]) == 1
    _, outputs = run(tmp_path / "2", splits, schema_text=text % 0.95)
    assert outputs.anomalies == []
    assert read(outputs.folder / "statistics", "test").num_examples == 200
