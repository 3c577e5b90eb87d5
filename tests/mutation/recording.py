"""Recording of which test runs which line: a pytest plugin that writes it, and its reader.

`make coverage` loads it with `-p tests.mutation.recording`. It labels the measured lines:

    tests/a/test_b.py::test_c[x]       the call of a test, its own fixtures, and the processes that it starts
    fixture tests/a/test_b.py::world   a fixture that several tests share
    shared trained-gbdt                an artifact that `tests.sharing.once` builds

`tests.jsonl`, in the folder of the coverage data, holds what `tests.mutation` needs to find the tests of such labels:
one line for each test, one for each use of a shared artifact, and one with the fingerprints of the sources.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage, CoverageData

from tests import sharing

CONTEXT_VARIABLE = "COVERAGE_CONTEXT"
RECORD = "tests.jsonl"
ROOT = Path(__file__).parents[2]
_shared_seconds = 0.0


def source_fingerprints(root: Path) -> dict[str, str]:
    """Returns the SHA-256 of each source file below `tidemill/`, by its path below `root`."""
    files = sorted((root / "tidemill").rglob("*.py"))
    return {file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def pytest_load_initial_conftests() -> None:
    """Labels the artifacts that `once` builds, before any test module imports it."""
    sharing.once = _labeled(sharing.once)


def pytest_configure(config: pytest.Config) -> None:
    """Records the sources."""
    if not hasattr(config, "workerinput"):
        _record({"sources": source_fingerprints(ROOT)})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Labels the lines of a test, and records its duration without the fixtures that it shares with other tests."""
    global _shared_seconds
    _shared_seconds, start = 0.0, time.monotonic()
    _switch(item.nodeid)
    try:
        return (yield)
    finally:
        _switch("")
        seconds = round(time.monotonic() - start - _shared_seconds, 3)
        _record({"test": item.nodeid, "seconds": seconds, "fixtures": getattr(item, "fixturenames", [])})


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    """Labels the lines of a fixture that several tests share."""
    global _shared_seconds
    if fixturedef.scope == "function":
        return (yield)
    before, start = os.environ.get(CONTEXT_VARIABLE, ""), time.monotonic()
    _switch(f"fixture {fixturedef.baseid}::{fixturedef.argname}")
    try:
        return (yield)
    finally:
        _switch(before)
        if not before.startswith("fixture "):
            _shared_seconds += time.monotonic() - start


def _labeled(once: Callable[..., Path]) -> Callable[..., Path]:
    @functools.wraps(once)
    def labeled(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
        user, label = os.environ.get(CONTEXT_VARIABLE, ""), f"shared {name}"
        _record({"shared": label, "user": user})

        def build_labeled(folder: Path) -> None:
            _switch(label)
            try:
                build(folder)
            finally:
                _switch(user)

        return once(factory, name, build_labeled)

    return labeled


def _switch(label: str) -> None:
    os.environ[CONTEXT_VARIABLE] = label
    if (coverage := Coverage.current()) is not None:
        coverage.switch_context(label)


def _record(line: dict[str, Any]) -> None:
    """Appends one line to the record. Workers of pytest-xdist append to the same file."""
    with open(Path(os.environ["COVERAGE_FILE"]).with_name(RECORD), "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@dataclass
class Recording:
    """What `make coverage` recorded.

    Attributes:
        data: Which label ran which line.
        seconds: Duration of each test.
        fixtures: Names of the fixtures of each test.
        users: The labels that use each shared artifact.
        sources: Fingerprint of each source file.
    """

    data: CoverageData
    seconds: dict[str, float] = field(default_factory=dict)
    fixtures: dict[str, list[str]] = field(default_factory=dict)
    users: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    sources: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Reads the combined coverage data and the record beside it."""
        recording = cls(CoverageData(str(path)))
        recording.data.read()
        for text in path.with_name(RECORD).read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if "test" in line:
                recording.seconds[line["test"]] = line["seconds"]
                recording.fixtures[line["test"]] = line["fixtures"]
            elif "shared" in line:
                recording.users[line["shared"]].add(line["user"])
            else:
                recording.sources = line["sources"]
        return recording

    def labels_by_line(self, file: Path) -> dict[int, list[str]]:
        """Returns the labels that ran each line of a file, without lines that run only when tests are collected."""
        lines = self.data.contexts_by_lineno(str(file))
        labels = {line: sorted(label for label in labels if label) for line, labels in lines.items()}
        return {line: each for line, each in labels.items() if each}

    def tests_of(self, label: str) -> set[str]:
        """Returns the tests that a label stands for."""
        if label in self.seconds:
            return {label}
        if label.startswith("fixture "):
            folder, _, name = label.removeprefix("fixture ").rpartition("::")
            return {test for test, names in self.fixtures.items() if name in names and test.startswith(folder)}
        return {test for user in self.users.get(label, ()) if user != label for test in self.tests_of(user)}
