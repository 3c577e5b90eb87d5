from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from tests.validation.shop_data import run, shop
from tidemill.data.projection import project
from tidemill.duckdb_session import quote
from tidemill.errors import Code, TidemillError
from tidemill.given_schema import schema_text
from tidemill.validation.domain_counts import string_domains


@pytest.fixture(scope="module")
def inferred(tmp_path_factory):
    _, outputs = run(tmp_path_factory.mktemp("schema"), {"train": shop(500)})
    return schema_text.parse((outputs.folder / "schema" / "schema.pbtxt").read_text(encoding="utf-8"))


def test_infers_types_and_presence(inferred):
    features = {f.name: f for f in inferred.feature}
    types = {name: schema_pb2.FeatureType.Name(f.type) for name, f in features.items()}
    assert types == {
        "id": "INT",
        "price": "FLOAT",
        "visits": "INT",
        "site": "BYTES",
        "hour": "INT",
        "member": "INT",
        "at": "INT",
        "bought": "INT",
    }
    assert features["visits"].presence.min_fraction == 1
    assert features["visits"].shape.dim[0].size == 1
    assert features["price"].presence.min_fraction == 0
    assert features["price"].presence.min_count == 1
    assert features["price"].value_count.max == 1


def test_infers_domains(inferred):
    features = {f.name: f for f in inferred.feature}
    assert string_domains(inferred) == {"site": [f"site{i}" for i in range(8)]}
    assert features["hour"].int_domain.is_categorical
    assert (features["bought"].int_domain.min, features["bought"].int_domain.max) == (0, 1)
    assert features["at"].time_domain.integer_format == schema_pb2.TimeDomain.UNIX_SECONDS


def test_infers_no_domain_for_many_values(tmp_path):
    table = shop(150)
    table = table.set_column(3, "site", [[f"user{i}" for i in range(150)]])
    _, outputs = run(tmp_path, {"train": table})
    text = (outputs.folder / "schema" / "schema.pbtxt").read_text(encoding="utf-8")
    assert not schema_text.parse(text).string_domain


def test_returns_own_and_shared_string_domains():
    text = """
      feature { name: "own" type: BYTES string_domain { value: "x" } }
      feature { name: "shared" type: BYTES domain: "letters" }
      feature { name: "free" type: BYTES }
      string_domain { name: "letters" value: "a" value: "b" }
    """
    assert string_domains(schema_text.parse(text)) == {"own": ["x"], "shared": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("feature { nam: 'x' }", "does not parse"),
        ("feature {", "does not parse"),
        ("feature { type: INT }", "without a name"),
        ("feature { name: 'x' } feature { name: 'x' }", "'x' twice"),
    ],
)
def test_rejects_broken_schemas(text, said):
    with pytest.raises(TidemillError, match=said) as raised:
        schema_text.parse(text)
    assert raised.value.code is Code.INVALID_VALUE
    assert raised.value.where == "validation.schema"


def test_parses_the_text_of_a_schema(inferred):
    assert schema_text.parse(text_format.MessageToString(inferred)) == inferred


def test_the_schema_of_a_run_accepts_the_same_data(tmp_path):
    """Given back, an inferred schema changes no value in `ingest` and gives no anomaly in `validate`."""
    table = shop(300)
    lists = {
        "tags": pa.array([["a"], [], None] * 100, pa.list_(pa.string())),
        "vector": pa.array([[0.5, 1.5]] * 300),
        "grid": pa.array([[[1], [2, 3]]] * 300, pa.list_(pa.list_(pa.int64()))),
        "blob": pa.array([b"\xff\x00"] * 300),
        "day": pa.array([19_000] * 300, pa.date32()),
    }
    for name, values in lists.items():
        table = table.append_column(name, values)
    _, outputs = run(tmp_path / "1", {"train": table})
    text = (outputs.folder / "schema" / "schema.pbtxt").read_text(encoding="utf-8")
    summary, _ = run(tmp_path / "2", {"train": table, "valid": table.slice(0, 50)}, schema_text=text)
    assert summary.anomalies == 0
    connection = duckdb.connect()
    connection.register("rows", table)
    columns = dict(connection.execute("SELECT column_name, column_type FROM (DESCRIBE rows)").fetchall())
    projection = project(columns, text)
    selected = ", ".join(f"{sql} AS {quote(column)}" for column, sql in projection.columns.items())
    made = connection.sql(f"SELECT {selected} FROM rows").to_arrow_table()
    assert connection.execute(f"SELECT count(*) FROM rows WHERE {projection.malformed or 'false'}").fetchall() == [(0,)]
    assert made.to_pylist() == table.to_pylist()
