"""The smallest experiment, and how messages are compared with examples."""

from __future__ import annotations

import re

EXPERIMENT = """\
name: clicks
source:
  tables: {clicks: clicks.csv}
label: clicked
features:
  price: {kind: numeric}
models: [{family: gbdt}]
"""


def without_numbers(message: str) -> str:
    """Returns a message with each number replaced by `0`, so that sizes and run ids do not matter."""
    return re.sub(r"\d[\d,.:-]*\d|\d", "0", message)
