"""The generator of the Criteo example, and its experiment file."""

import json
import math

import numpy as np
import pyarrow.compute as pc
import pytest

from tests.criteo_rows import EXAMPLE, ROWS, SEED, generated_folder, generator, read_rows
from tidemill.experiment import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generated_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def generated(folder):
    return read_rows(folder)


def test_rows_have_the_format_of_the_challenge(folder, generated):
    table = generated
    assert [path.read_bytes().count(b"\n") for path in sorted(folder.glob("*.tsv"))] == [13_333, 13_334, 13_333]
    assert table.num_columns == 40
    assert set(table["label"].unique().to_pylist()) == {0, 1}
    for i in range(1, 27):
        values = table[f"c{i}"].unique().drop_null().to_pylist()
        assert all(len(v) == 8 and int(v, 16) >= 0 for v in values)
    assert len(table["c9"].unique()) == 3
    assert len(table["c3"].unique()) > 2_000
    assert 0.40 < table["i1"].null_count / ROWS < 0.50
    assert 0.70 < table["c22"].null_count / ROWS < 0.80
    assert pc.max(table["i5"]).as_py() > 100_000
    assert pc.min(table["i2"]).as_py() < 0


def test_truth_describes_the_rows(folder, generated):
    truth = generator().Truth(**json.loads((folder / "truth.json").read_text()))
    labels = generated["label"].to_numpy()
    assert truth.rows == ROWS
    assert truth.positive_rate == labels.mean()
    assert abs(truth.base_rate - 0.25) < 0.01
    assert abs(truth.positive_rate - truth.base_rate) < 4 * math.sqrt(0.19 / ROWS)
    assert 0.38 < truth.best_log_loss < 0.46 < truth.constant_log_loss
    assert 0.75 < truth.best_auc < 0.9


def test_labels_follow_the_probabilities():
    """The log loss of the true probabilities on the drawn labels is the entropy, except for chance."""
    module = generator()
    chunks = list(module.chunks(50_000, 9))
    y = np.concatenate([table["label"].to_numpy() for table, _ in chunks])
    p = np.concatenate([p for _, p in chunks])
    loss = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    assert abs(loss.mean() - module._entropy(p).mean()) < 4 * loss.std() / math.sqrt(len(y))
    for low, high in ((0.05, 0.1), (0.3, 0.4), (0.7, 0.8)):
        chosen = (p >= low) & (p < high)
        spread = math.sqrt(0.25 / chosen.sum())
        assert abs(y[chosen].mean() - p[chosen].mean()) < 4 * spread


def test_rows_do_not_depend_on_files_and_count(folder, tmp_path):
    whole = b"".join(p.read_bytes() for p in sorted(folder.glob("*.tsv")))
    generator().generate(1000, tmp_path, seed=SEED)
    assert whole.startswith((tmp_path / "part-00000.tsv").read_bytes())
    generator().generate(1000, tmp_path, seed=SEED + 1)
    assert not whole.startswith((tmp_path / "part-00000.tsv").read_bytes())


@pytest.mark.parametrize(("rows", "files"), [(0, 1), (5, 6), (5, 0)])
def test_rejects_impossible_numbers_of_rows_and_files(tmp_path, rows, files):
    with pytest.raises(ValueError):
        generator().generate(rows, tmp_path, files=files)


def test_experiment_ingests_the_rows(folder, runner):
    experiment = load(EXAMPLE / "experiment.yaml")
    (table,) = experiment.source.tables.values()
    assert table.uri == str(EXAMPLE / "data" / "*.tsv")
    run = runner.run(
        {"clicks": table.model_copy(update={"uri": str(folder / "*.tsv")})},
        labels=experiment.label_columns(),
        key=experiment.key,
        columns=experiment.feature_columns(),
        split=experiment.split.model_dump(),
    )
    assert sum(run.summary.rows.values()) == ROWS
    assert run.quarantine == []
    assert run.dataset.columns["c26"] == "string"
    assert run.dataset.columns["i13"] == "int64"
