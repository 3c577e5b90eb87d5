"""What to do about malformed rows, by the reason of the first of them."""

from __future__ import annotations

import re

from tidemill.data.text_values import INTEGERS
from tidemill.experiment.source import Table

NEARLY_ALL = 0.9
"""From this share of malformed rows on, the table's settings are wrong and not the rows."""
_CONVERTED = re.compile(r'column "(.*?)"\. Could not convert string "(.*)" to \'(.*)\'', re.DOTALL)
_OTHER_TYPE = re.compile(r"(?:Could not convert (.*) to [^ ]+|Column (.*) is declared as an integer)", re.DOTALL)
_NUMBER = re.compile(r"\s*[+-]?([0-9]{1,3}([.,' \u00a0\u202f\u2019][0-9]{3})+([.,][0-9]*)?|[0-9]*[.,][0-9]*)\s*")
_FIELDS = re.compile(r"Expected Number of Columns: [0-9]+ Found: [0-9]+")


def advice(reason: str, share: float, max_share: float, options: Table | None) -> str:
    """Returns what to do about malformed rows.

    Args:
        reason: Why the first malformed row is malformed.
        share: The share of malformed rows, 0 to 1.
        max_share: The largest share that is tolerated.
        options: The table's section. None for rows of the query's result.
    """
    raised = f"raise source.max_bad_share above {max_share:g}"
    ways = [*_settings(reason, share, options), "fix the rows", *([raised] if share < 1 else [])]
    return ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])}{',' if len(ways) > 2 else ''} or {ways[-1]}"


def _settings(reason: str, share: float, options: Table | None) -> list[str]:
    """Returns the settings of the table that may be wrong."""
    if converted := _CONVERTED.search(reason):
        return [*_notation(converted[2], converted[3]), _type(converted[1], options)]
    if other := _OTHER_TYPE.search(reason):
        return [_type(other[1] or other[2], options)]
    if "quote" in reason:
        return ["say with csv.quote and csv.escape of the table how quotes are written"]
    if "not utf-8" in reason:
        return ["set csv.encoding of the table to the encoding of the file, such as cp1252"]
    if _FIELDS.match(reason):
        if share < NEARLY_ALL:
            return []
        return ["set csv.skip of the table to the number of lines before the header", "set its csv.delim"]
    if reason == "Not valid JSON":
        return ["set format of the table to that of the file"] if share >= NEARLY_ALL else []
    return ["write the file in UTF-8"] if reason == "Not UTF-8 text" else []


def _type(column: str, options: Table | None) -> str:
    declared = options is not None and column in (options.columns or {})
    return f"correct the declared type of {column!r}" if declared else "declare the column's type"


def _notation(text: str, kind: str) -> list[str]:
    """Returns the options that say how numbers, dates or instants are written if a text may be one."""
    if (kind in INTEGERS or kind in ("DOUBLE", "FLOAT") or kind.startswith("DECIMAL")) and _NUMBER.fullmatch(text):
        return ["say with csv.decimal_separator and csv.thousands of the table how numbers are written"]
    if kind == "DATE" and re.search(r"[0-9].*[^0-9].*[0-9]", text):
        return ["set csv.dateformat of the table to the form of its dates, such as %d.%m.%Y"]
    if kind.startswith("TIMESTAMP") and re.search(r"[0-9].*[^0-9].*[0-9]", text):
        return ["set csv.timestampformat of the table to the form of its instants, such as %d.%m.%Y %H:%M"]
    return []
