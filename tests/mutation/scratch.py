"""Scratch: a copy of this tree, in which tests run with a fault."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutation.mutants import Mutation
from tests.mutation.recording import ROOT

_NOT_COPIED = {".git", ".venv", ".tidemill", ".coverage", ".hypothesis", ".pytest_cache", ".ruff_cache", "site"}
_START_SECONDS, _MOST_SECONDS = 120.0, 900.0
_PRINT_PATHS = """
import tidemill, tidemill.components, tidemill.pipelines
print(*tidemill.__path__, *tidemill.components.__path__, *tidemill.pipelines.__path__)
"""


class Scratch:
    """A copy of this tree, whose virtual environment imports the copy, and other packages from this environment."""

    def __init__(self, root: Path):
        """Copies the tree.

        Args:
            root: The copy's folder, which must not exist.

        Raises:
            RuntimeError: The copy's environment does not import the copy.
        """
        self._root = root
        self._passing: dict[str, bool] = {}

        def ignore(folder: str, names: list[str]) -> set[str]:
            return {"__pycache__"} | (_NOT_COPIED if Path(folder) == ROOT else set())

        shutil.copytree(ROOT, root, ignore=ignore)
        venv.create(root / ".venv", with_pip=False, symlinks=True)
        (packages,) = (root / ".venv" / "lib").glob("python*/site-packages")
        folders = [path for path in map(Path, sys.path) if path.is_dir() and path.resolve() != ROOT]
        (packages / "_packages.pth").write_text("".join(f"{folder}\n" for folder in folders), encoding="utf-8")
        for file in [file for folder in folders for file in folder.glob("__editable__*tidemill*") if file.is_file()]:
            # These files are how an editable installation maps packages to folders.
            text = file.read_text(encoding="utf-8")
            if str(ROOT) in text or file.suffix == ".pth":
                (packages / file.name).write_text(text.replace(str(ROOT), str(root)), encoding="utf-8")
        imported = self._run(["-c", _PRINT_PATHS], _START_SECONDS).stdout.split()
        if imported != [str(root / name) for name in ("tidemill", "components", "pipelines")]:
            raise RuntimeError(f"the copy is not imported, but {imported}; install this tree as editable")

    def noticed_by(
        self, file: str, mutation: Mutation, tests: Sequence[str], seconds: Mapping[str, float]
    ) -> str | None:
        """Runs tests with a fault until one fails that passes without it.

        Args:
            file: Path of the source file below the tree's root.
            mutation: The fault.
            tests: Tests in the order to run them.
            seconds: Duration of each test, for the time-out. Unknown tests count as a minute.

        Returns:
            The test that notices the fault, or what else ends the run, such as a time-out; None if all tests pass.
        """
        path = self._root / file
        source = path.read_text(encoding="utf-8")
        remaining = list(tests)
        while remaining:
            path.write_text(mutation.apply(source), encoding="utf-8")
            try:
                failure = self._first_failure(remaining, sum(seconds.get(test, 60) for test in remaining))
            finally:
                path.write_text(source, encoding="utf-8")
            if failure is None or failure.startswith("a "):
                return failure
            # A failure is a test, or a file that cannot be imported.
            failed = [test for test in remaining if test == failure or test.startswith(f"{failure}::")] or remaining
            if self._passes(failed[0]):
                return failure
            print(f"left out, because it fails without a fault: {failure}", file=sys.stderr)
            remaining = [test for test in remaining if test not in failed]
        return None

    def _passes(self, test: str) -> bool:
        """Returns whether a test passes without a fault."""
        if test not in self._passing:
            self._passing[test] = self._first_failure([test], _MOST_SECONDS) is None
        return self._passing[test]

    def _first_failure(self, tests: Sequence[str], seconds: float) -> str | None:
        command = ["-m", "pytest", "-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", *tests]
        try:
            done = self._run(command, min(_START_SECONDS + 3 * seconds, _MOST_SECONDS))
        except subprocess.TimeoutExpired as error:
            return f"a time-out of {error.timeout:.0f} s"
        if done.returncode == 0:
            return None
        if done.returncode < 0:
            return f"a crash by signal {-done.returncode}"
        failed = [line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        if not failed:
            raise RuntimeError(f"pytest returned {done.returncode}:\n{done.stdout}\n{done.stderr}")
        matching = [test for test in tests if f"{failed[0]} ".startswith(f"{test} ")]
        return max(matching, key=len, default=failed[0])

    def _run(self, arguments: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
        """Runs the copy's Python in a session of its own, which is killed after some seconds."""
        left_out = ("COVERAGE", "PYTHON", "PYTEST", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        # Python takes a compiled file for current if a mutant has the size of its original and is of the same second.
        environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            [str(self._root / ".venv" / "bin" / "python"), *arguments],
            cwd=self._root, env=environment, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            output, errors = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
