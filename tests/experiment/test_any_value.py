"""Any change of an experiment's text is accepted, or explained by a whole error."""

import copy
import json

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.experiment.test_parsing import VALID
from tidemill.errors import TidemillError
from tidemill.experiment import dump, parse


def check(text: str) -> None:
    """Checks that the text is valid and survives `dump`, or that its error is complete."""
    try:
        experiment = parse(text)
    except TidemillError as error:
        assert error.where and error.got and error.want
        assert "input should be" not in str(error).lower()
        assert len(str(error)) < 1000
        json.dumps(error.to_dict())
    else:
        assert parse(dump(experiment)) == experiment


def paths(value: object, path: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, part in items for inner in paths(part, (*path, key)))]


_WORDS = st.sampled_from(
    ["numeric", "cross", "gbdt", "kind", "family", "str", "[key]", "Numeric", "uri", "auc", "q.sql"]
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | _WORDS
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS | st.text(max_size=3), inner, max_size=3),
)


@settings(max_examples=120, deadline=None)
@given(path=st.sampled_from(paths(VALID)[1:]), value=_VALUES, as_json=st.booleans())
def test_accepts_or_explains_any_value_at_any_path(path, value, as_json):
    data = copy.deepcopy(VALID)
    section = data
    for part in path[:-1]:
        section = section[part]
    section[path[-1]] = value
    check(json.dumps(data) if as_json else yaml.safe_dump(data, allow_unicode=True))


@settings(max_examples=40, deadline=None)
@given(
    path=st.sampled_from([p for p in paths(VALID) if isinstance(p and p[-1], str)]), name=_WORDS | st.text(max_size=6)
)
def test_accepts_or_explains_any_renamed_key(path, name):
    data = copy.deepcopy(VALID)
    section = data
    for part in path[:-1]:
        section = section[part]
    section[name] = section.pop(path[-1])
    check(yaml.safe_dump(data, allow_unicode=True))


@settings(max_examples=90, deadline=None)
@given(
    at=st.integers(0, len(yaml.safe_dump(VALID))),
    cut=st.integers(0, 20),
    insert=st.text(max_size=3)
    | st.sampled_from([":", "- ", "\n", "  ", "{", "]", "&a", "*a", "!!", "#", "'", '"', "|", "?"]),
)
def test_accepts_or_explains_any_damaged_text(at, cut, insert):
    text = yaml.safe_dump(VALID)
    check(text[:at] + insert + text[at + cut :])
