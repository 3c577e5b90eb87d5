"""Statistics of a split in TFX's form (`DatasetFeatureStatisticsList`), computed by DuckDB over the Parquet shards.

All numbers are exact, approximations aside that the form itself asks for: values are counted by GROUP BY, which
spills to disk when they do not fit, and everything else is derived from those counts in a fixed order. The same rows
give the same bytes, however many threads count them. Every column is read twice: once with all others for counts and
ranges, once on its own for its values.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import statistics_pb2

from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.validation import distribution
from tidemill.validation.columns import Column
from tidemill.validation.scan import table_of

TOP_VALUES = 20
RANKED_VALUES = 1000
FILE = "FeatureStats.pb"
_BATCH = 1 << 16
_SHOWN_BARS = 30


@dataclass(frozen=True)
class Outside:
    """Values of a column outside of its string domain: the rows that hold one, and the most frequent such values."""

    rows: int
    values: list[str]


@dataclass(frozen=True)
class SplitStatistics:
    """What was computed over one split.

    Attributes:
        proto: The statistics in TFX's form.
        probes: For each number, for each name of the caller's edges, the rows between them (`distribution.bins`).
        shown: For each number, the rows between `shown_edges`.
        outside: For each column with a string domain, the values outside of it.
        infinite: For each number, its infinite values; they count as present and enter nothing else.
        not_binary: For each label, rows where it is neither missing nor 0 nor 1.
    """

    proto: statistics_pb2.DatasetFeatureStatistics
    probes: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    shown: dict[str, np.ndarray] = field(default_factory=dict)
    outside: dict[str, Outside] = field(default_factory=dict)
    infinite: dict[str, int] = field(default_factory=dict)
    not_binary: dict[str, int] = field(default_factory=dict)

    @property
    def features(self) -> dict[str, statistics_pb2.FeatureNameStatistics]:
        """The statistics by column."""
        return by_name(self.proto)


@dataclass(frozen=True)
class Asked:
    """What is counted beside the statistics themselves.

    Attributes:
        probes: For each number, named ascending edges, float64 [e].
        shown_edges: For each number, the edges of the histogram on the page. Filled while train is read.
        domains: The string domain of each column that has one.
    """

    probes: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    shown_edges: dict[str, np.ndarray] = field(default_factory=dict)
    domains: Mapping[str, Sequence[str]] = field(default_factory=dict)


def compute(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    split: str,
    columns: Sequence[Column],
    asked: Asked,
    progress: Progress,
) -> SplitStatistics:
    """Computes the statistics of one split.

    Missing are nulls and NaN. Integers that are categories keep the type INT and have string statistics, as with TFDV.
    Booleans count as the integers 0 and 1, instants as seconds since 1970.

    Args:
        connection: From `scan.connect`.
        dataset: The examples.
        split: Its name. It may be empty.
        columns: From `columns.resolve`.
        asked: What else is counted. `shown_edges` is filled for numbers that have none yet.
        progress: Told how many columns are through.
    """
    proto = statistics_pb2.DatasetFeatureStatistics(name=split, num_examples=dataset.rows(split))
    facts = _base(connection, dataset, split, columns)
    labels = [c.name for c in columns if c.role == "label"]
    result = SplitStatistics(proto, not_binary={name: int(facts[name].get("not_binary", 0)) for name in labels})
    for done, column in enumerate(columns):
        progress.rows(done, len(columns), f"columns of {split}")
        feature = proto.features.add(type=column.type)
        feature.path.step.append(column.name)
        present = facts[column.name]["present"]
        if present and column.view in ("number", "category"):
            _count_values(connection, dataset, split, column)
        if column.view == "number":
            _number(connection, feature, column, facts[column.name], asked, result)
        elif column.view == "category":
            _category(connection, feature, column, present, asked, result)
        _common(feature, column, present, proto.num_examples)
        if column.view == "bytes" and present:
            sizes = facts[column.name]
            feature.bytes_stats.avg_num_bytes = sizes["bytes"] / present
            feature.bytes_stats.min_num_bytes, feature.bytes_stats.max_num_bytes = sizes["low"], sizes["high"]
    progress.rows(len(columns), len(columns), f"columns of {split}")
    return result


def common(feature: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.CommonStatistics:
    """The common statistics of a column, of whichever type."""
    kind = feature.WhichOneof("stats")
    return getattr(feature, kind).common_stats if kind else statistics_pb2.CommonStatistics()


def by_name(proto: statistics_pb2.DatasetFeatureStatistics) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    """A split's statistics by column."""
    return {f.path.step[0] if f.path.step else f.name: f for f in proto.features}


