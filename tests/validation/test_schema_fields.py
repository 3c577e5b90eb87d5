"""One case for each field of schema.proto: what a violation gives, against the table that docs/schema.md shows."""

from __future__ import annotations

import re

import pytest
from google.protobuf.descriptor import Descriptor
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tests.validation.schema_cases import CASES, INVALID, REFUSED
from tests.validation.schema_tables import PREVIOUS_ROWS, tables
from tests.validation.shop_data import spec, write
from tidemill.artifacts.examples import Dataset
from tidemill.errors import TidemillError
from tidemill.given_schema import field_table, schema_text
from tidemill.runtime import Progress
from tidemill.validation import anomalies, columns, comparators, domain_counts, scan, statistics

_DOMAINS = [message for name, message in vars(schema_pb2).items() if name.endswith("Domain")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The examples, and a database to scan them."""
    folder = tmp_path_factory.mktemp("schema-fields")
    splits = tables()
    dataset = Dataset(write(folder / "examples", splits))
    with scan.connect(folder) as connection:
        yield dataset, connection


def previous() -> statistics_pb2.DatasetFeatureStatistics:
    """Statistics of a published model's train split, in which `s` is "a" in 3 of 4 rows."""
    proto = statistics_pb2.DatasetFeatureStatistics(name="train", num_examples=PREVIOUS_ROWS)
    feature = proto.features.add(type=statistics_pb2.FeatureNameStatistics.STRING)
    feature.path.step.append("s")
    feature.string_stats.common_stats.num_non_missing = PREVIOUS_ROWS
    for value, count in (("a", 30), ("b", 10)):
        feature.string_stats.rank_histogram.buckets.add(label=value, sample_count=count)
    return proto


def found(text: str, data) -> set[str] | str:
    """Returns the types of the anomalies that are errors, or the code of the error that refuses the schema."""
    dataset, connection = data
    try:
        schema = schema_text.parse(text)
        environment = schema_text.environment(schema, "TRAINING")
        schema = schema_text.flatten(schema, environment)
    except TidemillError as error:
        return error.code.code
    named = {feature.name for feature in schema.feature} | set(re.findall(r"# (\w+)", text))
    everything = spec(labels=["label"], features=None, feature_columns=dataset.schema().names[1:])
    used = [c for c in columns.resolve(everything, dataset.schema(), schema) if c.steps[0] in named]
    extra = statistics.ExtraCounts(domains=domain_counts.requests(schema))
    splits = {n: statistics.compute(connection, dataset, n, used, extra, Progress("t")) for n in dataset.splits}
    protos = {name: split.proto for name, split in splits.items()}
    compared = comparators.compare(schema, environment, protos, previous())
    result = anomalies.find(splits, schema, used, given=True, environment=environment, previous=previous(),
                            comparisons=compared)  # fmt: skip
    return {anomaly.type for anomaly in result if anomaly.severity == "ERROR"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [case for cases in CASES.values() for case in cases],
    ids=[f"{name}-{i}" for name, cases in CASES.items() for i in range(len(cases))],
)
def test_a_field_of_the_schema_is_obeyed_or_refused(text, expected, data):
    assert found(text, data) == expected


def reachable(message: Descriptor, found: dict[str, set[str]]) -> dict[str, set[str]]:
    """Returns the fields of a message and of all messages below it, by message.

    The messages below a field that is refused or ignored as a whole are left out.
    """
    name = message.full_name.removeprefix(f"{message.file.package}.")
    if name not in found:
        found[name] = {field.name for field in message.fields}
        for field in message.fields:
            rule = field_table.FIELDS.get(name, {}).get(field.name)
            if field.message_type is not None and (rule is None or rule.effect in ("checked", "used")):
                reachable(field.message_type, found)
    return found


def test_every_field_has_a_rule_and_a_case():
    listed = {message: set(fields) for message, fields in field_table.FIELDS.items()}
    found = reachable(schema_pb2.Schema.DESCRIPTOR, {})
    assert {message.DESCRIPTOR.name for message in _DOMAINS} <= set(found)
    # A refused field, whose own field has a case too.
    assert listed == found | {"FeaturePresenceWithinGroup": {"required"}}
    assert set(CASES) == {f"{message}.{name}" for message, fields in listed.items() for name in fields}


@pytest.mark.parametrize("field", CASES)
def test_the_table_says_what_happens(field):
    message, _, name = field.rpartition(".")
    rule = field_table.FIELDS[message][name]
    results = [expected for _, expected in CASES[field]]
    kinds = {kind for expected in results if not isinstance(expected, str) for kind in expected}
    assert set(rule.anomalies) <= kinds
    if rule.effect == "refused":
        assert set(map(str, results)) <= {REFUSED, INVALID}
    if rule.effect == "ignored":
        assert results == [set()]
    if rule.effect == "checked":
        assert rule.anomalies
