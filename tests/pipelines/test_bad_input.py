"""Bad input of the train pipeline: an error code, one line, exit code 2, and no incomplete output.

Most cases run the steps as functions. A few run the whole pipeline.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.shop import Workspace, shop_experiment
from tests.shop_steps import ShopSteps
from tidemill.cli.validate_command import check_files
from tidemill.errors import TidemillError
from tidemill.experiment import load

pytestmark = pytest.mark.pipeline

Change = Callable[[dict, pa.Table, Path], pa.Table | None]


def _set(path: str, value: object) -> Change:
    def change(experiment: dict, rows: pa.Table, folder: Path) -> pa.Table:
        *parents, last = path.split(".")
        for key in parents:
            experiment = experiment.setdefault(key, {})
        experiment[last] = value
        return rows

    return change


def _column(name: str, make: Callable[[pa.Table], object]) -> Change:
    def change(experiment: dict, rows: pa.Table, folder: Path) -> pa.Table:
        index = rows.column_names.index(name)
        return rows.set_column(index, name, make(rows))

    return change


def _leak(experiment: dict, rows: pa.Table, folder: Path) -> pa.Table:
    experiment["features"]["refund"] = {"kind": "numeric"}
    noise = [0.1 * (i % 7) for i in range(rows.num_rows)]
    return rows.append_column(
        "refund", pa.array([b + n for b, n in zip(rows["bought"].to_pylist(), noise, strict=True)])
    )


def _no_valid_rows(experiment: dict, rows: pa.Table, folder: Path) -> pa.Table:
    experiment["split"] = {"by": "column", "column": "part"}
    return rows.append_column("part", pa.array(["test" if i % 5 == 0 else "train" for i in range(rows.num_rows)]))


def _one_class_in_valid(experiment: dict, rows: pa.Table, folder: Path) -> pa.Table:
    experiment["split"] = {"by": "column", "column": "part"}
    others = ["train", "train", "test"]
    parts = ["valid" if i % 5 == 0 and not y else others[i % 3] for i, y in enumerate(rows["bought"].to_pylist())]
    return rows.append_column("part", pa.array(parts))


def _truncated_parquet(experiment: dict, rows: pa.Table, folder: Path) -> None:
    pq.write_table(rows, folder / "rows.parquet")
    content = (folder / "rows.parquet").read_bytes()
    (folder / "rows.parquet").write_bytes(content[: len(content) // 2])
    experiment["source"]["tables"]["rows"] = "rows.parquet"


def _wide_row(experiment: dict, rows: pa.Table, folder: Path) -> None:
    pa.csv.write_csv(rows, folder / "rows.csv")
    lines = (folder / "rows.csv").read_text().splitlines()
    lines[100] += ",and,more"
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")


CASES: dict[str, tuple[str, str, Change]] = {
    "unknown key": ("unknown-key", "label_column", _set("label_column", "bought")),
    "missing file": ("missing-file", "nowhere.csv", _set("source.tables.rows", "nowhere.csv")),
    "missing label column": ("missing-column", "boughtt", _set("label", "boughtt")),
    "missing feature column": ("missing-column", "prize", _set("features.prize", {"kind": "numeric"})),
    "label with one class": ("label-one-class", "bought", _column("bought", lambda r: pa.array([1] * r.num_rows))),
    "valid with one class": ("label-one-class", "in valid: got the single value 0", _one_class_in_valid),
    "label with nulls": (
        "label-null",
        "bought",
        _column("bought", lambda r: pa.array([None, *r["bought"].to_pylist()[1:]])),
    ),
    "empty split": ("empty-split", "valid", _no_valid_rows),
    "truncated Parquet": ("unreadable-file", "rows.parquet", _truncated_parquet),
    "wrong number of columns": ("malformed-rows", "101", _wide_row),
    "over max_bytes": ("over-budget", "1,000", _set("source.max_bytes", 1000)),
    "SQL error": ("sql-error", "SELEC", _set("source.sql", "SELEC * FROM rows")),
    "duplicate key": ("duplicate-key", "id", _column("id", lambda r: pa.array([1, *range(1, r.num_rows)]))),
    "all-null feature": (
        "feature-all-null",
        "price",
        _column("price", lambda r: pa.nulls(r.num_rows, pa.float64())),
    ),
    "leaking feature": ("leakage", "refund", _leak),
}


WHOLE_PIPELINE = ["unknown key", "valid with one class", "leaking feature"]
"""One mistake that is found before the run, one in ingest, and one in a step that the fork server runs."""

OWN_FAMILY = """
import keras
import tensorflow as tf
from tidemill.models.core.family import Network


