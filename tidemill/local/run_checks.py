"""Checks before the first step of a local run: root folder, installed packages, files of the experiment."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tidemill import storage
from tidemill.errors import Code, TidemillError
from tidemill.experiment import Experiment
from tidemill.experiment.source import Source

_STEP_PACKAGES = ("duckdb", "lightgbm", "polars", "pyarrow", "tensorflow", "tensorflow_transform")


def root_folder(root: str | os.PathLike[str], where: str = "--root") -> Path:
    """Returns the absolute path of the root folder, which need not exist.

    Args:
        root: The folder of artifacts, runs and published models, as the user wrote it.
        where: The name of the option or parameter, for the error. Defaults to `--root`.

    Raises:
        TidemillError: `invalid-value` for a URI of an object store, an empty text or a file.
    """
    text = os.fspath(root)
    path = Path(text).absolute()
    if not text or "://" in text:
        want = "name a folder on this machine; object stores are for pipelines on a cluster"
        raise TidemillError(Code.INVALID_VALUE, where, repr(text), want)
    if any(part.exists() and not part.is_dir() for part in (path, *path.parents)):
        raise TidemillError(Code.INVALID_VALUE, where, f"{text!r}, which is not a folder", "name a folder")
    return path


def check_packages() -> None:
    """Checks that the packages of the steps are installed.

    Raises:
        TidemillError: `missing-package`.
    """
    missing = [name for name in _STEP_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        got = f"an installation without {', '.join(missing)}"
        raise TidemillError(Code.MISSING_PACKAGE, "tidemill run", got, "install Tidemill with its extra steps")


def check_files(experiment: Experiment) -> None:
    """Checks that the local files that the experiment names exist.

    Raises:
        TidemillError: `missing-file`, or `missing-package` for a `pkg://` URI of a package that is not installed.
    """
    _check_source(experiment.source, "source")
    if experiment.predict.source is not None:
        _check_source(experiment.predict.source, "predict.source")
    if experiment.validation.schema_ is not None:
        _check_uri(experiment.validation.schema_, "validation.schema")


def _check_source(source: Source, where: str) -> None:
    for name, table in source.tables.items():
        for uri in [table.uri] if isinstance(table.uri, str) else table.uri:
            # Of `archive.zip#member.csv`, only the archive is checked.
            _check_uri(uri.partition("#")[0], f"{where}.tables.{name}")


def _check_uri(uri: str, where: str) -> None:
    if storage.local_path(uri) is not None and not storage.list_files(uri):
        raise TidemillError(
            Code.MISSING_FILE, where, f"{uri!r}, which matches no file", "name an existing file or glob"
        )
