"""Statistics of a split in TFX's form (`DatasetFeatureStatisticsList`), computed by DuckDB.

All numbers are exact. DuckDB counts the values of a column with GROUP BY, which spills to disk if they do not fit into
memory, and everything else is computed from these counts in a fixed order. So the bytes of the statistics depend only
on the rows, not on their order or the number of threads. Each column is read twice: with other columns for counts and
ranges, and by itself for its values.

DuckDB takes a time that grows with the number of a file's columns to open it, and a time that is quadratic in the
expressions of a query to plan it. So wide examples are read in groups of columns, which are copied into a table.
"""

from __future__ import annotations

import functools
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
from tidemill.duckdb_session import quote
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.validation import distribution, domain_counts, list_lengths, lost_values
from tidemill.validation.column_totals import COLUMNS_AT_ONCE, one_row, totals_of
from tidemill.validation.columns import ExampleColumn
from tidemill.validation.domain_counts import DomainCounts, DomainRequests
from tidemill.validation.number_histograms import add_histogram, chart_edges_of
from tidemill.validation.scan import table_of

TOP_VALUES = 20
RANKED_VALUES = 1000
FILE = "FeatureStats.pb"
_BATCH = 1 << 16
_COPIED_ROWS = 1 << 20
"""Number of rows up to which the columns of wide examples are copied. With more rows, opening the files does not
matter."""
_KINDS = {"number": "num_stats", "category": "string_stats", "bytes": "bytes_stats", "opaque": "struct_stats"}


@dataclass(frozen=True)
class SplitStatistics:
    """Statistics of one split, and the counts that validation needs in addition.

    Attributes:
        proto: The statistics in TFX's form.
        bin_counts: For each number and each name in `ExtraCounts.bin_edges`, the rows in each bin, int64 [edges + 1]
            (`distribution.bins`).
        chart_counts: For each number, the rows in each bin of its chart, int64 [edges + 1].
        domains: The counts for the schema's domains.
        infinite: For each number that has infinite values, how many. They count as present, and no other number
            includes them.
        nan: For each number that has NaN, how many. They count as missing, and no other number includes them.
        lost: For each feature of train, the share of its values that a model does not get (`lost_values.count`).
        unseen: For each categorical feature, the rows with a value that train does not contain, and the most frequent
            of these values. Empty for train.
        ranges: For each number that has values, the smallest and the largest exactly, infinities included.
    """

    proto: statistics_pb2.DatasetFeatureStatistics
    bin_counts: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    chart_counts: dict[str, np.ndarray] = field(default_factory=dict)
    domains: DomainCounts = field(default_factory=DomainCounts)
    infinite: dict[str, int] = field(default_factory=dict)
    nan: dict[str, int] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    unseen: dict[str, tuple[int, str]] = field(default_factory=dict)

    @functools.cached_property
    def features(self) -> dict[str, statistics_pb2.FeatureNameStatistics]:
        """The statistics by column. Read first when all columns are there."""
        return by_name(self.proto)


@dataclass(frozen=True)
class ExtraCounts:
    """Counts to make in addition to the statistics.

    Attributes:
        bin_edges: For each number, named arrays of ascending edges, float64 [edges].
        chart_edges: For each number, the edges of its chart, float64 [edges]. `compute` adds those that are missing.
        domains: What to count for the schema's domains.
        train_values: For each categorical feature, the table with the values of train. `compute` of the split train
            adds them.
    """

    bin_edges: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    chart_edges: dict[str, np.ndarray] = field(default_factory=dict)
    domains: DomainRequests = field(default_factory=DomainRequests)
    train_values: dict[str, str] = field(default_factory=dict)


def compute(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    split: str,
    columns: Sequence[ExampleColumn],
    extra: ExtraCounts,
    progress: Progress,
) -> SplitStatistics:
    """Computes the statistics of one split.

    Nulls and NaN are missing values. Integers that are categories keep the type INT and have string statistics, as in
    TFDV. Booleans are counted as the integers 0 and 1, instants as seconds since 1970.

    Args:
        connection: From `scan.connect`.
        dataset: The examples.
        split: Name of the split, which may have no rows.
        columns: From `columns.resolve`.
        extra: The additional counts. Edges of charts that are missing in `chart_edges` are added to it, and for train
            the tables of values.
        progress: Reports the number of columns that are done.
    """
    proto = statistics_pb2.DatasetFeatureStatistics(name=split, num_examples=dataset.rows(split))
    result, totals, done = SplitStatistics(proto), {}, 0
    for table, some in _groups(connection, dataset, split, columns):
        totals |= totals_of(connection, table, proto.num_examples, some, extra.domains)
        for column in some:
            progress.rows(done, len(columns), f"columns of {split}", unit="columns")
            _add_column(connection, table, split, column, totals, extra, result)
            done += 1
    result.domains.not_binary.update(
        {name: int(total["not_binary"]) for name, total in totals.items() if "not_binary" in total}
    )
    progress.rows(len(columns), len(columns), f"columns of {split}", unit="columns")
    return result


