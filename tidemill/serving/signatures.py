"""The signatures of an exported model: their names, and the names of their inputs and outputs."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

DENSE = "serving_default"
EXAMPLES = "serialized_examples"
SCORE = "score"


def score_names(labels: Sequence[str]) -> dict[str, str]:
    """Returns the name of each label's score.

    For a single label it is `score`. For several labels it is `score_<label>`, or `score_label_<index>` if TensorFlow
    does not accept the label (see `signature_names`).
    """
    if len(labels) == 1:
        return {labels[0]: SCORE}
    return {label: f"{SCORE}_{name}" for label, name in signature_names(labels, "label").items()}


def signature_names(columns: Sequence[str], other: str = "column") -> dict[str, str]:
    """Returns the name of each column's input.

    It is the column's own name if that consists of ASCII letters, digits and `_`, starts with a letter, is neither a
    keyword of Python nor `self`, and differs from the others in more than case. Otherwise it is `<other>_<index>`.
    """
    lower = [name.lower() for name in columns]
    accepted = [
        re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII)
        and not keyword.iskeyword(name)  # TensorFlow makes inputs parameters of a Python method
        and name != "self"
        and lower.count(name.lower()) == 1
        for name in columns
    ]
    taken = {name for name, ok in zip(lower, accepted, strict=True) if ok}
    names = {}
    for i, (name, ok) in enumerate(zip(columns, accepted, strict=True)):
        substitute = f"{other}_{i}"
        while substitute in taken:
            substitute += "_"
        names[name] = name if ok else substitute
    return names
