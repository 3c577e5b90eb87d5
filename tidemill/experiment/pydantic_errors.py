"""Translation of pydantic's errors: where the mistake is, what was received, and what to write."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.experiment.csv_options import Csv
from tidemill.experiment.training import Training
from tidemill.experiment.yaml_text import shown
from tidemill.models import families

# Keys whose value selects one of several sections.
_TAGS = {"kind": "numeric, categorical or cross", "family": " or ".join(", ".join(families()).rsplit(", ", 1))}
_Error = Mapping[str, Any]  # pydantic_core.ErrorDetails; `ctx` is not always there
_Path = tuple[str | int, ...]
_RENAMED_KEYS = {"compute.preprocess.spans": "analyzer_cache"}
_CSV_NAMES = {
    "sep": "delim",
    "separator": "delim",
    "quotechar": "quote",
    "escapechar": "escape",
    "charset": "encoding",
    "decimal": "decimal_separator",
    "skiprows": "skip",
    "na_values": "nullstr",
    "nulls": "nullstr",
    "date_format": "dateformat",
    "timestamp_format": "timestampformat",
}
"""The options of CSV files by the names that they have elsewhere."""
_WRONG_TYPE = {
    "string_type": "write a string",
    "int_type": "write an integer",
    "int_from_float": "write an integer",
    "float_type": "write a number",
    "bool_type": "write true or false",
    "list_type": "write a list, such as [a, b]",
    "dict_type": "write a mapping",
    "model_type": "write a mapping",
    "model_attributes_type": "write a mapping",
    "none_required": "leave it empty",
}
_OUT_OF_RANGE = {
    "greater_than": "use more than {gt}",
    "greater_than_equal": "use {ge} or more",
    "less_than": "use less than {lt}",
    "less_than_equal": "use {le} or less",
    "too_short": "name at least {min_length}",
    "too_long": "name at most {max_length}",
    "string_too_short": "write at least {min_length} character",
}


def translate(error: ValidationError, data: dict[str, Any], root: type[BaseModel]) -> TidemillError:
    """Translates the first mistake. Unknown keys come before all others, because they often cause others.

    Args:
        error: Pydantic's error.
        data: The validated data.
        root: The model that validated it.

    Returns:
        The error for the user. `details["mistakes"]` is the number of mistakes.
    """
    mistakes: list[tuple[_Path, _Error]] = [(_path_in_file(e, data), e) for e in error.errors(include_url=False)]
    mistakes = _without_other_branches(mistakes)
    unknown = [mistake for mistake in mistakes if _is_unknown_key(mistake[1])]
    path, first = (unknown or mistakes)[0]
    count = {"mistakes": len({path for path, _ in mistakes})}
    if _is_unknown_key(first):
        if name := _RENAMED_KEYS.get(_dotted(path)):
            got = f"the key {str(path[-1])!r}, which was renamed"
            return TidemillError(Code.UNKNOWN_KEY, _dotted(path), got, f"write {name!r}", count)
        extra = first["type"] == "extra_forbidden"
        known = _known_keys(path[:-1], data, root) if extra else _words(first, "expected")
        if extra and str(path[-1]) in known:
            return _excluded_key_error(path, data, count)
        want = _csv_option(path, known) or suggest_name(str(path[-1]), sorted(known))
        return TidemillError(Code.UNKNOWN_KEY, _dotted(path), f"the unknown key {str(path[-1])!r}", want, count)
    if first["type"] in ("missing", "union_tag_not_found"):
        return _missing_key_error(path, first, count)
    if first["type"] == "union_tag_invalid":
        tag = str(first["ctx"]["discriminator"]).strip("'")
        path = (*path, tag)
        got = first["input"][tag]
    else:
        got = first["input"]
    same_path = [e for other, e in mistakes if other == path] or [first]
    want = _joined([_want(e, path, data, root) for e in same_path])
    return TidemillError(Code.INVALID_VALUE, _dotted(path), _got(first, got), want, count)


def _excluded_key_error(path: _Path, data: Any, count: dict[str, int]) -> TidemillError:
    """Returns the error for a key of another form of the same section, such as `bucketize` next to `clip`."""
    for part in path[:-1]:
        data = data[part]
    others = ", ".join(repr(str(key)) for key in data if key != path[-1])
    got = f"the key {str(path[-1])!r} next to {others}"
    want = "keep one of them, because they exclude each other"
    return TidemillError(Code.INVALID_VALUE, _dotted(path[:-1]), got, want, count)


def _csv_option(path: _Path, known: list[str]) -> str | None:
    """Returns what to write if an unknown key of a table is an option of CSV files. None for other keys."""
    name = _CSV_NAMES.get(str(path[-1]), str(path[-1]))
    if path[-2:-1] == ("csv",) and name in known:
        return f"write {name!r}"
    return f"write it in csv: {{{name}: …}}" if path[-3:-2] == ("tables",) and name in Csv.model_fields else None


def _is_unknown_key(error: _Error) -> bool:
    return error["type"] == "extra_forbidden" or (error["type"] == "literal_error" and error["loc"][-1] == "[key]")


def _missing_key_error(path: _Path, error: _Error, count: dict[str, int]) -> TidemillError:
    if error["type"] == "missing":
        parent, key, words = path[:-1], str(path[-1]), ""
    else:
        parent, key = path, str(error["ctx"]["discriminator"]).strip("'")
        words = f": {_TAGS[key]}"
    return TidemillError(Code.INVALID_VALUE, _dotted(parent), f"no {key!r}", f"add the key {key!r}{words}", count)


def _want(error: _Error, path: _Path, data: dict[str, Any], root: type[BaseModel]) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "literal_error":
        return suggest_name(str(value), sorted(_words(error, "expected")))
    if kind == "union_tag_invalid":
        return suggest_name(str(value[path[-1]]), sorted(_words(error, "expected_tags")))
    if kind in _WRONG_TYPE:
        want = _WRONG_TYPE[kind]
        keys = _known_keys(path, data, root) if want == "write a mapping" else []
        if tag := next((tag for tag in _TAGS if tag in keys), None):
            return f"{want} with the key {tag!r}: {_TAGS[tag]}"
        if keys:
            return f"{want} with the {'key' if len(keys) == 1 else 'keys'} {', '.join(keys)}"
        if kind == "string_type" and isinstance(value, bool | int | float):
            return f"{want}, in quotes"
        if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str) and _is_scalar(value):
            return f"{want}, without quotes"
        return want
    if kind in _OUT_OF_RANGE:
        return _OUT_OF_RANGE[kind].format(**context)
    if kind == "string_pattern_mismatch" and context["pattern"].startswith("^[^"):
        return 'write one character; a tab is "\\t" in double quotes'
    if kind == "string_pattern_mismatch":
        return f"write it so that it matches {context['pattern']}"
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _got(error: _Error, value: object) -> str:
    if error["type"] == "value_error" and isinstance(value, dict):
        return shown(value) if len(shown(value)) < 80 else f"the keys {', '.join(map(str, value))}"
    return shown(value)


def _words(error: _Error, key: str) -> list[str]:
    return [word.strip().strip("'\"") for word in error["ctx"][key].replace(" or ", ", ").split(",")]


def _joined(wants: list[str]) -> str:
    """Joins texts: `write a number` and `write a string` become `write a number or a string`."""
    first, *others = dict.fromkeys(wants)
    verb = first.partition(" ")[0]
    others = [want.removeprefix(f"{verb} ") for want in others]
    return " or ".join([", ".join([first, *others[:-1]]), *others[-1:]])


def _is_scalar(text: str) -> bool:
    """Returns whether a text without quotes would be a number or a boolean."""
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false")
    return True


def _dotted(path: _Path) -> str:
    return ".".join(str(part) for part in path) or "experiment"


def _path_in_file(error: _Error, data: Any) -> _Path:
    """Returns pydantic's location without the parts that name a member of a union instead of a key of the file."""
    path: list[str | int] = []
    location = error["loc"]
    for index, part in enumerate(location):
        inside = isinstance(data, dict) and part in data
        inside = inside or (isinstance(data, list) and isinstance(part, int) and part < len(data))
        if inside:
            data = data[part]
            path.append(part)
        elif index == len(location) - 1 and error["type"] == "missing":
            path.append(part)
    return tuple(path)