def _groups(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, split: str, columns: Sequence[ExampleColumn]
) -> Iterator[tuple[str, Sequence[ExampleColumn]]]:
    """Yields groups of columns with the table that has them, for a FROM clause."""
    table = table_of(dataset, split) if dataset.rows(split) else ""
    if len(columns) <= COLUMNS_AT_ONCE or not 0 < dataset.rows(split) <= _COPIED_ROWS:
        yield table, columns
        return
    for start in range(0, len(columns), COLUMNS_AT_ONCE):
        some = columns[start : start + COLUMNS_AT_ONCE]
        names = dict.fromkeys(column.steps[0] for column in some)
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE some_columns AS SELECT {', '.join(map(quote, names))} FROM {table}"
        )
        yield "some_columns", some
    connection.execute("DROP TABLE some_columns")


def _add_column(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    split: str,
    column: ExampleColumn,
    totals: Mapping[str, Mapping[str, float | int]],
    extra: ExtraCounts,
    result: SplitStatistics,
) -> None:
    """Adds the statistics of one column to the result.

    Args:
        connection: From `scan.connect`.
        table: The table that has the column, for a FROM clause.
        split: Name of the split.
        column: The column.
        totals: The counts and ranges of this column, and of the columns above it if it is a field.
        extra: The additional counts.
        result: The statistics of the split.
    """
    feature = result.proto.features.add(type=column.type)
    feature.path.step.extend(column.steps)
    rows, present = result.proto.num_examples, int(totals[column.name]["present"])
    is_image = column.view == "bytes" and column.name in extra.domains.images
    counted = is_image or column.view in ("number", "category")
    if present and counted:
        _count_values(connection, table, column)
    if column.view == "number":
        _add_number(connection, feature, column, totals[column.name], extra, result)
    elif column.view == "category":
        _add_category(connection, feature, present)
        if column.role == "feature":
            _compare_with_train(connection, split, column.name, present, extra, result)
    if column.view == "bytes" and present:
        sizes = totals[column.name]
        feature.bytes_stats.avg_num_bytes = sizes["bytes"] / present
        feature.bytes_stats.min_num_bytes, feature.bytes_stats.max_num_bytes = sizes["low"], sizes["high"]
        feature.bytes_stats.max_num_bytes_int = int(sizes["high"])
    if present and counted and split == "train" and column.role == "feature" and not is_image:
        ends = (float(totals[column.name].get(end) or 0) for end in ("low", "high"))
        result.lost[column.name] = lost_values.count(connection, column, *ends)
    if present and counted:
        domain_counts.count(connection, column.name, column.view, extra.domains, result.domains)
    common_stats = getattr(feature, _KINDS[column.view]).common_stats
    if column.levels and rows:
        list_lengths.add(connection, common_stats, column, table)
    else:
        # A field of a missing struct is not missing.
        parent = totals.get(".".join(column.path[:-1]))
        _add_common(common_stats, present, rows if parent is None else int(parent["present"]))


def common(feature: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.CommonStatistics:
    """Returns the common statistics of a column of any type."""
    kind = feature.WhichOneof("stats")
    return getattr(feature, kind).common_stats if kind else statistics_pb2.CommonStatistics()


def by_name(proto: statistics_pb2.DatasetFeatureStatistics) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    """Returns a split's statistics by column. The name of a field of a struct is `struct.field`."""
    return {".".join(f.path.step) or f.name: f for f in proto.features}


def write(path: str | os.PathLike, splits: Mapping[str, SplitStatistics]) -> None:
    """Writes a sealed folder with `Split-<name>/FeatureStats.pb` for each split."""
    with artifact.write_folder(path, {"splits": {n: s.proto.num_examples for n, s in splits.items()}}) as root:
        for name, split in splits.items():
            folder = root / f"Split-{name}"
            folder.mkdir()
            whole = statistics_pb2.DatasetFeatureStatisticsList(datasets=[split.proto])
            (folder / FILE).write_bytes(whole.SerializeToString(deterministic=True))


def parse(data: bytes, where: str) -> statistics_pb2.DatasetFeatureStatistics:
    """Parses the bytes of a `FeatureStats.pb`.

    Args:
        data: The bytes.
        where: Name of the file for the error text.

    Raises:
        TidemillError: `unreadable-file` if the bytes are not the statistics of one dataset.
    """
    whole = statistics_pb2.DatasetFeatureStatisticsList()
    try:
        whole.ParseFromString(data)
    except DecodeError as error:
        got = "bytes that are not a DatasetFeatureStatisticsList"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, "publish the model again") from error
    if len(whole.datasets) != 1:
        got = f"statistics of {len(whole.datasets)} datasets"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, "publish the model again")
    return whole.datasets[0]


def read(folder: str | os.PathLike, split: str) -> statistics_pb2.DatasetFeatureStatistics:
    """Reads one split from a folder that `write` wrote."""
    file = Path(folder) / f"Split-{split}" / FILE
    return parse(file.read_bytes(), str(file))


