"""Runs TensorFlow Transform's own tests from the installed package on the local engine, or on Beam.

    python -m tests.transform.tft_suite.run                    # local engine, both forms, two processes
    python -m tests.transform.tft_suite.run --beam-too         # tests that may fail must fail on Beam as well
    python -m tests.transform.tft_suite.run --engine beam      # only Beam
    python -m tests.transform.tft_suite.run --only Gaussianize --jobs 1

Prints a table, and each test whose outcome differs from `expected.yaml`. Exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import fnmatch
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

import yaml

EXPECTED = Path(__file__).with_name("expected.yaml")
ROUNDING = 1e-5
"""Largest relative error of a number in a test of the section `rounding`."""
_LARGEST = re.compile(r"Max relative difference among violations: (\S+)")
FORMATS = ("batches", "parquet")
PASSED, FAILED, SKIPPED, REFUSED = "passed", "failed", "skipped", "refused"
NOT_FLAT, BYPASSED, NOT_APPLICABLE = "not flat", "bypassed", "not applicable"
_OUTCOMES = (PASSED, FAILED, SKIPPED, REFUSED, NOT_FLAT, BYPASSED, NOT_APPLICABLE)
_SHOWN_CHARACTERS = 1500


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["local", "beam"], default="local")
    parser.add_argument("--forms", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", default="", help="run only tests whose name contains this text")
    parser.add_argument("--results", type=Path, help="file for the outcome of each test, as lines of JSON")
    parser.add_argument("--beam-too", action="store_true", help="also run tests that may fail on Beam")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine == "beam":
        arguments.forms = ["beam"]
    if arguments.worker is not None:
        return _work(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = _run_workers(arguments, Path(folder))
    if arguments.results:
        arguments.results.write_text("".join(json.dumps(result) + "\n" for result in results))
    expected = Expected(arguments.engine)
    wrong = [result for result in results if not expected.matches(result)]
    _print_table(results)
    for result in wrong:
        print(f"\n{result['form']}: {result['test']}: {result['outcome']}\n{result['message'][-_SHOWN_CHARACTERS:]}")
    seen = {result["test"] for result in results}
    stale = [] if arguments.only else [pattern for pattern in expected.patterns() if not fnmatch.filter(seen, pattern)]
    for pattern in stale:
        print(f"\nexpected.yaml: got the pattern {pattern}, which matches no test; remove it")
    print(f"\n{len(results)} runs of {len(seen)} tests in {time.monotonic() - started:.0f} s, {len(wrong)} unexpected")
    return 1 if wrong or stale or not results else 0


class Expected:
    """The expected outcomes in `expected.yaml`."""

    def __init__(self, engine: str):
        self._engine = engine
        self._sections: dict[str, dict[str, str]] = yaml.safe_load(EXPECTED.read_text())

    def patterns(self) -> list[str]:
        """Returns all patterns of test names."""
        return [pattern for section in self._sections.values() for pattern in section]

    def matches(self, result: dict) -> bool:
        """Returns whether a test has the expected outcome."""
        outcome, named = result["outcome"], self.section(result["test"])
        if self._engine == "beam":
            return outcome != FAILED or named == "rounding"
        if outcome == FAILED and result.get("beam", FAILED) != FAILED:
            return False
        if named == "rounding" and outcome == FAILED:
            off = [float(number) for number in _LARGEST.findall(result["message"])]
            return bool(off) and max(off) <= ROUNDING
        wanted = {"not applicable": NOT_APPLICABLE, "refused": REFUSED}
        # Some rows have no flat form for Parquet.
        return outcome in (wanted.get(named, PASSED), NOT_FLAT, SKIPPED)

    def section(self, test: str) -> str | None:
        """Returns the section that names a test, if any."""
        for name, section in self._sections.items():
            if any(fnmatch.fnmatch(test, pattern) for pattern in section):
                return name
        return None


def _print_table(results: list[dict]) -> None:
    counts = collections.Counter((r["form"], r["test"].split(".")[0], r["outcome"]) for r in results)
    outcomes = [o for o in _OUTCOMES if any(outcome == o for _, _, outcome in counts)]
    print("| form | module | " + " | ".join(outcomes) + " | seconds |\n" + "| --- " * (len(outcomes) + 3) + "|")
    for form, module in dict.fromkeys((r["form"], r["test"].split(".")[0]) for r in results):
        seconds = sum(r["seconds"] for r in results if (r["form"], r["test"].split(".")[0]) == (form, module))
        cells = [str(counts[form, module, outcome]) for outcome in outcomes]
        print(f"| {form} | {module} | {' | '.join(cells)} | {seconds:.0f} |")


def _run_workers(arguments: argparse.Namespace, folder: Path) -> list[dict]:
    command = [sys.executable, "-m", __spec__.name, *sys.argv[1:]]
    workers = []
    for number in range(arguments.jobs):
        results = ["--jobs", str(arguments.jobs), "--worker", str(number), "--results", str(folder / f"{number}.jsonl")]
        log = open(folder / f"{number}.log", "wb")  # noqa: SIM115
        workers.append((subprocess.Popen([*command, *results], stdout=log, stderr=subprocess.STDOUT), log))
    results = []
    for number, (process, log) in enumerate(workers):
        code = process.wait()
        log.close()
        if code:
            print((folder / f"{number}.log").read_text(errors="replace")[-4000:])
            raise SystemExit(f"process {number} of {len(workers)} ended with {code}")
        results += [json.loads(line) for line in (folder / f"{number}.jsonl").read_text().splitlines()]
    return sorted(results, key=lambda result: (result["form"], result["test"]))


def _work(arguments: argparse.Namespace) -> int:
    """Runs the tests of one process."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with open(arguments.results, "w") as out, tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = os.environ["TEST_TMPDIR"] = folder
        tests = [(name, test) for name, test in load() if arguments.only in name][arguments.worker :: arguments.jobs]
        expected = Expected(arguments.engine)
        for name, test in tests:
            section = expected.section(name)
            on_beam = {}
            if arguments.beam_too and section == "rounding":
                on_beam["beam"] = run(test, "beam")["outcome"]
            for form in arguments.forms:
                skip = section == "not applicable" and arguments.engine == "local"
                made = {"outcome": NOT_APPLICABLE, "message": "", "seconds": 0.0} if skip else run(test, form)
                out.write(json.dumps({"form": form, "test": name, **made, **on_beam}) + "\n")
                out.flush()
    return 0


