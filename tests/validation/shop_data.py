"""Small shop datasets and their validation, for tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidemill.artifacts.examples import DatasetWriter
from tidemill.runtime import Progress
from tidemill.steps.validate import ValidateSpec
from tidemill.validation.validate import ValidationSummary, validate

FEATURES = {
    "price": {"kind": "numeric"},
    "visits": {"kind": "numeric"},
    "site": {"kind": "categorical"},
    "hour": {"kind": "categorical"},
}


def shop(rows: int, seed: int = 0) -> pa.Table:
    """Returns rows with all common types. `bought` depends on price and site, which have missing values."""
    rng = np.random.default_rng(seed)
    price = np.round(rng.lognormal(2, 1, rows), 3)
    site = rng.integers(0, 8, rows)
    logit = 1.0 - 0.8 * np.log(price) + 0.2 * site
    columns = {
        "id": pa.array(np.arange(rows)),
        "price": pa.array(price, mask=rng.random(rows) < 0.05),
        "visits": pa.array(rng.poisson(2, rows), pa.int32()),
        "site": pa.array([f"site{s}" for s in site], pa.string(), mask=rng.random(rows) < 0.1),
        "hour": pa.array(rng.integers(0, 24, rows), pa.int8()),
        "member": pa.array(rng.random(rows) < 0.3),
        "at": pa.array(np.arange(rows) * 60_000_000, pa.timestamp("us")),
        "bought": pa.array(rng.random(rows) < 1 / (1 + np.exp(-logit))).cast(pa.int8()),
    }
    return pa.table(columns)


def spec(**changes: object) -> ValidateSpec:
    """Returns the spec of the validate step with some fields changed."""
    values = {
        "code": "test",
        "labels": ["bought"],
        "key": ["id"],
        "features": FEATURES,
        "feature_columns": list(FEATURES),
        "split_column": None,
        "schema_text": None,
        "drift": {},
        "leakage": {},
        "previous": None,
    }
    return ValidateSpec.model_validate(values | changes)


def write(path: Path, splits: dict[str, pa.Table], **options: int) -> Path:
    """Writes the splits as a dataset."""
    with DatasetWriter(path, splits["train"].schema, tuple(splits), **options) as writer:
        for name, table in splits.items():
            writer.write(name, table)
    return path


@dataclass
class Outputs:
    """Outputs of one validation."""

    folder: Path

    @property
    def paths(self) -> dict[str, str]:
        names = {"statistics": "statistics", "schema": "schema", "anomalies": "anomalies", "report": "report.html"}
        return {key: str(self.folder / name) for key, name in names.items()}

    @property
    def page(self) -> str:
        return Path(self.paths["report"]).read_text(encoding="utf-8")

    @property
    def anomalies(self) -> list[dict]:
        return json.loads((self.folder / "anomalies" / "anomalies.json").read_text(encoding="utf-8"))


def run(folder: Path, splits: dict[str, pa.Table], **changes: object) -> tuple[ValidationSummary, Outputs]:
    """Validates the splits. `changes` are fields of the spec."""
    examples = write(folder / "examples", splits)
    outputs = Outputs(folder / "out")
    return validate(spec(**changes), examples, **outputs.paths, progress=Progress("validate")), outputs
