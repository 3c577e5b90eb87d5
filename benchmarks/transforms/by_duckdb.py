"""The transform as a script for DuckDB."""

from __future__ import annotations

import time
from pathlib import Path

import duckdb

from transforms.work import BUCKETED, BUCKETS, CATEGORIES, LABEL, MIN_COUNT, SCALED, TOP_K, train_files

_QUANTILES = [i / BUCKETS for i in range(1, BUCKETS)]


def run(examples: Path, out: Path, threads: int) -> dict[str, float]:
    """Writes one vocabulary per category and `rows.parquet`; returns seconds by phase."""
    started = time.perf_counter()
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    files = train_files(examples)
    rows = f"read_parquet({files}, filename = true, file_row_number = true)"
    sizes = {name: _vocabulary(connection, rows, name, out) for name in CATEGORIES}
    log = {name: f"ln(1 + greatest(coalesce({name}, 0), 0))" for name in SCALED}
    moments = ", ".join(f"[avg({x}), stddev_pop({x})]" for x in log.values())
    moments = dict(zip(SCALED, connection.execute(f"SELECT {moments} FROM {rows}").fetchall()[0], strict=True))
    bounds = ", ".join(f"approx_quantile(coalesce({name}, 0), {_QUANTILES})" for name in BUCKETED)
    bounds = dict(zip(BUCKETED, connection.execute(f"SELECT {bounds} FROM {rows}").fetchall()[0], strict=True))
    analyzed = time.perf_counter()
    columns = [f"(({x} - {moments[name][0]!r}) / {moments[name][1]!r})::FLOAT AS {name}" for name, x in log.items()]
    for name in BUCKETED:
        passed = " + ".join(f"(coalesce({name}, 0) >= {bound!r})::INTEGER" for bound in bounds[name])
        columns.append(f"({passed})::INTEGER AS {name}")
    columns += [f"coalesce(v_{name}.id, {sizes[name]})::INTEGER AS {name}" for name in CATEGORIES]
    joins = " ".join(f"LEFT JOIN v_{name} ON {name} = v_{name}.token" for name in CATEGORIES)
    # Joins on several threads change the order of blocks of rows.
    connection.execute(
        f"COPY (SELECT {', '.join(columns)}, coalesce({LABEL}, 0)::FLOAT AS {LABEL} FROM {rows} {joins} "
        f"ORDER BY filename, file_row_number) TO '{out / 'rows.parquet'}' "
        "(FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 65536)"
    )
    return {"analyze": analyzed - started, "transform": time.perf_counter() - analyzed}


def _vocabulary(connection: duckdb.DuckDBPyConnection, rows: str, name: str, out: Path) -> int:
    """Makes the table `v_<name>` of tokens and ids, writes the tokens and returns their number."""
    connection.execute(
        f"CREATE TABLE v_{name} AS SELECT token, (row_number() OVER () - 1)::INTEGER AS id FROM ("
        f"SELECT {name} AS token FROM {rows} WHERE {name} <> '' GROUP BY {name} HAVING count(*) >= {MIN_COUNT} "
        f"ORDER BY count(*) DESC, {name} DESC LIMIT {TOP_K})"
    )
    connection.execute(f"COPY (SELECT token FROM v_{name} ORDER BY id) TO '{out / name}' (FORMAT csv, HEADER false)")
    return connection.execute(f"SELECT count(*) FROM v_{name}").fetchall()[0][0]
