"""The generator of the Criteo example, and its experiment file."""

import functools
import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from tidemill.experiment import load

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "criteo"
ROWS = 40_000


@functools.cache
def generator():
    """The script as a module; dataclasses look it up by name."""
    spec = importlib.util.spec_from_file_location("criteo_generate", EXAMPLE / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("criteo")
    truth = generator().generate(ROWS, folder, seed=5, files=3)
    return folder, truth


def read(folder):
    module = generator()
    types = {c: pa.string() for c in module.CATEGORIES} | {c: pa.int64() for c in ["label", *module.NUMBERS]}
    tables = [
        pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(column_names=module.COLUMNS),
            parse_options=pyarrow.csv.ParseOptions(delimiter="\t"),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""]),
        )
        for path in sorted(folder.glob("*.tsv"))
    ]
    assert [t.num_rows for t in tables] == [13_333, 13_334, 13_333]
    return pa.concat_tables(tables)


def test_format(made):
    table = read(made[0])
    assert table.num_columns == 40
    assert set(table["label"].unique().to_pylist()) == {0, 1}
    for i in range(1, 27):
        values = [v for v in table[f"c{i}"].to_pylist() if v is not None]
        assert all(len(v) == 8 and int(v, 16) >= 0 for v in values)
    assert len(table["c9"].unique()) == 3
    assert len(table["c3"].unique()) > 2_000
    assert 0.40 < table["i1"].null_count / ROWS < 0.50
    assert 0.70 < table["c22"].null_count / ROWS < 0.80
    assert max(v for v in table["i5"].to_pylist() if v is not None) > 100_000
    assert min(v for v in table["i2"].to_pylist() if v is not None) < 0


def test_truth(made):
    folder, truth = made
    assert json.loads((folder / "truth.json").read_text())["best_log_loss"] == truth.best_log_loss
    labels = np.array(read(folder)["label"])
    assert truth.rows == ROWS
    assert truth.positive_rate == labels.mean()
    assert abs(truth.base_rate - 0.25) < 0.01
    assert abs(truth.positive_rate - truth.base_rate) < 4 * math.sqrt(0.19 / ROWS)
    assert 0.38 < truth.best_log_loss < 0.46 < truth.constant_log_loss
    assert 0.75 < truth.best_auc < 0.9


def test_labels_follow_the_probabilities():
    """The log loss of the true probabilities on the drawn labels is the entropy, but for chance."""
    module = generator()
    ((table, p),) = module.chunks(100_000, 9)
    y = table["label"].to_numpy()
    loss = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    assert abs(loss.mean() - module._entropy(p).mean()) < 4 * loss.std() / math.sqrt(len(y))
    for low, high in ((0.05, 0.1), (0.3, 0.4), (0.7, 0.8)):
        chosen = (p >= low) & (p < high)
        spread = math.sqrt(0.25 / chosen.sum())
        assert abs(y[chosen].mean() - p[chosen].mean()) < 4 * spread


def test_rows_do_not_depend_on_files_and_count(made, tmp_path):
    whole = b"".join(p.read_bytes() for p in sorted(made[0].glob("*.tsv")))
    generator().generate(1000, tmp_path, seed=5)
    assert whole.startswith((tmp_path / "part-00000.tsv").read_bytes())
    generator().generate(1000, tmp_path, seed=6)
    assert not whole.startswith((tmp_path / "part-00000.tsv").read_bytes())


@pytest.mark.parametrize(("rows", "files"), [(0, 1), (5, 6), (5, 0)])
def test_nothing_to_generate(tmp_path, rows, files):
    with pytest.raises(ValueError):
        generator().generate(rows, tmp_path, files=files)


def test_experiment_ingests(made, runner):
    experiment = load(EXAMPLE / "experiment.yaml")
    (table,) = experiment.source.tables.values()
    assert table.uri == str(EXAMPLE / "data" / "*.tsv")
    tables = {"clicks": table.model_copy(update={"uri": str(made[0] / "*.tsv")})}
    found = runner.run(
        tables,
        labels=experiment.label_columns(),
        key=experiment.key,
        columns=experiment.feature_columns(),
        split=experiment.split.model_dump(),
    )
    assert sum(found.summary.rows.values()) == ROWS
    assert found.quarantine == []
    assert found.dataset.columns["c26"] == "string"
    assert found.dataset.columns["i13"] == "int64"
    before = found.summary.fingerprint
    assert (
        runner.run(
            {"clicks": table.model_copy(update={"uri": [str(p) for p in sorted(made[0].glob("*.tsv"), reverse=True)]})},
            labels=experiment.label_columns(),
            split=experiment.split.model_dump(),
        ).summary.fingerprint
        == before
    )
