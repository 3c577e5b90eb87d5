"""The commands `tidemill validate` and `tidemill schema`: check an experiment file, print its JSON Schema."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tidemill import storage
from tidemill.cli.data_checks import check_data
from tidemill.data.source_files import split_member
from tidemill.errors import Code, TidemillError
from tidemill.experiment import Experiment, dump, json_schema, load
from tidemill.experiment.parameter_text import MAX_BYTES, parameter_bytes
from tidemill.experiment.placement import STEPS, placement, requests
from tidemill.experiment.run_state import too_large
from tidemill.experiment.unused import unused_settings
from tidemill.local.run_checks import check_files, check_modules, check_queries
from tidemill.planning import check_sizes, check_supported


def validate(args: argparse.Namespace) -> int:
    """Checks an experiment file: its keys and values, and that the local source files exist."""
    experiment = load(args.file)
    check_supported(experiment)
    check_sizes(experiment)
    check_files(experiment)
    check_modules(experiment)
    check_queries(experiment)
    columns = check_data(experiment) if args.data else []
    print(
        text := dump(experiment)
        if args.resolved
        else "\n".join([_summary(experiment), *columns, *_resources(experiment)])
    )
    for setting, why in unused_settings(experiment).items():
        print(f"warning  {setting} has no effect: {why}", file=sys.stderr)
    if problem := too_large(experiment):
        print(f"warning  {problem}", file=sys.stderr)
    if args.resolved and (size := parameter_bytes(text)) > MAX_BYTES:
        hint = "write it to a file that the steps can read, and give the file's URI as the parameter experiment"
        print(f"the text takes {size:,} bytes of a pod, more than {MAX_BYTES:,}; {hint}", file=sys.stderr)
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


def _resources(experiment: Experiment) -> list[str]:
    """Returns lines that say what the steps request on a cluster."""
    tables = experiment.source.tables.values()
    uris = [uri for table in tables for uri in ([table.uri] if isinstance(table.uri, str) else table.uri)]
    archives = {split_member(uri)[0] for uri in uris}
    if any(storage.local_path(uri) is None for uri in archives):
        return ["on a cluster: planning sets CPU and memory by the bytes of the source"]
    source_bytes = sum(info.bytes for uri in archives for info in storage.list_files(uri))
    lines = [f"on a cluster, for a source of {source_bytes:,} bytes:"]
    for step in STEPS:
        asked = requests(experiment.compute, step, source_bytes)
        line = f"  {step:<10} cpu {asked['cpu']}, memory {asked['memory']}"
        lines.append(line + (_nodes(experiment, source_bytes) if step == "train" else ""))
    return lines


def _nodes(experiment: Experiment, source_bytes: int) -> str:
    """Returns the limits of `train` and what it asks of nodes."""
    train, placed = experiment.compute.train, placement(experiment.compute, source_bytes)
    words = [f" (limits: cpu {placed['cpu_limit']}, memory {placed['memory_limit']})"]
    if train.gpu:
        words.append(f"{train.gpu} x {train.gpu_type or 'any GPU'}")
    if train.machine:
        words.append(train.machine)
    words += [f"{name}={value}" for name, value in train.node_selector.items()]
    if train.spot:
        words.append("spot nodes preferred")
    return ", ".join(words)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
