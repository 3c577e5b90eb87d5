"""Parser of an experiment's text: YAML or JSON.

YAML follows the rules of version 1.2: `on`, `off`, `yes` and `no` are strings, dates and times are strings, and `1e-3`
is a number. Duplicate keys and keys that are not strings are errors.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml

from tidemill.errors import Code, TidemillError

_MAX_SIZE = 1_000_000
"""Most values that an experiment may have when its aliases are replaced."""


def read_mapping(text: str, where: str) -> dict[str, Any]:
    """Parses a text that contains one mapping.

    Args:
        text: YAML or JSON.
        where: Name of the text in errors.

    Returns:
        A mapping of strings, numbers, booleans, None, lists and mappings with string keys.

    Raises:
        TidemillError: `unreadable-file` if the text does not parse; `invalid-value` if it is not a mapping, or has a
            duplicate key, a key that is not a string, or a number that is not finite.
    """
    data = _read_json(text, where) if text.lstrip().startswith("{") else None
    if data is None:
        data = _read_yaml(text, where)
    if not isinstance(data, dict):
        raise TidemillError(
            Code.INVALID_VALUE, where, shown(data), "write a mapping with name, source, label and models"
        )
    return data


def shown(value: object) -> str:
    """Returns a value as the user may have written it, in at most 80 characters."""
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, dict | list):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _read_json(text: str, where: str) -> Any:
    """Parses JSON. Returns None if the text is not JSON; it may still be YAML."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in items]
        if duplicate := next((key for key in keys if keys.count(key) > 1), None):
            raise _duplicate_key_error(where, duplicate)
        return dict(items)

    def not_finite(word: str) -> object:
        raise TidemillError(Code.INVALID_VALUE, where, f"the number {word}", "write a finite number")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=not_finite)
    except (ValueError, RecursionError):
        return None


def _read_yaml(text: str, where: str) -> object:
    try:
        loader = _Loader(text)
        loader.where = where
        node = loader.get_single_node()
        if node is not None and (size := _expanded_size(node, {})) > _MAX_SIZE:
            got = f"{size:,} values when its aliases are replaced, more than {_MAX_SIZE:,}"
            raise TidemillError(Code.INVALID_VALUE, where, got, "remove aliases (*name) of lists of aliases")
        data = None if node is None else loader.construct_document(node)
        json.dumps(data)  # refuses aliases that form a circle
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{where}, line {mark.line + 1}" if mark else where
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        got = f"YAML that does not parse ({problem})"
        raise TidemillError(Code.UNREADABLE_FILE, line, got, _yaml_remedy(str(error))) from error
    return data


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Returns how many values a node stands for. A text of 100 characters counts as one more value.

    Args:
        node: The node, whose aliases refer to the same child several times.
        sizes: The sizes of nodes that are known; nodes inside themselves count once.
    """
    if id(node) not in sizes:
        sizes[id(node)] = 1
        if isinstance(node, yaml.ScalarNode):
            sizes[id(node)] += len(node.value) // 100
        elif isinstance(node, yaml.MappingNode):
            sizes[id(node)] += sum(_expanded_size(each, sizes) for pair in node.value for each in pair)
        else:
            sizes[id(node)] += sum(_expanded_size(each, sizes) for each in node.value)
    return sizes[id(node)]


def _duplicate_key_error(where: str, key: str) -> TidemillError:
    want = "remove one of them"
    return TidemillError(Code.INVALID_VALUE, where, f"the key {key!r} twice in one mapping", want)


class _Loader(yaml.SafeLoader):
    """PyYAML loader with the scalars of YAML 1.2's core schema. Integers are decimal only."""

    where = ""
    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            line = f"{self.where}, line {key.start_mark.line + 1}"
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                got = f"the key {key.value!r}" if isinstance(key, yaml.ScalarNode) else "a list or mapping as a key"
                raise TidemillError(Code.INVALID_VALUE, line, f"{got}, which is not a string", "put the key in quotes")
            if key.value in seen:
                raise _duplicate_key_error(line, key.value)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        if node.tag.endswith(":int"):
            return int(node.value)
        number = float(node.value)
        if not math.isfinite(number):
            line = f"{self.where}, line {node.start_mark.line + 1}"
            raise TidemillError(Code.INVALID_VALUE, line, f"the number {node.value}", "write a finite number")
        return number

    def construct_unknown(self, node: yaml.Node) -> object:
        raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag!r} is not supported", node.start_mark)


_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": (r"[-+]?[0-9]{1,30}", "-+0123456789"),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    "merge": (r"<<", "<"),
}
for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), list(_first))
for _name in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _Loader.construct_number)
for _name in ("timestamp", "binary", "set", "omap", "pairs"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _Loader.construct_unknown)


def _yaml_remedy(message: str) -> str:
    """Returns what to do about the two most frequent mistakes, else that the YAML is to be corrected."""
    if "'\\t'" in message:
        return "indent with spaces instead of tabs"
    if "could not find expected ':'" in message:
        return "write `key: value`, with a space after the colon, in this line or the one before"
    return "correct the YAML"
