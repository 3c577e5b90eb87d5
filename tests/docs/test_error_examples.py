"""Each error code's example is a message that Tidemill really writes, and its remedy works.

Each case is a function of a folder and of `fixed`: it makes the mistake, or the same input with the remedy applied.
`python -m tests.docs.test_error_examples` prints the messages, to copy them into `tidemill/error_codes.py`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tests.data.runs import Runner
from tests.docs.samples import EXPERIMENT, without_numbers
from tests.publishing.tiny import member, publish_spec
from tests.validation.shop_data import run as validate
from tests.validation.shop_data import shop
from tidemill.artifacts import artifact, evaluation_artifact, model_store
from tidemill.errors import Code, TidemillError, from_system_error
from tidemill.evaluation.blessing import check_gates
from tidemill.experiment import parse
from tidemill.experiment.evaluation import Gate
from tidemill.local import run_record
from tidemill.local.run_checks import check_files
from tidemill.planning import check_supported
from tidemill.publishing.publish import publish
from tidemill.transform import module_function
from tidemill.transform.features_function import feature_columns

ROWS = "id,price,clicked\n" + "".join(f"{i},{i * 0.5},{i % 2}\n" for i in range(200))
ELSEWHERE = {Code.TRAINING_DIVERGED, Code.SERVING_SKEW, Code.NO_ENGINE, Code.MISSING_IMAGE}
"""Codes whose messages need a trained model or a Docker engine: `tests/training` and `tests/images` compare them with
their examples."""


def ingest(folder: Path, rows: str = ROWS, **fields) -> None:
    runner = Runner(folder)
    runner.run({"clicks": runner.write("clicks.csv", rows)}, **{"labels": ["clicked"], **fields})


def validation(folder: Path, change: Callable[[pa.Table], pa.Table] = lambda table: table, **spec) -> None:
    test = change(shop(500, seed=2))
    validate(folder, {"train": change(shop(3000, seed=0)), "valid": change(shop(500, seed=1)), "test": test}, **spec)


def unknown_key(folder: Path, fixed: bool) -> None:
    parse(EXPERIMENT if fixed else EXPERIMENT.replace("label:", "lable:"))


def invalid_value(folder: Path, fixed: bool) -> None:
    parse(f"{EXPERIMENT}training: {{batch_size: {1024 if fixed else 0}}}\n")


def unsupported(folder: Path, fixed: bool) -> None:
    engine = "duckdb" if fixed else "bigquery"
    check_supported(parse(EXPERIMENT.replace("source:", f"source:\n  engine: {engine}")))


def missing_file(folder: Path, fixed: bool) -> None:
    if fixed:
        (folder / "clicks.csv").write_text(ROWS)
    check_files(parse(EXPERIMENT.replace("clicks.csv", str(folder / "clicks.csv"))))


def missing_column(folder: Path, fixed: bool) -> None:
    ingest(folder, labels=["clicked" if fixed else "click"])


def missing_package(folder: Path, fixed: bool) -> None:
    package, file = ("tidemill", "__init__.py") if fixed else ("nycflights14", "data/flights.csv")
    check_files(parse(EXPERIMENT.replace("clicks.csv", f"pkg://{package}/{file}")))


def unreadable_file(folder: Path, fixed: bool) -> None:
    runner = Runner(folder)
    table = {"uri": runner.write("clicks.dat", ROWS), "format": "csv" if fixed else "parquet"}
    runner.run({"clicks": table}, labels=["clicked"])


def malformed_rows(folder: Path, fixed: bool) -> None:
    ingest(folder, ROWS if fixed else ROWS.replace("\n7,3.5,1\n", "\n7,3.5,1,mobile\n"))


def over_budget(folder: Path, fixed: bool) -> None:
    ingest(folder, source={"max_bytes": "1MB" if fixed else "1KB"})


def sql_error(folder: Path, fixed: bool) -> None:
    ingest(folder, sql=f"SELECT id, {'price' if fixed else 'prise'}, clicked FROM clicks")


def source_changed(folder: Path, fixed: bool) -> None:
    runner = Runner(folder)
    tables = {"clicks": runner.write("clicks.csv", ROWS)}
    spec = runner.spec(tables, labels=["clicked"])
    runner.write("clicks.csv", ROWS + "200,1.5,1\n")
    runner.ingest(runner.spec(tables, labels=["clicked"]) if fixed else spec)


def empty_input(folder: Path, fixed: bool) -> None:
    ingest(folder, sql=f"SELECT * FROM clicks WHERE price < {100 if fixed else 0}")


def empty_split(folder: Path, fixed: bool) -> None:
    ingest(folder, ROWS if fixed else "id,price,clicked\n1,0.5,0\n2,1.5,1\n")


def duplicate_key(folder: Path, fixed: bool) -> None:
    repeated = ROWS + "7,3.5,1\n"
    ingest(folder, repeated, key=["id"], sql="SELECT DISTINCT * FROM clicks" if fixed else None)


def label_null(folder: Path, fixed: bool) -> None:
    rows = ROWS.replace("\n7,3.5,1\n", "\n7,3.5,\n")
    ingest(folder, rows, sql="SELECT * FROM clicks WHERE clicked IS NOT NULL" if fixed else None)


def label_one_class(folder: Path, fixed: bool) -> None:
    ingest(folder, sql="SELECT * FROM clicks" + ("" if fixed else " WHERE clicked = 1"))


def label_type(folder: Path, fixed: bool) -> None:
    rows = ROWS.replace(",1\n", ",yes\n").replace(",0\n", ",no\n")
    sql = "SELECT id, price, (clicked = 'yes')::INT AS clicked FROM clicks"
    ingest(folder, rows, sql=sql if fixed else None)


def feature_all_null(folder: Path, fixed: bool) -> None:
    ingest(folder, sql="SELECT *, NULL::DOUBLE AS age FROM clicks", columns=["price"] if fixed else ["price", "age"])


def feature_type(folder: Path, fixed: bool) -> None:
    kind = "categorical" if fixed else "numeric"
    features = parse(EXPERIMENT.replace("price: {kind: numeric}", f"price: {{kind: {kind}}}")).features
    feature_columns(features, pa.schema([("price", pa.string())]))


def leakage(folder: Path, fixed: bool) -> None:
    def with_paid(table: pa.Table) -> pa.Table:
        return table.append_column("paid", pa.compute.multiply(table["bought"].cast(pa.float64()), table["visits"]))

    features = {"price": {"kind": "numeric"}, "visits": {"kind": "numeric"}, "paid": {"kind": "numeric"}}
    names = ["price", "visits"] if fixed else list(features)
    validation(folder, with_paid, features={name: features[name] for name in names}, feature_columns=names)


def schema_anomaly(folder: Path, fixed: bool) -> None:
    largest = 100 if fixed else 3
    types = {"price": "FLOAT", "site": "BYTES"}
    names = "id price site hour member at bought"
    others = "".join(f'feature {{ name: "{n}" type: {types.get(n, "INT")} }}\n' for n in names.split())
    bound = f'feature {{ name: "visits" type: INT int_domain {{ min: 0 max: {largest} }} }}'
    validation(folder, schema_text=others + bound)


def drift(folder: Path, fixed: bool) -> None:
    def dearer(table: pa.Table) -> pa.Table:
        prices = pa.compute.multiply(table["price"], 1.0 if table.num_rows == 3000 else 2.0)
        return table.set_column(1, "price", prices)

    validation(folder, dearer, drift={"numeric": 0.5 if fixed else 0.05})


def unseen_values(folder: Path, fixed: bool) -> None:
    def moved(table: pa.Table) -> pa.Table:
        new = table.num_rows < 3000 and not fixed
        return table.set_column(3, "site", pa.array(["elsewhere"] * table.num_rows)) if new else table

    validation(folder, moved, unseen={"max": 0.5})


def dropped_tokens(folder: Path, fixed: bool) -> None:
    def broken(table: pa.Table) -> pa.Table:
        sites = pa.array([f"{site}{' ' if fixed else chr(10)}" for site in table["site"].to_pylist()])
        return table.set_column(3, "site", sites)

    validation(folder, broken)


def transform_failed(folder: Path, fixed: bool) -> None:
    name = "print" if fixed else "pint"
    module_function.load(f"def preprocessing_fn(inputs):\n    return inputs\n\n\n{name}()\n")


def not_blessed(folder: Path, fixed: bool) -> None:
    (folder / "serving").mkdir()
    model, evaluation = member(folder, folder / "serving", "dcn_v2", 0.6, blessed=fixed)
    document = evaluation_artifact.read_document(evaluation)
    checks = check_gates({"auc": Gate(min=0.5 if fixed else 0.9)}, document["test"])
    evaluation_artifact.write(evaluation, {**document, "reasons": [check["text"] for check in checks]}, "")
    publish(publish_spec(), [model], [evaluation], root=str(folder / "root"))


def no_model(folder: Path, fixed: bool) -> None:
    if fixed:
        published = folder / "models" / "clicks" / "1"
        with artifact.write_folder(published, {}):
            pass
    model_store.resolve(str(folder), "clicks", "latest")


def no_run(folder: Path, fixed: bool) -> None:
    facts = dict.fromkeys(("experiment", "pipeline", "file", "arguments_fingerprint", "temporary"), "")
    with run_record.record_run(folder, **facts) as run:
        pass
    run_record.find_run(folder, run.id if fixed else "2031")


def incomplete_artifact(folder: Path, fixed: bool) -> None:
    with artifact.write_folder(folder / "model", {}) as target:
        (target / "model.json").write_text("{}")
    if not fixed:
        (folder / "model" / "model.json").write_text("")
    artifact.open_folder(folder / "model")


def unusable_path(folder: Path, fixed: bool) -> None:
    try:
        with open(folder / "part" if fixed else "/dev/full", "w") as file:
            file.write("x")
    except OSError as error:
        error.filename = "/data/part-00000.parquet"
        raise from_system_error(error) from error


CASES = {code: globals()[code.name.lower()] for code in Code if code not in ELSEWHERE}


def message(code: Code, folder: Path) -> str:
    """The message of the case, with paths below `/data`."""
    with pytest.raises(TidemillError) as error:
        CASES[code](folder, False)
    assert error.value.code is code, error.value
    return str(error.value).replace(f"{folder}/in", "/data").replace(str(folder), "/data")


@pytest.mark.parametrize("code", CASES, ids=lambda code: code.code)
def test_example_is_a_real_message(tmp_path, monkeypatch, code):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert without_numbers(message(code, tmp_path)) == without_numbers(code.value.example)


@pytest.mark.parametrize("code", CASES, ids=lambda code: code.code)
def test_remedy_works(tmp_path, monkeypatch, code):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    CASES[code](tmp_path, True)


if __name__ == "__main__":
    for each in CASES:
        with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(None):
            text = message(each, Path(name))
        print(f"{each.code}: {text}")
