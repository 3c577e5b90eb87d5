"""The folders and files of this machine that a run's containers see, each at its own path."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill import storage
from tidemill.data.source_files import split_member
from tidemill.experiment import Experiment
from tidemill.experiment.source import Source

_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Mount:
    """A folder or file that a container sees."""

    source: Path
    """Its absolute path on this machine."""
    target: str = ""
    """Its path in the container. Empty: the same."""
    writable: bool = False

    def option(self) -> str:
        """Returns the value of docker's option `--mount`, which is a line of CSV."""
        fields = ["type=bind", f"source={self.source}", f"target={self.target or self.source}"]
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(fields if self.writable else [*fields, "readonly"])
        return line.getvalue()


def experiment_mounts(experiment: Experiment, output: str = "") -> list[Mount]:
    """Returns what the steps of an experiment read and write, except the root.

    Args:
        experiment: The experiment. Files in packages are not mounted: the image has packages of its own.
        output: The folder of the predictions, if it is not below the root. Its parent folder is created, since a step
            writes the predictions beside it and renames them.
    """
    mounts = [Mount(path) for path in dict.fromkeys(_inputs(experiment))]
    if output and (folder := _path(output)):
        folder.parent.mkdir(parents=True, exist_ok=True)
        mounts.append(Mount(folder.parent, writable=True))
    return mounts


def absolute_output(parameters: Mapping[str, str]) -> dict[str, str]:
    """Returns a pipeline's parameters with an absolute `output`, because containers have another working directory."""
    output = parameters.get("output", "")
    folder = _path(output) if output else None
    return dict(parameters) if folder is None else {**parameters, "output": str(folder)}


def _inputs(experiment: Experiment) -> Iterator[Path]:
    for source in filter(None, (experiment.source, experiment.predict.source)):
        for uri in _table_uris(source):
            if path := _path(split_member(uri)[0]):  # of `archive.zip#member.csv`, the archive
                yield _fixed_part(path)
    for uri in (experiment.validation.schema_, experiment.training.warm_start):
        if uri and uri != "previous" and (path := _path(uri)):
            yield path


def _table_uris(source: Source) -> Iterable[str]:
    for table in source.tables.values():
        yield from [table.uri] if isinstance(table.uri, str) else table.uri


def _path(uri: str) -> Path | None:
    """Returns the absolute local path of a URI; None for object stores and packages."""
    if uri.startswith("pkg://"):
        return None
    path = storage.local_path(uri)
    return None if path is None else Path(os.path.abspath(path))


def _fixed_part(path: Path) -> Path:
    """Returns a path without its parts from the first wildcard on; an existing file's name may have one."""
    if path.exists():
        return path
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    return Path(*parts[:first])
