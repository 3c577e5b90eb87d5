"""Reading of experiments from files and texts.

The error of a mistake names its path in the file, the value and what to write instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import ValidationError

from tidemill.bundled_modules import bundle
from tidemill.errors import Code, TidemillError
from tidemill.experiment.experiment import Experiment
from tidemill.experiment.parameter_text import encode, read_parameter, without_digest
from tidemill.experiment.pydantic_errors import translate
from tidemill.experiment.yaml_text import read_mapping


def load(path: str | Path) -> Experiment:
    """Reads an experiment file and inlines the files that it names.

    `source.sql`, `predict.source.sql`, `transform_module` and `models.N.module` may name a file. Their paths and the
    paths of tables are relative to the folder of the experiment file. The returned experiment has absolute paths. A
    module's text has the modules that it imports from its folder: see `tidemill.bundled_modules`.

    Args:
        path: The experiment file, YAML or JSON.

    Raises:
        TidemillError: `missing-file`, `unreadable-file`, `unknown-key` or `invalid-value`.
    """
    path = Path(path)
    text = _read_file(path, "experiment", "name an experiment file")
    return _validate(_inline(without_digest(read_mapping(text, str(path))), path.parent))


def parse(text: str) -> Experiment:
    """Reads an experiment from the value of a pipeline's parameter.

    Args:
        text: YAML or JSON text in which SQL and Python modules are inline, or the URI of a file with such a text. If
            the text has a digest, as that of `dump`, it is compared.

    Raises:
        TidemillError: `missing-file`, `unreadable-file`, `unknown-key` or `invalid-value`.
    """
    data = without_digest(read_mapping(read_parameter(text), "experiment"))
    _refuse_file_names(data)
    return _validate(data)


def dump(experiment: Experiment) -> str:
    """Returns the experiment as JSON text without default values. Pipelines take this text as a parameter.

    It has a digest, and nothing in it is replaced on the way to a step: see `tidemill.experiment.parameter_text`.
    """
    return encode(experiment.model_dump(mode="json", by_alias=True, exclude_unset=True))


def _validate(data: dict[str, Any]) -> Experiment:
    try:
        # Strict validation of JSON does what users expect: it refuses a number in quotes, and true for 1.
        return Experiment.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise translate(error, data, Experiment) from None


def _refuse_file_names(data: dict[str, Any]) -> None:
    predict = data.get("predict")
    sources = {
        "source": data.get("source"),
        "predict.source": predict.get("source") if isinstance(predict, dict) else None,
    }
    file_names = {f"{where}.sql": source["sql"] for where, source in sources.items() if _names_sql_file(source)}
    if _names_module_file(data.get("transform_module")):
        file_names["transform_module"] = data["transform_module"]
    models = data.get("models")
    for index, model in enumerate(models if isinstance(models, list) else []):
        if isinstance(model, dict) and _names_module_file(model.get("module")):
            file_names[f"models.{index}.module"] = model["module"]
    for where, name in file_names.items():
        want = "write the file's text here; tidemill validate --resolved FILE prints the experiment in this form"
        raise TidemillError(
            Code.INVALID_VALUE, where, f"the file name {name!r} in an experiment without a folder", want
        )


def _inline(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    data = dict(data)
    if _names_module_file(module := data.get("transform_module")):
        data["transform_module"] = _read_module(folder, module.strip(), "transform_module")
    if isinstance(models := data.get("models"), list):
        data["models"] = [_inline_model(model, folder, index) for index, model in enumerate(models)]
    if isinstance(source := data.get("source"), dict):
        data["source"] = _inline_source(source, folder, "source")
    predict = data.get("predict")
    if isinstance(predict, dict) and isinstance(predict.get("source"), dict):
        data["predict"] = {**predict, "source": _inline_source(predict["source"], folder, "predict.source")}
    validation = data.get("validation")
    if isinstance(validation, dict) and isinstance(validation.get("schema"), str):
        data["validation"] = {**validation, "schema": _absolute(validation["schema"], folder)}
    return data


def _inline_model(model: object, folder: Path, index: int) -> object:
    if not isinstance(model, dict) or not _names_module_file(module := model.get("module")):
        return model
    return {**model, "module": _read_module(folder, module.strip(), f"models.{index}.module")}


def _inline_source(source: dict[str, Any], folder: Path, where: str) -> dict[str, Any]:
    source = dict(source)
    if _names_sql_file(source):
        source["sql"] = _read_named_file(folder, source["sql"].strip(), f"{where}.sql")
    if isinstance(tables := source.get("tables"), dict):
        source["tables"] = {name: _absolute_table(table, folder) for name, table in tables.items()}
    return source


def _names_sql_file(source: object) -> TypeGuard[dict[str, Any]]:
    sql = source.get("sql") if isinstance(source, dict) else None
    return isinstance(sql, str) and sql.strip().endswith(".sql") and "\n" not in sql.strip()


def _names_module_file(module: object) -> TypeGuard[str]:
    return isinstance(module, str) and module.strip().endswith(".py") and "\n" not in module.strip()


def _absolute_table(table: object, folder: Path) -> object:
    if isinstance(table, dict) and "uri" in table:
        return {**table, "uri": _absolute_table(table["uri"], folder)}
    if isinstance(table, list):
        return [_absolute(uri, folder) if isinstance(uri, str) else uri for uri in table]
    return _absolute(table, folder) if isinstance(table, str) else table


def _absolute(uri: str, folder: Path) -> str:
    if "://" in uri or uri.startswith("/") or not uri:
        return uri
    return str((folder / uri).absolute())


def _read_named_file(folder: Path, name: str, where: str) -> str:
    return _read_file(folder / name, where, "name a file relative to the experiment file")


def _read_module(folder: Path, name: str, where: str) -> str:
    """Returns a module's text with the modules that it imports from its folder."""
    return _read_file(folder / name, where, "name a file relative to the experiment file", lambda p: bundle(p, where))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _read_file(path: Path, where: str, want: str, read: Callable[[Path], str] = _read_text) -> str:
    try:
        return read(path)
    except UnicodeDecodeError as error:
        got = f"{str(path)!r}, which is not UTF-8 text (byte {error.start})"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, "save it as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        got = f"{str(path)!r}, which cannot be read ({reason.lower()})"
        raise TidemillError(Code.MISSING_FILE, where, got, want) from error