def load() -> list[tuple[str, unittest.TestCase]]:
    """Returns the tests in `tensorflow_transform.beam` that use `TransformTestCase`, with names `module.Class.test`."""
    import tensorflow_transform.beam as package
    from tensorflow_transform.beam import tft_unit

    tests = []
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name.endswith("_test"):
            for test in _flatten(unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(module.name))):
                if isinstance(test, tft_unit.TransformTestCase) and test._testMethodName != "test_session":
                    name = f"{module.name.rsplit('.', 1)[-1]}.{type(test).__name__}.{test._testMethodName}"
                    tests.append((name, test))
    return tests


def run(test: unittest.TestCase, form: str) -> dict:
    """Runs a test in one form, or on Beam if it is `beam`; returns its outcome, message and seconds."""
    if form == "beam":
        return _run(test, contextlib.nullcontext())[0]
    from tests.transform.tft_suite.formats import Form, NotFlat
    from tests.transform.tft_suite.substitution import Calls, local_engine
    from tidemill.errors import Code, TidemillError

    calls = Calls()
    result, error = _run(test, local_engine(Form(form), calls))
    if isinstance(error, NotFlat):
        result["outcome"] = NOT_FLAT
    elif isinstance(error, TidemillError) and error.code is Code.UNSUPPORTED and "use the beam engine" in str(error):
        result["outcome"] = REFUSED
    elif not calls.count and result["outcome"] != SKIPPED:
        result["outcome"] = BYPASSED
    return result


def _run(test: unittest.TestCase, engine: contextlib.AbstractContextManager) -> tuple[dict, BaseException | None]:
    result = _Result()
    # A new instance, because each has its own temporary folder.
    test = type(test)(test._testMethodName)
    started = time.monotonic()
    with _own_parameters(test), engine:
        test.run(result)
    seconds = round(time.monotonic() - started, 3)
    [(_, message)] = (result.failures + result.errors)[:1] or [(test, "")]
    outcome = FAILED if result.failures or result.errors else SKIPPED if result.skipped else PASSED
    return {"outcome": outcome, "message": message, "seconds": seconds}, result.error


@contextlib.contextmanager
def _own_parameters(test: unittest.TestCase) -> Iterator[None]:
    """Gives a test a copy of its parameters: some tests change theirs, and others share them."""
    method = getattr(type(test), test._testMethodName)
    cells = dict(zip(method.__code__.co_freevars, method.__closure__ or (), strict=True))
    cell = cells.get("testcase_params")
    if cell is None:
        yield
        return
    parameters = cell.cell_contents
    cell.cell_contents = copy.deepcopy(parameters)
    try:
        yield
    finally:
        cell.cell_contents = parameters


class _Result(unittest.TestResult):
    """A test result that keeps the last exception."""

    error: BaseException | None = None

    def addError(self, test, err):
        self.error = err[1]
        super().addError(test, err)


def _flatten(suite: unittest.TestSuite | unittest.TestCase) -> list[unittest.TestCase]:
    if isinstance(suite, unittest.TestCase):
        return [suite]
    return [test for part in suite for test in _flatten(part)]


if __name__ == "__main__":
    sys.exit(main())
