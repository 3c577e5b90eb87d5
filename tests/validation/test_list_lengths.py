"""Statistics of list columns, against Python's reading of the same rows."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from tests.validation.shop_data import Outputs, run, shop, spec, write
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.given_schema import schema_text
from tidemill.runtime import Progress
from tidemill.validation import columns, scan, schema, statistics
from tidemill.validation.statistics import ExtraCounts

_TEXTS = st.one_of(st.none(), st.sampled_from(["a", "b", "", "é"]))
_NUMBERS = st.one_of(st.none(), st.integers(-3, 3))


@settings(max_examples=30, deadline=None)
@given(
    lists=st.lists(st.one_of(st.none(), st.lists(_TEXTS, max_size=4)), min_size=1, max_size=8),
    nested=st.lists(
        st.one_of(st.none(), st.lists(st.one_of(st.none(), st.lists(_NUMBERS, max_size=3)), max_size=3)),
        min_size=8,
        max_size=8,
    ),
)
def test_counts_as_python_does(tmp_path_factory, lists, nested):
    folder = tmp_path_factory.mktemp("lists")
    nested = nested[: len(lists)]
    table = pa.table(
        {
            "y": pa.array([1] * len(lists)),
            "x": pa.array(lists, pa.list_(pa.string())),
            "n": pa.array(nested, pa.list_(pa.list_(pa.int64()))),
        }
    )
    dataset = Dataset(write(folder / "examples", {"train": table}))
    found = columns.resolve(spec(labels=["y"], features=None, feature_columns=["x", "n"]), dataset.schema(), None)
    with scan.connect(folder) as connection:
        split = statistics.compute(connection, dataset, "train", found, ExtraCounts(), Progress("t"))
    stats = split.features["x"].string_stats
    present = [[value for value in row if value is not None] for row in lists if row is not None]
    check(stats.common_stats, [len(row) for row in present], len(lists) - len(present))
    assert stats.common_stats.tot_num_values == sum(map(len, present))
    assert {b.label: b.sample_count for b in stats.rank_histogram.buckets} == Counter(chain(*present))
    numbers = split.features["n"].num_stats
    outer = [row for row in nested if row is not None]
    inner = [part for row in outer for part in row]
    values = [[v for v in part if v is not None] for part in inner if part is not None]
    check(numbers.common_stats, [len(row) for row in outer], len(nested) - len(outer))
    first, second = numbers.common_stats.presence_and_valency_stats
    check(first, [len(row) for row in outer], len(nested) - len(outer))
    check(second, [len(part) for part in values], len(inner) - len(values))
    flat = list(chain(*values))
    assert numbers.common_stats.tot_num_values == second.tot_num_values == len(flat)
    if flat:
        assert (numbers.min, numbers.max) == (min(flat), max(flat))
        assert numbers.mean == pytest.approx(sum(flat) / len(flat))
    inferred = schema.infer(split.proto, found)
    assert [schema_pb2.FeatureType.Name(f.type) for f in inferred.feature] == ["INT", "BYTES", "INT"]
    lengths = {len(row) for row in present}
    fixed = len(present) == len(lists) and len(lengths) == 1 and lengths != {0}
    assert schema_text.shape_of(inferred.feature[1]) == ([*lengths] if fixed else None)


def check(stats, lengths: list[int], missing: int) -> None:
    """Compares numbers of values with those of the rows that have a list."""
    assert (stats.num_non_missing, stats.num_missing) == (len(lengths), missing)
    assert (stats.min_num_values, stats.max_num_values) == (min(lengths, default=0), max(lengths, default=0))
    if hasattr(stats, "avg_num_values"):
        assert stats.avg_num_values == pytest.approx(sum(lengths) / len(lengths) if lengths else 0.0)


def test_the_page_shows_lists_and_a_label_cannot_be_one(tmp_path):
    table = shop(40).append_column("tags", pa.array([["a", "b"], ["a"], [], None] * 10, pa.list_(pa.string())))
    options = {"features": None, "feature_columns": ["price", "tags"]}
    _, outputs = run(tmp_path / "1", {"train": table, "valid": table}, **options)
    assert "list of string" in outputs.page
    assert "values in a row (min, mean, max)" in outputs.page
    table = table.set_column(table.column_names.index("bought"), "bought", pa.array([[1]] * 40))
    with pytest.raises(TidemillError, match="lists of INT") as raised:
        run(tmp_path / "2", {"train": table}, **options)
    assert raised.value.code is Code.LABEL_TYPE


def test_fields_of_a_struct_are_checked_if_the_schema_describes_them(tmp_path):
    table = shop(40).append_column("struct", pa.array([{"a": 1, "tags": ["x"]}, {"a": 7, "tags": []}, None, None] * 10))
    fields = 'feature { name: "a" type: INT int_domain { max: 5 } } feature { name: "tags" type: BYTES }'
    text = f'feature {{ name: "struct" type: STRUCT struct_domain {{ {fields} }} }}'
    options = {"features": None, "feature_columns": ["struct"], "schema_text": text}
    with pytest.raises(TidemillError, match=r"struct\.a in train: the largest value is 7, above 5"):
        run(tmp_path, {"train": table}, **options)
    outputs = Outputs(tmp_path / "out")
    proto = anomalies_pb2.Anomalies.FromString((tmp_path / "out/anomalies/Split-train/SchemaDiff.pb").read_bytes())
    assert list(proto.anomaly_info["struct.a"].path.step) == ["struct", "a"]
    assert proto.baseline == schema_text.parse(text)
    stats = statistics.by_name(statistics.read(tmp_path / "out" / "statistics", "train"))
    assert stats["struct.tags"].string_stats.common_stats.avg_num_values == 0.5
    assert stats["struct.a"].num_stats.common_stats.num_missing == 0
    assert "struct.tags" in outputs.page
    lists = table.set_column(table.column_names.index("struct"), "struct", pa.array([[{"a": 1}]] * 40))
    with pytest.raises(TidemillError, match="a list of structs") as raised:
        run(tmp_path / "2", {"train": lists}, **options)
    assert raised.value.code is Code.UNSUPPORTED
