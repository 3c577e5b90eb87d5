"""Runs TensorFlow Transform's own tests of the installed package on the local engine, or on Beam.

    python -m tests.transform.tft_suite.run                    # local, both forms, two processes
    python -m tests.transform.tft_suite.run --beam-too         # what is expected to fail must fail on Beam as well
    python -m tests.transform.tft_suite.run --engine beam      # Beam alone
    python -m tests.transform.tft_suite.run --only Gaussianize --jobs 1

Prints a table, and each test that did not end as `expected.yaml` says. Exits with 1 if there is one.
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
"""How far off, relative to it, a number may be from what a test in the section `rounding` expects."""
_LARGEST = re.compile(r"Max relative difference among violations: (\S+)")
FORMS = ("batches", "parquet")
PASSED, FAILED, SKIPPED, REFUSED = "passed", "failed", "skipped", "refused"
NOT_FLAT, BYPASSED, NOT_APPLICABLE = "not flat", "bypassed", "not applicable"
_OUTCOMES = (PASSED, FAILED, SKIPPED, REFUSED, NOT_FLAT, BYPASSED, NOT_APPLICABLE)
_SHOWN_CHARACTERS = 1500


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["local", "beam"], default="local")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", default="", help="tests whose name has this in it")
    parser.add_argument("--results", type=Path, help="where to write the outcome of each test, as lines of JSON")
    parser.add_argument("--beam-too", action="store_true", help="run what is expected to fail on Beam as well")
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
    wrong = [result for result in results if not expected.holds(result)]
    _print_table(results)
    for result in wrong:
        print(f"\n{result['form']}: {result['test']}: {result['outcome']}\n{result['message'][-_SHOWN_CHARACTERS:]}")
    seen = {result["test"] for result in results}
    stale = [] if arguments.only else [pattern for pattern in expected.patterns() if not fnmatch.filter(seen, pattern)]
    for pattern in stale:
        print(f"\nexpected.yaml names {pattern}, and there is no such test")
    print(f"\n{len(results)} runs of {len(seen)} tests in {time.monotonic() - started:.0f} s, {len(wrong)} unexpected")
    return 1 if wrong or stale or not results else 0


class Expected:
    """What `expected.yaml` says of tests that do not pass."""

    def __init__(self, engine: str):
        self._engine = engine
        self._sections: dict[str, dict[str, str]] = yaml.safe_load(EXPECTED.read_text())

    def patterns(self) -> list[str]:
        """All patterns of tests' names."""
        return [pattern for section in self._sections.values() for pattern in section]

    def holds(self, result: dict) -> bool:
        """Whether a test ended as it should."""
        outcome, named = result["outcome"], self.section(result["test"])
        if self._engine == "beam":
            return outcome != FAILED or named == "rounding"
        if outcome == FAILED and result.get("beam", FAILED) != FAILED:
            return False
        if named == "rounding" and outcome == FAILED:
            off = [float(number) for number in _LARGEST.findall(result["message"])]
            return bool(off) and max(off) <= ROUNDING
        wanted = {"not applicable": NOT_APPLICABLE, "refused": REFUSED}
        # A test of Parquet may be one of record batches alone.
        return outcome in (wanted.get(named, PASSED), NOT_FLAT, SKIPPED)

    def section(self, test: str) -> str | None:
        """The section that names a test."""
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
    found = []
    for number, (process, log) in enumerate(workers):
        code = process.wait()
        log.close()
        if code:
            print((folder / f"{number}.log").read_text(errors="replace")[-4000:])
            raise SystemExit(f"process {number} of {len(workers)} ended with {code}")
        found += [json.loads(line) for line in (folder / f"{number}.jsonl").read_text().splitlines()]
    return sorted(found, key=lambda result: (result["form"], result["test"]))


def _work(arguments: argparse.Namespace) -> int:
    """One process's share of the tests."""
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
    """All tests below `tensorflow_transform.beam` whose class has the entry point, by `module.Class.test`."""
    import tensorflow_transform.beam as package
    from tensorflow_transform.beam import tft_unit

    found = []
    for told in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if told.name.endswith("_test"):
            for test in _flatten(unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(told.name))):
                if isinstance(test, tft_unit.TransformTestCase) and test._testMethodName != "test_session":
                    name = f"{told.name.rsplit('.', 1)[-1]}.{type(test).__name__}.{test._testMethodName}"
                    found.append((name, test))
    return found


def run(test: unittest.TestCase, form: str) -> dict:
    """Runs a test in one form, `beam` for none; returns its outcome, message and seconds."""
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
    # A new one, as each has its own temporary folder.
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
    """Gives a test a copy of its parameters: some write to them, and others share them."""
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
    """Keeps the last exception."""

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