def write(path: str | os.PathLike, splits: Mapping[str, SplitStatistics]) -> None:
    """Writes `Split-<name>/FeatureStats.pb` for each split, as a sealed folder."""
    with artifact.write_folder(path, {"splits": {n: s.proto.num_examples for n, s in splits.items()}}) as root:
        for name, split in splits.items():
            folder = root / f"Split-{name}"
            folder.mkdir()
            whole = statistics_pb2.DatasetFeatureStatisticsList(datasets=[split.proto])
            (folder / FILE).write_bytes(whole.SerializeToString(deterministic=True))


def parse(data: bytes, where: str) -> statistics_pb2.DatasetFeatureStatistics:
    """Reads the bytes of a `FeatureStats.pb`.

    Raises:
        TidemillError: `unreadable-file` when they are no statistics of one dataset.
    """
    whole = statistics_pb2.DatasetFeatureStatisticsList()
    try:
        whole.ParseFromString(data)
    except DecodeError as error:
        got = "bytes that are no DatasetFeatureStatisticsList"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, "publish the model again") from error
    if len(whole.datasets) != 1:
        got = f"statistics of {len(whole.datasets)} datasets"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, "publish the model again")
    return whole.datasets[0]


def read(folder: str | os.PathLike, split: str) -> statistics_pb2.DatasetFeatureStatistics:
    """One split of a folder that `write` made."""
    file = Path(folder) / f"Split-{split}" / FILE
    return parse(file.read_bytes(), str(file))


def _base(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, split: str, columns: Sequence[Column]
) -> dict[str, dict[str, float | int]]:
    """Counts and ranges of all columns in one pass."""
    asked = {c.name: _base_parts(c, f"c{i}") for i, c in enumerate(columns)}
    if not dataset.rows(split):
        return {name: dict.fromkeys(parts, 0) for name, parts in asked.items()}
    values = ", ".join(f"{c.sql} AS c{i}" for i, c in enumerate(columns))
    parts = ", ".join(sql for column in asked.values() for sql in column.values())
    row = connection.execute(f"SELECT {parts} FROM (SELECT {values} FROM {table_of(dataset, split)})").fetchone()
    found = iter(row)
    return {name: {part: next(found) for part in parts} for name, parts in asked.items()}


def _base_parts(column: Column, value: str) -> dict[str, str]:
    if column.view == "bytes":
        size = f"octet_length({value})"
        return {
            "present": f"count({value})",
            "bytes": f"sum({size})::DOUBLE",
            "low": f"min({size})",
            "high": f"max({size})",
        }
    if column.view != "number":
        return {"present": f"count({value})"}
    finite = f" FILTER (isfinite({value}))" if column.is_float else ""
    parts = {"finite": f"count({value}){finite}", "low": f"min({value}){finite}", "high": f"max({value}){finite}"}
    parts["present"] = f"count({value}) FILTER (NOT isnan({value}))" if column.is_float else f"count({value})"
    parts["nan"] = f"count({value}) FILTER (isnan({value}))" if column.is_float else "0"
    parts["zeros"] = f"count({value}) FILTER ({value} = 0)"
    if column.role == "label":
        nan = f" AND NOT isnan({value})" if column.is_float else ""
        parts["not_binary"] = f"count({value}) FILTER ({value} NOT IN (0, 1){nan})"
    return parts


def _count_values(connection: duckdb.DuckDBPyConnection, dataset: Dataset, split: str, column: Column) -> None:
    """Fills the temporary table `counts` (v, n) with the column's values: present, and finite if numbers."""
    kept = "isfinite(v)" if column.is_float else "v IS NOT NULL"
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE counts AS SELECT v, count(*)::BIGINT AS n "
        f"FROM (SELECT {column.sql} AS v FROM {table_of(dataset, split)}) WHERE {kept} GROUP BY v"
    )