def _without_other_branches(mistakes: list[tuple[_Path, _Error]]) -> list[tuple[_Path, _Error]]:
    """Returns the mistakes of the branch of a union that the user meant.

    Pydantic reports a mistake for each branch. The user meant the branch that accepts more keys of the value, or that
    accepts its type but not its range.
    """
    kept = []
    for path, error in mistakes:
        wrong_type = error["type"] in _WRONG_TYPE or error["type"] == "literal_error"
        others = [(p, e) for p, e in mistakes if e is not error and p[: len(path)] == path]
        deeper = any(len(p) > len(path) for p, _ in others)
        in_range = any(p == path and e["type"] in (*_OUT_OF_RANGE, "value_error") for p, e in others)
        if not (wrong_type and (deeper or in_range)):
            kept.append((path, error))
    return kept


def _known_keys(path: _Path, data: dict[str, Any], root: type[BaseModel]) -> list[str]:
    """Returns the keys that the section at `path` may have. Follows the models' annotations along the path."""
    if path[:1] == ("models",) and path[2:3] == ("training",):  # a member's own settings, a plain mapping
        return _known_keys(path[3:], data["models"][path[1]]["training"], Training)
    candidates: list[object] = [root]
    value: object = data
    for part in path:
        value = typing.cast("Any", value)[part] if isinstance(value, dict | list) else None
        candidates = [member for candidate in candidates for member in _descend(candidate, part)]
    keys: dict[str, None] = {}
    for model in candidates:
        if isinstance(model, type) and issubclass(model, BaseModel) and _fits(model, value):
            keys.update((field.alias or name, None) for name, field in model.model_fields.items())
    return list(keys)


def _descend(annotation: object, part: object) -> list[object]:
    """Returns the annotations of one key or item."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part in (name, field.alias):
                return _members(field.annotation)
        return []
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    return _members(args[-1]) if origin in (dict, list) else []


def _members(annotation: object) -> list[object]:
    """Returns the members of a union and of the unions in it, without `Annotated`."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [m for arg in typing.get_args(annotation) for m in _members(arg)]
    return [annotation]


def _fits(model: type[BaseModel], data: object) -> bool:
    """Returns whether the data's `kind` or `family` is that of the model. True for a model without these keys."""
    for tag in _TAGS:
        if tag in model.model_fields and isinstance(data, dict) and tag in data:
            return data[tag] in typing.get_args(model.model_fields[tag].annotation)
    return True