@keras.saving.register_keras_serializable(package="failing")
class Far(keras.layers.Layer):
    def call(self, x):
        return x + tf.reshape(tf.gather(x, [10**6]), (1, -1))


class Failing(Network):
    def logit(self, features):
        return keras.layers.Dense(1)(Far()(features.flat(features.embedded())))


FAMILY = Failing
"""


def workspace_of(case: str, folder: Path, rows: pa.Table) -> Workspace:
    """Returns a workspace with the case's mistake."""
    workspace = Workspace(folder)
    experiment = copy.deepcopy(shop_experiment())
    workspace.write(experiment, rows)
    workspace.write(experiment, CASES[case][2](experiment, rows, folder))
    return workspace


def attempts(workspace: Workspace) -> list[int]:
    """Returns the number of attempts of each failed task."""
    files = workspace.root.glob("failures/*/failure.json")
    return [len(json.loads(file.read_text())["attempts"]) for file in files]


def assert_leaves_nothing(workspace: Workspace) -> None:
    assert not list(workspace.root.glob("models/*/*"))
    assert not list(workspace.folder.glob("**/*.partial"))


@pytest.mark.parametrize("case", WHOLE_PIPELINE)
def test_bad_input_exits_with_2_and_leaves_nothing(case, tmp_path, rows):
    code, name, _ = CASES[case]
    workspace = workspace_of(case, tmp_path, rows)
    done = workspace.run()
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    sentence = next((line for line in output.splitlines() if f"[{code}]" in line), None)
    assert sentence is not None and re.search(r"got .+; .+\.", output, re.DOTALL), output
    assert name in output
    assert "Traceback" not in output
    assert attempts(workspace) == ([] if case == "unknown key" else [1])
    assert_leaves_nothing(workspace)


def test_a_training_that_cannot_succeed_is_tried_once(tmp_path, rows):
    workspace, experiment = Workspace(tmp_path), shop_experiment()
    (tmp_path / "failing.py").write_text(OWN_FAMILY)
    experiment["models"] = [{"family": "own", "module": "failing.py"}, experiment["models"][1]]
    constant = rows.set_column(1, "price", pa.array([1.0] * rows.num_rows)).set_column(
        2, "site", pa.array(["a"] * rows.num_rows)
    )
    experiment["features"] = {name: experiment["features"][name] for name in ("price", "site")}
    workspace.write(experiment, constant)
    done = workspace.run()
    assert done.returncode == 2, done.stdout + done.stderr
    assert "models.own.module, line 10: got InvalidArgumentError" in done.stderr
    assert "features that each have one value in all" in done.stderr
    assert {name: state for name, state in workspace.states().items() if state == "failed"} == {
        "train-own": "failed",
        "train-gbdt": "failed",
    }
    assert attempts(workspace) == [1, 1]
    assert_leaves_nothing(workspace)


@pytest.mark.tensorflow
@pytest.mark.parametrize("case", [case for case in CASES if case not in WHOLE_PIPELINE])
def test_a_step_rejects_bad_input_and_leaves_nothing(case, tmp_path, rows):
    code, name, _ = CASES[case]
    workspace = workspace_of(case, tmp_path, rows)
    with pytest.raises(TidemillError) as raised:
        check_files(load(workspace.file))
        steps = ShopSteps(workspace)
        steps.ingest(tmp_path, "examples")
        steps.validate(tmp_path)
        steps.preprocess(tmp_path)
    assert raised.value.code.code == code
    assert re.search(r"got .+; .+\.", str(raised.value), re.DOTALL)
    assert name in str(raised.value)
    assert_leaves_nothing(workspace)
