from __future__ import annotations

import pyarrow as pa
import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2

from tests.validation.shop_data import Outputs, run, shop
from tidemill.errors import Code, TidemillError

BASE = """
  feature { name: "id" type: INT } feature { name: "member" type: INT } feature { name: "at" type: INT }
  feature { name: "bought" type: INT }
"""
OTHERS = {
    "price": 'feature { name: "price" type: FLOAT }',
    "visits": 'feature { name: "visits" type: INT }',
    "site": 'feature { name: "site" type: BYTES }',
    "hour": 'feature { name: "hour" type: INT }',
}

CASES = {
    "wrong type": ("site", 'feature { name: "site" type: INT }', "UNEXPECTED_DATA_TYPE"),
    "not a float": ("price", 'feature { name: "price" type: INT }', "UNEXPECTED_DATA_TYPE"),
    "share missing": (
        "price",
        'feature { name: "price" type: FLOAT presence { min_fraction: 1 } }',
        "FEATURE_TYPE_LOW_FRACTION_PRESENT",
    ),
    "count missing": (
        "price",
        'feature { name: "price" type: FLOAT presence { min_count: 1000 } }',
        "FEATURE_TYPE_LOW_NUMBER_PRESENT",
    ),
    "outside of the domain": (
        "site",
        'feature { name: "site" type: BYTES string_domain { value: "site1" } }',
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
    ),
    "too large": (
        "visits",
        'feature { name: "visits" type: INT int_domain { min: 0 max: 2 } }',
        "INT_TYPE_BIG_INT",
    ),
    "too small": (
        "price",
        'feature { name: "price" type: FLOAT domain: "prices" } float_domain { name: "prices" min: 100 }',
        "FLOAT_TYPE_SMALL_FLOAT",
    ),
    "not boolean": ("visits", 'feature { name: "visits" type: INT bool_domain {} }', "BOOL_TYPE_BIG_INT"),
    "missing column": (
        "weight",
        'feature { name: "weight" type: FLOAT presence { min_count: 1 } }',
        "SCHEMA_MISSING_COLUMN",
    ),
    "new column": ("hour", "", "SCHEMA_NEW_COLUMN"),
    "too many values": (
        "site",
        'feature { name: "site" type: BYTES unique_constraints { max: 3 } }',
        "FEATURE_TYPE_HIGH_UNIQUE",
    ),
    "too few values": (
        "site",
        'feature { name: "site" type: BYTES unique_constraints { min: 30 max: 50 } }',
        "FEATURE_TYPE_LOW_UNIQUE",
    ),
}


def schema_with(column: str, text: str) -> str:
    return BASE + "".join(t for name, t in OTHERS.items() if name != column) + text


@pytest.mark.parametrize(("column", "text", "kind"), CASES.values(), ids=CASES)
def test_each_anomaly_fails_with_a_given_schema(tmp_path, column, text, kind):
    with pytest.raises(TidemillError, match=column) as raised:
        run(tmp_path, {"train": shop(300)}, schema_text=schema_with(column, text))
    assert raised.value.code is Code.SCHEMA_ANOMALY
    outputs = Outputs(tmp_path / "out")
    assert [(a["column"], a["type"], a["severity"]) for a in outputs.anomalies] == [(column, kind, "ERROR")]
    proto = anomalies_pb2.Anomalies.FromString(
        (tmp_path / "out" / "anomalies" / "Split-train" / "SchemaDiff.pb").read_bytes()
    )
    info = proto.anomaly_info[column]
    assert info.severity == anomalies_pb2.AnomalyInfo.ERROR
    assert [anomalies_pb2.AnomalyInfo.Type.Name(r.type) for r in info.reason] == [kind]
    assert proto.baseline.feature
    assert "schema-anomaly" in outputs.page


def test_accepts_data_that_satisfies_the_schema(tmp_path):
    text = schema_with("visits", 'feature { name: "visits" type: FLOAT float_domain { min: 0 } }')
    summary, outputs = run(tmp_path, {"train": shop(300)}, schema_text=text)
    assert summary.anomalies == 0
    assert 'name: "visits"\n  type: FLOAT' in (outputs.folder / "schema" / "schema.pbtxt").read_text()


def test_new_columns_that_no_feature_reads_are_warnings(tmp_path):
    text = schema_with("", "").replace('feature { name: "member" type: INT }', "")
    summary, outputs = run(tmp_path, {"train": shop(300)}, schema_text=text)
    assert summary.anomalies == 1
    assert outputs.anomalies[0]["severity"] == "WARNING"


def test_ignores_deprecated_features(tmp_path):
    text = schema_with("price", 'feature { name: "price" type: INT lifecycle_stage: DEPRECATED }')
    assert run(tmp_path, {"train": shop(300)}, schema_text=text)[0].anomalies == 0


def test_min_domain_mass_tolerates_a_share(tmp_path):
    table = shop(300).set_column(3, "site", pa.array(["a"] * 290 + ["b"] * 10))
    text = 'feature { name: "site" type: BYTES string_domain { value: "a" } '
    text += "distribution_constraints { min_domain_mass: %s } }"
    assert run(tmp_path / "1", {"train": table}, schema_text=schema_with("site", text % 0.9))[0].anomalies == 0
    with pytest.raises(TidemillError, match=r"10 rows .*'b'"):
        run(tmp_path / "2", {"train": table}, schema_text=schema_with("site", text % 0.99))


def test_rejects_infinite_values_and_nan(tmp_path):
    values = pa.array([float("inf"), float("nan")] + [1.0] * 298)
    text = 'feature { name: "price" type: FLOAT float_domain { disallow_inf: true disallow_nan: true } }'
    with pytest.raises(TidemillError):
        run(tmp_path, {"train": shop(300).set_column(1, "price", values)}, schema_text=schema_with("price", text))
    kinds = {a["type"] for a in Outputs(tmp_path / "out").anomalies}
    assert kinds == {"FLOAT_TYPE_HAS_INF", "FLOAT_TYPE_HAS_NAN"}


def test_new_values_are_warnings_with_an_inferred_schema(tmp_path):
    valid = shop(100, seed=1).set_column(3, "site", pa.array(["elsewhere"] * 100))
    summary, outputs = run(tmp_path, {"train": shop(300), "valid": valid})
    assert summary.anomalies == 1
    (anomaly,) = outputs.anomalies
    assert (anomaly["column"], anomaly["split"], anomaly["severity"]) == ("site", "valid", "WARNING")
    assert "elsewhere" in outputs.page


def test_checks_all_splits(tmp_path):
    valid = shop(100, seed=1).set_column(2, "visits", pa.array([-1] * 100, pa.int32()))
    text = schema_with("visits", 'feature { name: "visits" type: INT int_domain { min: 0 } }')
    with pytest.raises(TidemillError, match="visits in valid: the smallest value is -1"):
        run(tmp_path, {"train": shop(300), "valid": valid, "test": shop(100, seed=2)}, schema_text=text)
