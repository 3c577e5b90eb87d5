from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from tests.validation.shop_data import FEATURES, Outputs, run, shop, spec, write
from tidemill.artifacts import artifact
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.validation.validate import validate


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def code_of(folder, table: pa.Table, **changes) -> Code:
    with pytest.raises(TidemillError) as raised:
        run(folder, {"train": table, "valid": shop(50, seed=1), "test": shop(50, seed=2)}, **changes)
    return raised.value.code


def check_whole(folder) -> None:
    for name in ("statistics", "anomalies"):
        artifact.open_folder(folder / "out" / name, deep=True)
    assert [path.name for path in (folder / "out" / "schema").iterdir()] == ["schema.pbtxt"]
    assert (folder / "out" / "report.html").is_file()
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("validate-spill-*"))


def test_writes_all_outputs(tmp_path):
    splits = {"train": shop(3000), "valid": shop(300, seed=1), "test": shop(300, seed=2)}
    summary, outputs = run(tmp_path, splits)
    check_whole(tmp_path)
    assert summary.anomalies == 0
    assert summary.drifted == []
    assert set(summary.strongest) == {"price", "visits", "site", "hour"}
    assert list(summary.strongest.values()) == sorted(summary.strongest.values(), reverse=True)
    for split in splits:
        assert (tmp_path / "out" / "statistics" / f"Split-{split}" / "FeatureStats.pb").is_file()
    for name in splits["train"].column_names:
        assert f'id="column-{name}"' in outputs.page
    assert "all gates passed" in outputs.page


def test_outputs_are_deterministic(tmp_path):
    splits = {"train": shop(3000), "valid": shop(300, seed=1)}
    one, two = (run(tmp_path / name, splits) for name in ("one", "two"))
    assert one[0] == two[0]
    assert one[1].page == two[1].page


def test_report_is_self_contained_and_escapes_values(tmp_path):
    table = with_column(shop(200), "site", pa.array(["<script>alert(1)</script>"] * 200))
    _, outputs = run(tmp_path, {"train": table})
    assert "<script" not in outputs.page
    assert "&lt;script&gt;" in outputs.page
    assert "http" not in outputs.page
    assert "src=" not in outputs.page


def test_columns_may_have_the_names_that_queries_of_validation_use(tmp_path):
    """Names do not change a measure: the same columns under the aliases of the queries give the same bars."""
    names = {"price": "v", "visits": "n", "site": "label", "hour": "row", "bought": "y", "id": "part", "member": "e"}
    splits = {"train": shop(600), "valid": shop(200, 1), "test": shop(200, 2)}
    renamed = {name: t.rename_columns([names.get(c, c) for c in t.column_names]) for name, t in splits.items()}
    features = {names[name]: feature for name, feature in FEATURES.items()}
    plain, _ = run(tmp_path / "a", splits)
    given = {"labels": ["y"], "key": ["part"], "features": features, "feature_columns": [*features]}
    summary, _ = run(tmp_path / "b", renamed, **given)
    assert summary.strongest == {names[name]: auc for name, auc in plain.strongest.items()} and summary.strongest
    assert summary.drifted == [names[name] for name in plain.drifted]


def test_rejects_an_empty_train_split(tmp_path):
    assert code_of(tmp_path, shop(0)) is Code.EMPTY_SPLIT
    assert not (tmp_path / "out").exists()


def test_rejects_one_row(tmp_path):
    assert code_of(tmp_path, shop(1)) is Code.LABEL_ONE_CLASS
    check_whole(tmp_path)


def test_skips_empty_splits(tmp_path):
    _, outputs = run(tmp_path, {"train": shop(500), "valid": shop(0), "test": shop(1)})
    assert {anomaly["split"] for anomaly in outputs.anomalies} == {"test"}
    assert "every label is" in outputs.page