def _scan(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    reader = connection.sql("SELECT v, n FROM counts ORDER BY v").to_arrow_reader(_BATCH)
    for batch in reader:
        yield batch.column(0).to_numpy(zero_copy_only=False), batch.column(1).to_numpy(zero_copy_only=False)


def _number(
    connection: duckdb.DuckDBPyConnection,
    feature: statistics_pb2.FeatureNameStatistics,
    column: Column,
    facts: Mapping[str, float | int],
    asked: Asked,
    result: SplitStatistics,
) -> None:
    stats, finite = feature.num_stats, int(facts["finite"])
    infinite = int(facts["present"]) - finite
    if infinite:
        result.infinite[column.name] = infinite
    probes = dict(asked.probes.get(column.name, {}))
    nan = int(facts["nan"])
    if finite:
        low, high = float(facts["low"]), float(facts["high"])
        summary = distribution.moments(_scan(connection), finite)
        stats.mean, stats.std_dev, stats.median = summary.mean, summary.std_dev, summary.median
        stats.min, stats.max, stats.num_zeros = low, high, int(facts["zeros"])
        shown = asked.shown_edges.setdefault(column.name, _shown_edges(column, summary, low, high))
        standard = distribution.equal_edges(low, high)
        sets = [standard, shown, *probes.values()]
        below = distribution.count_below(_scan(connection), sets)
        _histogram(stats, "STANDARD", standard, below[0], finite, nan, infinite)
        _histogram(stats, "QUANTILES", summary.edges, summary.below, finite, nan, infinite, point=True)
        counts = [distribution.bins(b, finite) for b in below[1:]]
    else:
        sizes = [len(asked.shown_edges.get(column.name, ())), *map(len, probes.values())]
        counts = [np.zeros(size + 1, dtype=np.int64) for size in sizes]
    result.shown[column.name] = counts[0]
    result.probes[column.name] = dict(zip(probes, counts[1:], strict=True))


def _histogram(
    stats: statistics_pb2.NumericStatistics,
    kind: str,
    edges: np.ndarray,
    below: np.ndarray,
    total: int,
    nan: int,
    infinite: int,
    *,
    point: bool = False,
) -> None:
    """Adds a histogram of half-open buckets. The last bucket is closed; with `point` it holds the last edge alone."""
    kinds = statistics_pb2.Histogram.HistogramType
    histogram = stats.histograms.add(type=kinds.Value(kind), num_nan=nan, num_undefined=infinite)
    counts = distribution.bins(below, total)[1:].tolist()
    if not point and len(edges) > 1:
        counts[-2:] = [counts[-2] + counts[-1]]
    highs = [*edges[1:].tolist(), float(edges[-1])]
    for low, high, count in zip(edges.tolist(), highs, counts, strict=False):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count)


def _shown_edges(column: Column, summary: distribution.Moments, low: float, high: float) -> np.ndarray:
    """Edges for the page: bars of equal widths over the middle 90 %, widened by half on each side as far as there are
    values; what lies beyond falls into the outer bars. Bars of integers are whole numbers wide."""
    if high - low >= _SHOWN_BARS or column.is_float:
        inner = summary.edges[1:-1] if len(summary.edges) > 2 else summary.edges
        spread = (inner[-1] - inner[0]) / 2
        if spread > 0:
            low, high = max(low, inner[0] - spread), min(high, inner[-1] + spread)
    if column.is_float:
        return distribution.equal_edges(low, high, _SHOWN_BARS)
    low = math.floor(low)
    width = math.ceil((high - low + 1) / _SHOWN_BARS)
    return np.unique(low + width * np.arange(math.ceil((high - low + 1) / width) + 1, dtype=np.float64))


def _category(
    connection: duckdb.DuckDBPyConnection,
    feature: statistics_pb2.FeatureNameStatistics,
    column: Column,
    present: int,
    asked: Asked,
    result: SplitStatistics,
) -> None:
    stats = feature.string_stats
    if not present:
        stats.unique = 0
        return
    unique, characters = connection.execute("SELECT count(*), sum(length(v) * n)::DOUBLE FROM counts").fetchone()
    stats.unique, stats.avg_length = unique, characters / present
    top = connection.execute(f"SELECT v, n FROM counts ORDER BY n DESC, v LIMIT {RANKED_VALUES}").fetchall()
    for rank, (value, count) in enumerate(top):
        if rank < TOP_VALUES:
            stats.top_values.add(value=value, frequency=count)
        stats.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=value, sample_count=count)
    domain = asked.domains.get(column.name)
    if domain is not None:
        connection.execute("CREATE OR REPLACE TEMP TABLE domain AS SELECT unnest($1::VARCHAR[]) AS v", [list(domain)])
        outside = "FROM counts WHERE v NOT IN (SELECT v FROM domain)"
        rows = connection.execute(f"SELECT coalesce(sum(n), 0)::BIGINT {outside}").fetchone()[0]
        values = connection.execute(f"SELECT v {outside} ORDER BY n DESC, v LIMIT 5").fetchall()
        result.outside[column.name] = Outside(rows, [v for (v,) in values])


def _common(feature: statistics_pb2.FeatureNameStatistics, column: Column, present: int, rows: int) -> None:
    field_name = {"number": "num_stats", "category": "string_stats", "bytes": "bytes_stats", "opaque": "struct_stats"}
    stats = getattr(feature, field_name[column.view]).common_stats
    stats.num_non_missing, stats.num_missing, stats.tot_num_values = present, rows - present, present
    if present:
        stats.min_num_values = stats.max_num_values = 1
        stats.avg_num_values = 1.0
