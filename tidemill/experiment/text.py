"""From the experiment's text to plain data: YAML without its traps, or JSON.

The rules are those of YAML 1.2: `on`, `off`, `yes` and `no` are strings, dates and times are strings, `1e-3` is a
number. A key that stands twice in a mapping is refused, and so are keys that are no strings.
"""

from __future__ import annotations

import json
import math
import re

import yaml

from tidemill.errors import Code, TidemillError


def read_mapping(text: str, where: str) -> dict:
    """Reads a text that holds one mapping.

    Args:
        text: YAML or JSON.
        where: What to call the text in errors.

    Returns:
        A mapping of strings, numbers, booleans, None, lists and mappings with string keys.

    Raises:
        TidemillError: `unreadable-file` for what does not parse, `invalid-value` for duplicate or non-string keys,
            numbers that are not finite, and texts that hold no mapping.
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
    """A value as the user may have written it, 80 characters at most."""
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, dict | list):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _read_json(text: str, where: str) -> dict | None:
    """None where the text is no JSON; it may still be YAML."""

    def pairs(items: list[tuple[str, object]]) -> dict:
        keys = [key for key, _ in items]
        if double := next((key for key in keys if keys.count(key) > 1), None):
            raise _duplicate(where, double)
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
        data = loader.get_single_data()
        # Values that refer to each other in a circle have no end.
        json.dumps(data)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        got = f"YAML that does not parse ({problem})"
        raise TidemillError(Code.UNREADABLE_FILE, place, got, "mend the YAML") from error
    return data


def _duplicate(where: str, key: str) -> TidemillError:
    want = "remove one of the two; only the last one would count"
    return TidemillError(Code.INVALID_VALUE, where, f"the key {key!r} twice in one mapping", want)


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the scalars of YAML 1.2's core schema, decimal only."""

    where = ""
    yaml_implicit_resolvers: dict = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            place = f"{self.where}, line {key.start_mark.line + 1}"
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                got = f"the key {key.value!r}" if isinstance(key, yaml.ScalarNode) else "a list or mapping as a key"
                raise TidemillError(Code.INVALID_VALUE, place, f"{got}, which is no string", "put the key in quotes")
            if key.value in seen:
                raise _duplicate(place, key.value)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        if node.tag.endswith(":int"):
            return int(node.value)
        number = float(node.value)
        if not math.isfinite(number):
            place = f"{self.where}, line {node.start_mark.line + 1}"
            raise TidemillError(Code.INVALID_VALUE, place, f"the number {node.value}", "write a finite number")
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
