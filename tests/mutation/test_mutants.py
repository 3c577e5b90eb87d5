"""The mutation check: which faults it makes, and which tests it runs."""

from __future__ import annotations

import pytest
from coverage import CoverageData

from tests.mutation.__main__ import Candidate, choose_tests
from tests.mutation.mutants import find_mutations, is_valid
from tests.mutation.recording import Recording


def mutants(body: str, returns: str = "") -> list[str]:
    """Returns the first changed line of each mutant of a function with this body."""
    source = f"def f(x, y){returns}:\n" + "".join(f"    {line}\n" for line in body.split("\n"))
    changed = [m.apply(source).split("\n")[m.line - 1].strip() for m in find_mutations(source) if is_valid(source, m)]
    return sorted(changed)


@pytest.mark.parametrize(
    ("body", "mutated"),
    [
        ("x = y < 1", ["x = y < 2", "x = y <= 1"]),
        ("x = é(y) is not None and y in x", ["x = é(y) is None and y in x", "x = é(y) is not None and y not in x",
                                             "x = é(y) is not None or y in x"]),
        ("x += y", ["x -= y"]),
        ("x = y // 2.5", ["x = y * 2.5", "x = y // 5.0"]),
        ("if x:\n    pass", ["if (not (x)):"]),
        ("x = [a for a in y if a]", ["x = [a for a in y if (not (a))]"]),
        ("x = not y", ["x = (y)"]),
        ("x = np.log(y, True)", ["x = np.log(y, False)"]),
    ],
)  # fmt: skip
def test_changes_operators_constants_and_conditions(body, mutated):
    assert mutants(body) == sorted(mutated)


@pytest.mark.parametrize(
    ("returns", "mutated"),
    [("", "None"), (" -> bool", "not (x)"), (" -> int", "(x) + 1"), (" -> 'str'", '(x) + "x"'), (" -> A", "None")],
)
def test_changes_returned_values_by_the_annotation(returns, mutated):
    assert mutants("return x", returns) == [f"return {mutated}"]


@pytest.mark.parametrize(
    "body",
    [
        '"""Docstring 1."""',
        "import a",
        "x: Literal[1] = y",
        "raise ValueError(x + 1)",
        "assert x < 1",
        'x = f"{y + 1:.3f}" + y',
        "progress.rows(y + 1)",
        "self._logger.info(y + 1)",
        "x = cast(Literal[1], y)",
        "x = folder / y",
        "return None",
    ],
)
def test_leaves_wording_types_and_paths_alone(body):
    assert mutants(body) == []


def test_leaves_code_outside_of_functions_alone():
    assert find_mutations("A = 1\nclass B:\n    c: int = 2\n    def d(self, e=3): pass\n") == []


def test_a_mutation_of_a_long_expression_has_the_line_of_its_operator():
    source = "def f(x):\n    return (\n        x\n        - 'é'.size\n    )\n"
    (minus,) = [mutation for mutation in find_mutations(source) if mutation.text == "+"]
    assert (minus.line, minus.statement) == (4, 2)
    assert minus.apply(source) == source.replace("- 'é'", "+ 'é'")


@pytest.fixture
def recording() -> Recording:
    """Three tests, of which two use a fixture that uses an artifact."""
    tests = {
        "tests/data/test_a.py::test_a": 2.0,
        "tests/data/test_a.py::test_b": 1.0,
        "tests/local/test_c.py::test": 0.5,
    }
    label = "fixture tests/data/test_a.py::world"
    return Recording(
        CoverageData(no_disk=True), tests, {key: ["world"] for key in list(tests)[:2]}, {"shared x": {label}}
    )


def test_finds_the_tests_of_fixtures_and_of_shared_artifacts(recording):
    both = {"tests/data/test_a.py::test_a", "tests/data/test_a.py::test_b"}
    assert recording.tests_of("tests/local/test_c.py::test") == {"tests/local/test_c.py::test"}
    assert recording.tests_of("fixture tests/data/test_a.py::world") == both
    assert recording.tests_of("shared x") == both
    assert recording.tests_of("shared y") == set()


def test_runs_the_fastest_tests_first_and_prefers_those_of_the_package(recording):
    line = Candidate("tidemill/data/ingest.py", 1, [], ["shared x", "tests/local/test_c.py::test"])
    names = [test.rpartition("/")[2] for test in choose_tests(line, recording, most=3)]
    assert names == ["test_c.py::test", "test_a.py::test_b", "test_a.py::test_a"]
    assert [test.rpartition("/")[2] for test in choose_tests(line, recording, most=1)] == ["test_a.py::test_b"]
