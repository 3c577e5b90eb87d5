"""Reading of an experiment's YAML: its syntax, duplicate keys, and aliases."""

import pytest
import yaml

from tests.experiment.test_parsing import VALID, changed, mistake
from tidemill.errors import Code
from tidemill.experiment import parse

_BROKEN = [
    *("a: [", "a: b: c", "\ta: 1", "a: *x", "a: &x [*x]", "a: \x00", "--- 1\n--- 2", "[" * 1500, "%YAML 3.0\n--- a"),
    *("a: !!python/object:os.system x", "a: !!set {b}", "a: !!timestamp 2001-01-01"),
]


class TestYaml:
    def test_rejects_duplicate_keys_with_their_line(self):
        error = mistake(yaml.safe_dump(VALID) + "\nname: again\n")
        assert error.code is Code.INVALID_VALUE
        assert error.where.startswith("experiment, line ") and "'name' twice" in error.got
        error = mistake("name: x\nsource:\n  tables: {a: 1}\n  tables: {b: 2}\n")
        assert error.where == "experiment, line 4"
        assert "'name' twice" in mistake('{"name": 1, "name": 2}').got

    def test_on_and_no_are_strings(self):
        assert mistake("on: 1").got == "the unknown key 'on'"
        error = mistake(changed("source.tables.logs.header", "x").replace("header: x", "header: yes"))
        assert (error.got, error.want) == ("'yes'", "write true or false")
        text = changed("source.tables.logs.null", ["@"]).replace("'@'", "no")
        assert parse(text).source.tables["logs"].null == ["no"]

    def test_dates_and_times_are_strings(self):
        text = yaml.safe_dump(VALID).replace("day: '2013-01-01'", "day: 2013-01-01\n    time: 12:30")
        assert parse(text).source.params == {"day": "2013-01-01", "time": "12:30"}

    @pytest.mark.parametrize(("text", "number"), [("1e-3", 1e-3), ("1E2", 100.0), (".5", 0.5), ("5.", 5.0), ("7", 7.0)])
    def test_reads_numbers_with_exponents_and_without_digits(self, text, number):
        experiment = parse(changed("training.optimizer.learning_rate", "@").replace("'@'", text))
        assert experiment.training.optimizer.learning_rate == number

    def test_reads_a_leading_zero_as_decimal(self):
        assert parse(changed("training.epochs", "@").replace("'@'", "010")).training.epochs == 10

    @pytest.mark.parametrize("text", ["1e999", "-1e999"])
    def test_rejects_infinite_numbers(self, text):
        assert mistake(changed("features.price.missing", "@").replace("'@'", text)).got == f"the number {text}"
        assert mistake('{"a": NaN}').got == "the number NaN"

    @pytest.mark.parametrize("key", ["1", "true", "null", "1.5", "[a]"])
    def test_rejects_keys_that_are_not_strings(self, key):
        error = mistake(f"name: x\n? {key}\n: 3\n")
        assert error.where == "experiment, line 2" and error.want == "put the key in quotes"

    @pytest.mark.parametrize("text", _BROKEN)
    def test_rejects_broken_yaml(self, text):
        error = mistake(text)
        assert error.code is Code.UNREADABLE_FILE and error.where.startswith("experiment")

    def test_supports_anchors_and_merges(self):
        text = changed("features", "@").replace("features: '@'", "features: {a: &a {kind: numeric}, b: {<<: *a}}")
        assert parse(text).features["b"].kind == "numeric"


def _aliases(first: str, step: str, levels: int = 7) -> str:
    lines = [first, *(step.replace("%p", f"*a{i}").replace("%n", f"&a{i + 1}") for i in range(levels))]
    return "\n".join(f"k{i}: {line}" for i, line in enumerate(lines))


@pytest.mark.parametrize(
    "text",
    [
        _aliases("&a0 [1,2,3,4,5,6,7,8,9,0]", "%n [%p, %p, %p, %p, %p, %p, %p, %p, %p, %p]"),
        _aliases("&a0 {a: 1, b: 2}", "%n {" + ", ".join(f"c{i}: %p" for i in range(10)) + "}"),
        _aliases("&a0 {a: 1, b: 2}", "%n {<<: [%p, %p, %p, %p, %p, %p, %p, %p, %p, %p]}"),
        "k0: &a " + "x" * 100_000 + "\nk1: [" + ", ".join(["*a"] * 2000) + "]",
    ],
    ids=["lists", "mappings", "merge keys", "a long text"],
)
def test_refuses_aliases_that_expand_to_millions_of_values(text):
    found = mistake(text)
    assert found.code is Code.INVALID_VALUE and "values when its aliases are replaced" in str(found)


def test_aliases_and_merge_keys_of_a_normal_file_are_read():
    text = yaml.safe_dump({**VALID, "features": None}).replace(
        "features: null", "features: {a: &n {kind: numeric}, b: *n, c: {<<: *n, transform: log}}"
    )
    assert parse(text).features["c"].transform == "log"
