"""Compares the results of the engines and scripts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from transforms.work import BUCKETED, CATEGORIES, LABEL, OUTPUTS, SCALED

_SAME_BUCKETS = 0.95
"""Minimum share of rows in the same bucket. Quantiles are approximate, and 1% of the rows may lie between two answers.
"""


def compare(engine: str, out: Path, local: Path) -> dict[str, float]:
    """Compares an engine's results with those of the local engine.

    Returns:
        The largest difference of a scaled number, relative to it or to 1, and the smallest share of rows in the same
        bucket.

    Raises:
        SystemExit: A vocabulary, id, label, type or number of rows differs, or numbers differ by too much.
    """
    assets = out / "transform_fn" / "assets" if engine == "beam" else out
    for name in CATEGORIES:
        if _tokens(assets / name) != _tokens(local / "graph" / "transform_fn" / "assets" / name):
            raise SystemExit(f"{engine}: the vocabulary of {name} differs")
    actual, expected = ds.dataset(out / "rows.parquet"), ds.dataset(local / "rows" / "train")
    types = {name: pa.float32() if name in {*SCALED, LABEL} else pa.int32() for name in OUTPUTS}
    for side, schema in ((engine, actual.schema), ("local", expected.schema)):
        if {field.name: field.type for field in schema} != types:
            raise SystemExit(f"{side}: columns {schema}")
    largest, least = 0.0, 1.0
    for name in OUTPUTS:
        a, b = (side.to_table([name]).column(0).to_numpy() for side in (actual, expected))
        if len(a) != len(b):
            raise SystemExit(f"{engine}: {len(a)} rows, not {len(b)}")
        if name in SCALED:
            largest = max(largest, float(np.max(np.abs(a - b) / np.maximum(1, np.abs(b)))))
        elif name in BUCKETED:
            least = min(least, float(np.mean(a == b)))
        elif not np.array_equal(a, b):
            raise SystemExit(f"{engine}: {np.sum(a != b)} values of {name} differ")
    if largest > 1e-4 or least < _SAME_BUCKETS:
        raise SystemExit(
            f"{engine}: scaled numbers differ by {largest:.2g}, {least:.1%} of the rows in the same bucket"
        )
    return {"scaled_difference": largest, "same_bucket": least}


def _tokens(path: Path) -> bytes:
    """Returns a vocabulary's file. The scripts write CSV, in which tokens of hexadecimal digits have no quotes."""
    return path.read_bytes().rstrip(b"\n")
