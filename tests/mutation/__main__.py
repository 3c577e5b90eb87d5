"""Mutation check: draws covered lines, puts one small fault into each, and reports which faults the tests notice.

    make coverage
    python -m tests.mutation --seed 1 --number 20 --coverage .coverage/data

`make coverage` runs all tests but those marked `full`, records which test runs which line into `.coverage/`, and
reports the branch coverage of `tidemill/`. It takes about twice the time of `make test`.

The check draws lines of function bodies that at least one test runs, from the packages in `PACKAGES`. In each line it
changes an operator, a constant, a condition or a returned value, in a copy of this tree, one at a time, and runs the
tests that cover the line until one fails: at most `--tests` of them, those of the line's package before others, the
fastest first. A test that fails counts only if it passes without the fault. The result depends only on the seed, the
tree and the recording. Files that have changed since the recording are left out.

The output is a Markdown table. To run one of its lines again, also with tests that are not in the recording:

    python -m tests.mutation --seed 1 --coverage .coverage/data --only tidemill/training/folds.py:40 \\
        --also tests/training/test_folds.py::test_new
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutants import Mutation, find_mutations, is_valid
from tests.mutation.recording import ROOT, Recording, source_fingerprints
from tests.mutation.scratch import Scratch

PACKAGES = (
    "tidemill/artifacts/",
    "tidemill/auc_and_log_loss.py",
    "tidemill/data/",
    "tidemill/evaluation/",
    "tidemill/metric_definitions.py",
    "tidemill/models/core/",
    "tidemill/publishing/",
    "tidemill/reports/",
    "tidemill/serving/",
    "tidemill/training/",
    "tidemill/transform/",
)
"""Data, transform, training, evaluation and publishing, with the modules that they share with other steps."""


@dataclass(frozen=True)
class Candidate:
    """A covered line that can be mutated.

    Attributes:
        file: Path below the root of the tree.
        line: From 1.
        mutations: All mutations of the line, of which a few may not be valid.
        labels: Labels of the tests, fixtures and shared artifacts that run the line.
    """

    file: str
    line: int
    mutations: list[Mutation]
    labels: list[str]

    @property
    def name(self) -> str:
        """The line as `file:line`."""
        return f"{self.file}:{self.line}"

    def draw(self, seed: int) -> Mutation | None:
        """Returns one mutation of the line, which depends only on the seed and the line; None if none is valid."""
        source = (ROOT / self.file).read_text(encoding="utf-8")
        mutations = random.Random(f"{seed} {self.name}").sample(self.mutations, len(self.mutations))
        return next((mutation for mutation in mutations if is_valid(source, mutation)), None)


def find_candidates(recording: Recording) -> list[Candidate]:
    """Returns the lines that tests run and that can be mutated, in files that are as they were recorded."""
    sources = {file: sha for file, sha in source_fingerprints(ROOT).items() if file.startswith(PACKAGES)}
    changed = [file for file in sources if sources[file] != recording.sources.get(file)]
    if changed:
        print(f"left out, because changed since the recording: {', '.join(changed)}", file=sys.stderr)
    candidates = []
    for file in sorted(set(sources) - set(changed)):
        labels = recording.labels_by_line(ROOT / file)
        by_line: dict[int, list[Mutation]] = {}
        for mutation in find_mutations((ROOT / file).read_text(encoding="utf-8")):
            by_line.setdefault(mutation.line, []).append(mutation)
        for line, mutations in sorted(by_line.items()):
            if runs := labels.get(line) or labels.get(mutations[0].statement):
                candidates.append(Candidate(file, line, mutations, runs))
    return candidates


def choose_tests(candidate: Candidate, recording: Recording, most: int) -> list[str]:
    """Returns the tests to run, the fastest first: those of the line's package, filled up with others."""
    tests = {test for label in candidate.labels for test in recording.tests_of(label)}
    package = candidate.file.removeprefix("tidemill/").partition("/")[0]
    chosen = sorted(tests, key=lambda test: (not test.startswith(f"tests/{package}/"), recording.seconds[test], test))
    return sorted(chosen[:most], key=lambda test: (recording.seconds[test], test))


def check(candidates: list[Candidate], recording: Recording, options: argparse.Namespace) -> tuple[int, int]:
    """Mutates lines until `--number` of them have been checked, and prints a row of the table for each.

    Returns:
        The number of noticed faults, and that of all faults.
    """
    noticed = total = 0
    with tempfile.TemporaryDirectory(prefix="tidemill-mutation-") as folder:
        scratch = Scratch(Path(folder).resolve() / "tree")
        for candidate in candidates:
            mutation, tests = candidate.draw(options.seed), choose_tests(candidate, recording, options.tests)
            tests = options.also + [test for test in tests if test not in options.also]
            if total == options.number or mutation is None or not tests:
                continue
            found = scratch.noticed_by(candidate.file, mutation, tests, recording.seconds)
            noticed, total = noticed + (found is not None), total + 1
            source = (ROOT / candidate.file).read_text(encoding="utf-8")
            old, new = (text.split("\n")[candidate.line - 1].strip() for text in (source, mutation.apply(source)))
            _print_row(total, candidate.name, f"`{old}`", f"`{new}`", found or f"**NOT NOTICED** by {len(tests)} tests")
    return noticed, total


def _print_row(*cells: object) -> None:
    print("|", " | ".join(str(cell).replace("|", "\\|") for cell in cells), "|", flush=True)


def main() -> None:
    """Parses the options and prints the table with the total below it."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--coverage", type=Path, required=True, metavar="FILE", help="the combined coverage data")
    parser.add_argument("--seed", type=int, default=1, help="seed of the draw (default: 1)")
    parser.add_argument("--number", type=int, default=20, help="how many lines to draw (default: 20)")
    parser.add_argument(
        "--tests", type=int, default=40, help="how many tests to run at most for each line (default: 40)"
    )
    parser.add_argument("--only", action="append", default=[], metavar="FILE:LINE", help="check this line only")
    parser.add_argument("--also", action="append", default=[], metavar="TEST", help="run this test too, as the first")
    options = parser.parse_args()
    recording = Recording.read(options.coverage)
    candidates = find_candidates(recording)
    random.Random(options.seed).shuffle(candidates)
    if options.only:
        candidates = [candidate for candidate in candidates if candidate.name in options.only]
        if unknown := set(options.only) - {candidate.name for candidate in candidates}:
            parser.error(f"not a covered line that can be mutated: {', '.join(sorted(unknown))}")
    _print_row("", "line", "original", "mutant", "noticed by")
    _print_row("---:", "---", "---", "---", "---")
    noticed, total = check(candidates, recording, options)
    print(f"\n{noticed} of {total} noticed (seed {options.seed}, {len(candidates)} lines to draw from).")


if __name__ == "__main__":
    main()