BROKEN = {
    "one class": ("bought", pa.array([1] * 300, pa.int8()), Code.LABEL_ONE_CLASS),
    "three classes": ("bought", pa.array([0, 1, 2] * 100, pa.int8()), Code.LABEL_TYPE),
    "text label": ("bought", pa.array(["yes", "no", "no"] * 100), Code.LABEL_TYPE),
    "label with nulls": ("bought", pa.array([0, 1, None] * 100, pa.int8()), Code.LABEL_NULL),
    "label with NaN": ("bought", pa.array([0.0, 1.0, float("nan")] * 100), Code.LABEL_NULL),
    "no label at all": ("bought", pa.nulls(300, pa.int8()), Code.LABEL_NULL),
    "all-null number": ("price", pa.nulls(300, pa.float64()), Code.FEATURE_ALL_NULL),
    "all-null string": ("site", pa.nulls(300, pa.string()), Code.FEATURE_ALL_NULL),
    "all-NaN number": ("price", pa.array([float("nan")] * 300), Code.FEATURE_ALL_NULL),
    "untyped nulls": ("price", pa.nulls(300), Code.FEATURE_ALL_NULL),
}


@pytest.mark.parametrize(("column", "values", "code"), BROKEN.values(), ids=BROKEN)
def test_rejects_broken_columns(tmp_path, column, values, code):
    table = with_column(shop(300), column, values)
    with pytest.raises(TidemillError, match=column) as raised:
        run(tmp_path, {"train": table})
    assert raised.value.code is code
    check_whole(tmp_path)
    assert raised.value.code.code in Outputs(tmp_path / "out").page


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int64(), pa.float64()])
def test_accepts_binary_labels_of_each_type(tmp_path, kind):
    table = shop(300)
    run(tmp_path, {"train": with_column(table, "bought", table["bought"].cast(kind))})


def test_accepts_numbers_at_the_limits_of_floats(tmp_path):
    table = with_column(shop(300), "price", pa.array([1e308, -1e308, 5e-324] * 100))
    run(tmp_path, {"train": table, "valid": shop(50, seed=1)})


def test_rejects_missing_columns(tmp_path):
    assert code_of(tmp_path / "label", shop(50), labels=["paid"]) is Code.MISSING_COLUMN
    assert code_of(tmp_path / "feature", shop(50), feature_columns=["weight"]) is Code.MISSING_COLUMN
    assert not (tmp_path / "feature" / "out").exists()


def test_a_broken_schema_writes_nothing(tmp_path):
    assert code_of(tmp_path, shop(50), schema_text="feature {") is Code.INVALID_VALUE
    assert not (tmp_path / "out").exists()


def test_rejects_incomplete_examples(tmp_path):
    examples = write(tmp_path / "examples", {"train": shop(50)})
    (examples / "manifest.json").unlink()
    with pytest.raises(TidemillError) as raised:
        validate(spec(), examples, **Outputs(tmp_path / "out").paths, progress=Progress("validate"))
    assert raised.value.code is Code.INCOMPLETE_ARTIFACT


def test_without_features_all_other_columns_are_features(tmp_path):
    summary, outputs = run(tmp_path, {"train": shop(2000)}, features=None, feature_columns=None)
    assert set(summary.strongest) == {"price", "visits", "site", "hour", "member"}
    assert "5</b><span>and 3 other columns" in outputs.page


def test_raises_leakage_before_drift_and_reports_both(tmp_path):
    train, valid = shop(1000), shop(1000, seed=1)
    train = with_column(train, "visits", train["bought"].cast(pa.int32()))
    valid = with_column(valid, "site", pa.array(["other"] * 1000))
    with pytest.raises(TidemillError) as raised:
        run(tmp_path, {"train": train, "valid": valid}, drift={"categorical": 0.1})
    assert raised.value.code is Code.LEAKAGE
    page = Outputs(tmp_path / "out").page
    assert "stopped: leakage, drift" in page


@pytest.mark.process
def test_does_not_import_tensorflow():
    heavy = "('tensorflow', 'apache_beam', 'kfp')"
    code = f"import sys, tidemill.validation.validate; print([m for m in {heavy} if m in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (pa.array([0, 1, None] * 100, pa.int8()), Code.LABEL_NULL),
        (pa.array([1] * 300, pa.int8()), Code.LABEL_ONE_CLASS),
        (pa.array([0, 1, 2] * 100, pa.int8()), Code.LABEL_TYPE),
        (pa.array(["a", "b", "c"] * 100), Code.LABEL_TYPE),
    ],
    ids=["null", "one class", "a third value", "text"],
)
def test_checks_the_second_label(tmp_path, values, code):
    table = with_column(shop(300), "member", values)
    with pytest.raises(TidemillError, match="'member'") as raised:
        run(tmp_path, {"train": table}, labels=["bought", "member"])
    assert raised.value.code is code
