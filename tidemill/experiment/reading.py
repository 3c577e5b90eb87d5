"""Reading an experiment, with an error for each mistake that names its path, the value and the nearest right word."""

from __future__ import annotations

import difflib
import types
import typing
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from tidemill.errors import Code, TidemillError
from tidemill.experiment.experiment import Experiment

_MAX_SHOWN = 80


def load(path: str | Path) -> Experiment:
    """Reads an experiment file and inlines the files that it names.

    `source.sql`, `predict.source.sql` and `transform_module` may name a file beside the experiment file; relative table
    paths are taken from the experiment file's folder too, so that the result no longer depends on where it is read.

    Raises:
        TidemillError: `missing-file`, `unreadable-file`, `unknown-key` or `invalid-value`.
    """
    path = Path(path)
    if not path.is_file():
        raise TidemillError(Code.MISSING_FILE, "experiment", f"{str(path)!r}, which is no file", "name an experiment file")
    data = _read_yaml(path.read_text(encoding="utf-8"), str(path))
    return _validate(_inline(data, path.parent))


def parse(text: str) -> Experiment:
    """Reads an experiment from YAML or JSON text, in which SQL and transform module stand inline.

    Raises:
        TidemillError: `unreadable-file`, `unknown-key` or `invalid-value`.
    """
    return _validate(_read_yaml(text, "experiment"))


def dump(experiment: Experiment) -> str:
    """The experiment as JSON text without the defaults, as it travels into a pipeline."""
    return experiment.model_dump_json(by_alias=True, exclude_unset=True)


def _read_yaml(text: str, where: str) -> dict:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise TidemillError(Code.UNREADABLE_FILE, place, f"YAML that does not parse ({problem})", "mend the YAML") from error
    if not isinstance(data, dict):
        raise TidemillError(Code.INVALID_VALUE, where, f"{_short(data)}", "write a mapping with name, source and models")
    return data


def _inline(data: dict, folder: Path) -> dict:
    data = dict(data)
    if isinstance(module := data.get("transform_module"), str) and "\n" not in module:
        data["transform_module"] = _read_beside(folder, module, "transform_module")
    if isinstance(source := data.get("source"), dict):
        data["source"] = _inline_source(source, folder, "source")
    predict = data.get("predict")
    if isinstance(predict, dict) and isinstance(predict.get("source"), dict):
        data["predict"] = {**predict, "source": _inline_source(predict["source"], folder, "predict.source")}
    validation = data.get("validation")
    if isinstance(validation, dict) and isinstance(validation.get("schema"), str):
        data["validation"] = {**validation, "schema": _absolute(validation["schema"], folder)}
    return data


def _inline_source(source: dict, folder: Path, where: str) -> dict:
    source = dict(source)
    if isinstance(sql := source.get("sql"), str) and sql.strip().endswith(".sql") and "\n" not in sql.strip():
        source["sql"] = _read_beside(folder, sql.strip(), f"{where}.sql")
    if isinstance(tables := source.get("tables"), dict):
        source["tables"] = {name: _absolute_table(table, folder) for name, table in tables.items()}
    return source


def _absolute_table(table: object, folder: Path) -> object:
    if isinstance(table, dict) and "uri" in table:
        return {**table, "uri": _absolute_table(table["uri"], folder)}
    if isinstance(table, list):
        return [_absolute(uri, folder) if isinstance(uri, str) else uri for uri in table]
    return _absolute(table, folder) if isinstance(table, str) else table


def _absolute(uri: str, folder: Path) -> str:
    if "://" in uri or uri.startswith("/"):
        return uri
    return str((folder / uri).absolute())


def _read_beside(folder: Path, name: str, where: str) -> str:
    path = folder / name
    if not path.is_file():
        raise TidemillError(Code.MISSING_FILE, where, f"{name!r}, which is no file in {folder}", "name a file beside the experiment file")
    return path.read_text(encoding="utf-8")


def _validate(data: dict) -> Experiment:
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        raise _translate(error, data) from None


def _translate(error: ValidationError, data: dict) -> TidemillError:
    """The first mistake in the file's order of importance: unknown keys before wrong values."""
    mistakes = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    first = mistakes[0]
    path = _path_in_file(first["loc"], data)
    where = ".".join(str(part) for part in path) or "experiment"
    count = {"mistakes": len(mistakes)}
    if first["type"] == "extra_forbidden":
        known = _known_keys(path[:-1], data)
        want = _nearest(str(path[-1]), known)
        return TidemillError(Code.UNKNOWN_KEY, where, f"the unknown key {str(path[-1])!r}", want, count)
    if first["type"] == "missing":
        parent = ".".join(str(part) for part in path[:-1]) or "experiment"
        return TidemillError(Code.INVALID_VALUE, parent, f"no {path[-1]!r}", f"add the key {path[-1]!r}", count)
    message = first["msg"].removeprefix("Value error, ")
    want = message[:1].lower() + message[1:]
    if first["type"] in ("literal_error", "union_tag_invalid"):
        words = _expected_words(first)
        want = _nearest(str(first["input"] if first["type"] == "literal_error" else first["ctx"]["tag"]), words)
    return TidemillError(Code.INVALID_VALUE, where, _short(first["input"]), want, count)


def _path_in_file(loc: tuple, data: object) -> list:
    """Drops from pydantic's location the parts that name a member of a union and not a key of the file."""
    path: list = []
    for index, part in enumerate(loc):
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif index < len(loc) - 1:
            continue
        elif isinstance(data, dict) and not _is_union_tag(str(part)):
            path.append(part)
            continue
        else:
            continue
        path.append(part)
    return path


def _is_union_tag(part: str) -> bool:
    return part[:1].isupper() or "[" in part or part in ("str", "int", "float", "bool", "dict", "list")


def _known_keys(path: list, data: dict) -> list[str]:
    """The keys that the section at `path` may have, found by walking the annotations along the data."""
    candidates: list = [Experiment]
    for part in path:
        data = data[part]
        step: list = []
        for candidate in candidates:
            step += _descend(candidate, part)
        candidates = step
    keys: list[str] = []
    for model in candidates:
        if isinstance(model, type) and issubclass(model, BaseModel) and _fits(model, data):
            keys += [field.alias or name for name, field in model.model_fields.items()]
    return keys


def _descend(annotation: object, part: object) -> list:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part in (name, field.alias):
                return _members(field.annotation)
        return []
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (dict, list):
        return _members(args[-1])
    return []


def _members(annotation: object) -> list:
    """The members of a union, with `Annotated` and nesting taken off."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [m for arg in typing.get_args(annotation) for m in _members(arg)]
    return [annotation]


def _fits(model: type[BaseModel], data: object) -> bool:
    """Whether the data's discriminator (`kind` or `family`), where the model has one, is the model's."""
    for tag in ("kind", "family"):
        if tag in model.model_fields and isinstance(data, dict) and tag in data:
            return data[tag] in typing.get_args(model.model_fields[tag].annotation)
    return True


def _expected_words(error: dict) -> list[str]:
    key = "expected" if error["type"] == "literal_error" else "expected_tags"
    text = error["ctx"][key].replace(" or ", ", ")
    return [word.strip().strip("'\"") for word in text.split(",")]


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}"
    return f"use one of {', '.join(sorted(known))}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
