"""Whether the engines and the scripts have made the same of the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from transforms.work import BUCKETED, CATEGORIES, LABEL, OUTPUTS, SCALED

_SAME_BUCKETS = 0.95
"""Least share of rows in the same bucket: quantiles are approximate, and 1% of the rows may lie between two answers."""


def compare(engine: str, out: Path, local: Path) -> dict[str, float]:
    """Compares what an engine wrote with what the local engine wrote.

    Returns:
        The largest difference of a scaled number, relative to it or to 1, and the least share of rows in the same
        bucket.

    Raises:
        SystemExit: a vocabulary, an id, a label, a type or the number of rows differs, or the others by too much.
    """
    assets = out / "transform_fn" / "assets" if engine == "beam" else out
    for name in CATEGORIES:
        if _tokens(assets / name) != _tokens(local / "graph" / "transform_fn" / "assets" / name):
            raise SystemExit(f"{engine}: another vocabulary of {name}")
    found, wanted = ds.dataset(out / "rows.parquet"), ds.dataset(local / "rows" / "train")
    types = {name: pa.float32() if name in {*SCALED, LABEL} else pa.int32() for name in OUTPUTS}
    for side, schema in ((engine, found.schema), ("local", wanted.schema)):
        if {field.name: field.type for field in schema} != types:
            raise SystemExit(f"{side}: columns {schema}")
    largest, least = 0.0, 1.0
    for name in OUTPUTS:
        a, b = (side.to_table([name]).column(0).to_numpy() for side in (found, wanted))
        if len(a) != len(b):
            raise SystemExit(f"{engine}: {len(a)} rows, not {len(b)}")
        if name in SCALED:
            largest = max(largest, float(np.max(np.abs(a - b) / np.maximum(1, np.abs(b)))))
        elif name in BUCKETED:
            least = min(least, float(np.mean(a == b)))
        elif not np.array_equal(a, b):
            raise SystemExit(f"{engine}: {np.sum(a != b)} other values of {name}")
    if largest > 1e-4 or least < _SAME_BUCKETS:
        raise SystemExit(
            f"{engine}: scaled numbers differ by {largest:.2g}, {least:.1%} of the rows in the same bucket"
        )
    return {"scaled_difference": largest, "same_bucket": least}


def _tokens(path: Path) -> bytes:
    """A vocabulary's file; the scripts write CSV, where tokens of hexadecimal digits have no quotes."""
    return path.read_bytes().rstrip(b"\n")
