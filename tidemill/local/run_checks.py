"""Checks before the first step of a local run: root folder, installed packages, files of the experiment."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tidemill import storage
from tidemill.bundled_modules import top_level_imports
from tidemill.data.source_files import split_member
from tidemill.data.source_record import no_match
from tidemill.errors import Code, TidemillError
from tidemill.experiment import Experiment
from tidemill.experiment.schema_file import read_schema
from tidemill.experiment.source import Source
from tidemill.local.docker_engine import has_gpu
from tidemill.models.own import OwnFamily

_NOT_IN_IMAGES = {
    "tfx",
    "keras_tuner",
    "kerastuner",
    "ml_metadata",
    "tensorflow_data_validation",
    "tensorflow_model_analysis",
}
"""Modules that pipelines of TFX import and that the steps' images do not have."""
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
    """Checks that the local files that the experiment names exist, and that a given schema can be obeyed.

    Raises:
        TidemillError: `missing-file`, or `missing-package` for a `pkg://` URI of a package that is not installed;
            `invalid-value` or `unsupported` for a schema, unless this is an installation without the extra `steps`.
    """
    _check_source(experiment.source, "source")
    if experiment.predict.source is not None:
        _check_source(experiment.predict.source, "predict.source")
    if experiment.validation.schema_ is not None:
        _check_uri(experiment.validation.schema_, "validation.schema")
        if storage.local_path(experiment.validation.schema_) and importlib.util.find_spec("tensorflow_metadata"):
            read_schema(experiment.validation)


def check_modules(experiment: Experiment) -> None:
    """Checks that the user's modules import only what is installed.

    Without the extra `steps`, only modules that are known to be missing in the images are refused.

    Raises:
        TidemillError: `missing-package` with the line of the import.
    """
    texts = {} if experiment.transform_module is None else {"transform_module": experiment.transform_module}
    texts |= {f"models.{m.name}.module": m.module for m in experiment.models if isinstance(m, OwnFamily)}
    complete = importlib.util.find_spec("tensorflow") is not None
    for where, text in texts.items():
        for name, place in _imports(text).items():
            package = name.partition(".")[0]
            if (complete or package in _NOT_IN_IMAGES) and importlib.util.find_spec(package) is None:
                got = f"the import of {name!r}, which is not installed where the steps run"
                want = "put the code that needs it into another file, or import it inside the function that needs it"
                raise TidemillError(Code.MISSING_PACKAGE, f"{where}, {place}", got, want)


def missing_gpu(experiment: Experiment) -> str:
    """Returns a warning if training asks for a GPU and this machine has none, else an empty text."""
    if not experiment.compute.train.gpu or has_gpu():
        return ""
    return "compute.train.gpu is for clusters: this machine has no GPU, so networks train on its CPUs"


def check_queries(experiment: Experiment) -> None:
    """Checks that each query is one SELECT of valid syntax that uses the given parameters. Reads no table.

    Raises:
        TidemillError: `sql-error` or `invalid-value`, unless this is an installation without the extra `steps`.
    """
    if importlib.util.find_spec("duckdb") is None:
        return
    import duckdb

    from tidemill.data.statements import check_statement, sql_error

    for where, source in (("source", experiment.source), ("predict.source", experiment.predict.source)):
        if source is None or source.sql is None or source.engine != "duckdb":
            continue
        try:
            with duckdb.connect() as connection:
                check_statement(connection, source.sql, source, where)
        except duckdb.Error as error:
            raise sql_error(error, source, where) from error


def _imports(text: str) -> dict[str, str]:
    """Returns what a module imports. A module that does not parse fails when it is run, with its line."""
    try:
        return top_level_imports(text)
    except SyntaxError:
        return {}


def _check_source(source: Source, where: str) -> None:
    for name, table in source.tables.items():
        for uri in [table.uri] if isinstance(table.uri, str) else table.uri:
            # Of `archive.zip#member.csv`, only the archive is checked.
            _check_uri(split_member(uri)[0], f"{where}.tables.{name}")


def _check_uri(uri: str, where: str) -> None:
    if storage.local_path(uri) is not None and not storage.list_files(uri):
        raise TidemillError(Code.MISSING_FILE, where, *no_match(uri))
