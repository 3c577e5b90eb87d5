"""The transform as a script for Polars. `POLARS_MAX_THREADS` at its import sets the number of threads."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl

from transforms.work import BUCKETED, BUCKETS, CATEGORIES, LABEL, MIN_COUNT, SCALED, TOP_K, train_files


def run(examples: Path, out: Path, threads: int) -> dict[str, float]:
    """Writes one vocabulary per category and `rows.parquet`; returns seconds by phase."""
    if pl.thread_pool_size() != threads:
        raise ValueError(f"{pl.thread_pool_size()} threads, not {threads}")
    started = time.perf_counter()
    rows = pl.scan_parquet(train_files(examples))
    log = {name: pl.col(name).fill_null(0).clip(0).cast(pl.Float64).log1p() for name in SCALED}
    vocabularies = [
        rows.select(pl.col(name))
        .filter(pl.col(name).is_not_null() & (pl.col(name) != ""))
        .group_by(name)
        .agg(pl.len().alias("count"))
        .filter(pl.col("count") >= MIN_COUNT)
        .sort("count", name, descending=True)
        .head(TOP_K)
        .select(name)
        for name in CATEGORIES
    ]
    moments = rows.select(
        *(x.mean().alias(f"{name}_mean") for name, x in log.items()),
        *(x.std(ddof=0).alias(f"{name}_deviation") for name, x in log.items()),
        *(
            pl.col(name).fill_null(0).quantile(i / BUCKETS, "lower").alias(f"{name}_{i}")
            for name in BUCKETED
            for i in range(1, BUCKETS)
        ),
    )
    *vocabularies, moments = pl.collect_all([*vocabularies, moments], engine="streaming")
    for table in vocabularies:
        table.write_csv(out / table.columns[0], include_header=False, quote_style="never")
    analyzed = time.perf_counter()
    statistics = moments.row(0, named=True)
    columns = [
        ((x - statistics[f"{n}_mean"]) / statistics[f"{n}_deviation"]).cast(pl.Float32).alias(n) for n, x in log.items()
    ]
    for name in BUCKETED:
        x = pl.col(name).fill_null(0)
        passed = ((x >= statistics[f"{name}_{i}"]).cast(pl.Int32) for i in range(1, BUCKETS))
        columns.append(pl.sum_horizontal(*passed).cast(pl.Int32).alias(name))
    for table in vocabularies:
        ids = pl.col(table.columns[0]).cast(pl.Enum(table.to_series()), strict=False).to_physical()
        columns.append(ids.cast(pl.Int32).fill_null(table.height))
    columns.append(pl.col(LABEL).fill_null(0).cast(pl.Float32))
    rows.select(columns).sink_parquet(
        out / "rows.parquet", compression="lz4", row_group_size=1 << 16, maintain_order=True, engine="streaming"
    )
    return {"analyze": analyzed - started, "transform": time.perf_counter() - analyzed}