def _count_values(connection: duckdb.DuckDBPyConnection, table: str, column: ExampleColumn) -> None:
    """Fills the temporary table `counts` (v, n) with the column's values and their numbers of rows.

    Missing values are left out, and so are infinite numbers.
    """
    kept = "isfinite(v)" if column.is_float and column.view == "number" else "v IS NOT NULL"
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE counts AS SELECT v, count(*)::BIGINT AS n "
        f"FROM ({column.values(table)}) WHERE {kept} GROUP BY v"
    )


def _scan(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads the table `counts` in ascending order of the values (`distribution.CountedValues`)."""
    reader = connection.sql("SELECT v, n FROM counts ORDER BY v").to_arrow_reader(_BATCH)
    for batch in reader:
        yield batch.column(0).to_numpy(zero_copy_only=False), batch.column(1).to_numpy(zero_copy_only=False)


def _add_number(
    connection: duckdb.DuckDBPyConnection,
    feature: statistics_pb2.FeatureNameStatistics,
    column: ExampleColumn,
    totals: Mapping[str, float | int],
    extra: ExtraCounts,
    result: SplitStatistics,
) -> None:
    stats, finite = feature.num_stats, int(totals["finite"])
    infinite = int(totals["present"]) - finite
    if infinite:
        result.infinite[column.name] = infinite
    if totals["present"]:
        ends = ("smallest", "largest") if column.is_float else ("low", "high")
        result.ranges[column.name] = totals[ends[0]], totals[ends[1]]
        stats.min, stats.max = map(float, result.ranges[column.name])
        if not finite:
            # As in TFDV: of plus and minus infinity, neither the mean nor the median is a number.
            stats.mean = stats.median = stats.min if stats.min == stats.max else math.nan
            stats.std_dev = math.nan
    bin_edges = dict(extra.bin_edges.get(column.name, {}))
    if totals["nan"]:
        result.nan[column.name] = int(totals["nan"])
    if finite:
        low, high = float(totals["low"]), float(totals["high"])
        summary = distribution.summarize(_scan(connection), finite)
        stats.mean, stats.std_dev, stats.median = summary.mean, summary.std_dev, summary.median
        stats.num_zeros = int(totals["zeros"])
        chart_edges = extra.chart_edges.setdefault(column.name, chart_edges_of(column, summary, low, high))
        standard = distribution.equal_edges(low, high)
        edge_sets = [standard, chart_edges, *bin_edges.values()]
        below = distribution.count_below(_scan(connection), edge_sets)
        add_histogram(stats, "STANDARD", standard, below[0], finite, infinite)
        add_histogram(stats, "QUANTILES", summary.edges, summary.below, finite, infinite, point=True)
        counts = [distribution.bins(b, finite) for b in below[1:]]
    else:
        sizes = [len(extra.chart_edges.get(column.name, ())), *map(len, bin_edges.values())]
        counts = [np.zeros(size + 1, dtype=np.int64) for size in sizes]
    result.chart_counts[column.name] = counts[0]
    result.bin_counts[column.name] = dict(zip(bin_edges, counts[1:], strict=True))


def _add_category(
    connection: duckdb.DuckDBPyConnection, feature: statistics_pb2.FeatureNameStatistics, present: int
) -> None:
    stats = feature.string_stats
    if not present:
        stats.unique = 0
        return
    unique, characters = one_row(connection, "SELECT count(*), sum(length(v) * n)::DOUBLE FROM counts")
    stats.unique, stats.avg_length = unique, characters / present
    top = connection.execute(f"SELECT v, n FROM counts ORDER BY n DESC, v LIMIT {RANKED_VALUES}").fetchall()
    for rank, (value, count) in enumerate(top):
        if rank < TOP_VALUES:
            stats.top_values.add(value=value, frequency=count)
        stats.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=value, sample_count=count)


def _compare_with_train(
    connection: duckdb.DuckDBPyConnection,
    split: str,
    column: str,
    present: int,
    extra: ExtraCounts,
    result: SplitStatistics,
) -> None:
    """Keeps the values of train, or counts the rows of another split whose values are not among them."""
    if split == "train":
        table = f"train_values_{len(extra.train_values)}"
        values = "SELECT v FROM counts" if present else "SELECT NULL::VARCHAR AS v LIMIT 0"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {values}")
        extra.train_values[column] = table
    elif column in extra.train_values:
        unseen = f"FROM counts ANTI JOIN {extra.train_values[column]} USING (v)"
        query = f"SELECT coalesce(sum(n), 0)::BIGINT, coalesce(arg_max(v, n), '') {unseen}"
        result.unseen[column] = one_row(connection, query) if present else (0, "")


def _add_common(stats: statistics_pb2.CommonStatistics, present: int, rows: int) -> None:
    stats.num_non_missing, stats.num_missing, stats.tot_num_values = present, rows - present, present
    if present:
        stats.min_num_values = stats.max_num_values = 1
        stats.avg_num_values = 1.0
