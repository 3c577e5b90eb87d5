"""The commands `tidemill validate` and `tidemill schema`: check an experiment file, print its JSON Schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tidemill.errors import Code, TidemillError
from tidemill.experiment import Experiment, dump, json_schema, load
from tidemill.local.run_checks import check_files
from tidemill.planning import check_supported


def validate(args: argparse.Namespace) -> int:
    """Checks an experiment file: its keys and values, and that the local source files exist."""
    experiment = load(args.file)
    check_supported(experiment)
    check_files(experiment)
    print(dump(experiment) if args.resolved else _summary(experiment))
    return 0


def schema(args: argparse.Namespace) -> int:
    """Prints or writes the JSON Schema."""
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    if args.output:
        try:
            Path(args.output).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            want = "name a file in a folder that can be written to"
            raise TidemillError(Code.MISSING_FILE, "--output", f"{args.output!r} ({error.strerror})", want) from error
    else:
        print(text)
    return 0


def _summary(experiment: Experiment) -> str:
    features = "a transform module" if experiment.features is None else _count(len(experiment.features), "feature")
    models = ", ".join(model.name for model in experiment.models)
    tables = _count(len(experiment.source.tables), "table")
    labels = experiment.label_columns()
    label = f"label {labels[0]}" if len(labels) == 1 else f"labels {', '.join(labels)}"
    return f"ok: {experiment.name}: {tables}, {label}, {features}, models {models}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
