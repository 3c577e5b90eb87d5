"""The section `source.tables.<table>.csv`: how a CSV or TSV file is written."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from tidemill.section import Column, Section

DEFAULT_NULLS = ("", "NA")
"""The null words of a column for which the experiment names none."""
_SHORT = {"delimiter": "delim", "null": "nullstr"}
_Char = Annotated[str, Field(pattern=r"^[^\r\n]$")]
_LETTERS = {"yyyy": "%Y", "yy": "%y", "dd": "%d", "hh": "%H", "mi": "%M", "ss": "%S"}


def _check_time_format(text: str) -> str:
    """Refuses a format of dates or instants without a directive of `strptime`, such as `DD.MM.YYYY`."""
    if re.search(r"%-?[A-Za-z]", text):
        return text
    form = ""
    for part in re.findall(r"yyyy|yy|dd|hh|mi|mm|ss|.", text, re.IGNORECASE | re.DOTALL):
        letters = {**_LETTERS, "mm": "%M" if "%H" in form else "%m"}
        form += letters.get(part.lower()) or str(part)
    understood = re.search("%[A-Za-z]", form) and not re.search(r"[A-Za-z]", re.sub("%.", "", form).replace("T", ""))
    raise ValueError(f"write it in the notation of strptime, {f'{form!r}' if understood else 'such as %d.%m.%Y'}")


_TimeFormat = Annotated[str, Field(min_length=1), AfterValidator(_check_time_format)]


class Csv(Section):
    """How CSV and TSV files are written. The names are those of DuckDB's `read_csv`."""

    delim: Annotated[str, Field(pattern=r'^[^"\r\n]$')] | None = None
    """Field separator, one character; `delimiter` means the same. Defaults to a comma for `csv` and a tab for `tsv`."""
    header: bool | None = None
    """Whether the first line (after `skip`) has the column names. `false` requires `columns`. Defaults to true."""
    nullstr: list[str] | dict[Column, list[str]] | None = None
    """The strings that mean a missing value: a list for all columns, or a list for each column that is named (the
    others keep the default); `null` means the same. Defaults to `["", "NA"]`."""
    quote: Annotated[str, Field(pattern=r"^[^\r\n]?$")] = '"'
    """Character around fields that contain separators or line breaks. An empty text switches quoting off, so that `5"`
    is text like any other."""
    escape: Annotated[str, Field(pattern=r"^[^\r\n]?$")] | None = None
    """Character before a quote inside a quoted field, such as a backslash. Defaults to `quote`: quotes are doubled."""
    encoding: Annotated[str, Field(min_length=1)] | None = None
    """Encoding of the bytes, by Python's name: `utf-8`, `utf-16`, `latin-1`, `cp1252`, `shift_jis`. Defaults to UTF-8,
    or to UTF-16 if the file begins with its byte order mark."""
    decimal_separator: Annotated[str, Field(pattern=r"^[.,]$")] = "."
    """Character before the fraction of a number."""
    thousands: Annotated[str, Field(pattern=r"^[^0-9\r\n+eE-]$")] | None = None
    """Character between groups of three digits, such as a comma in `1,234.50`. Defaults to none: such a value is
    text."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Number of lines before the header, or before the first row without a header, that are not read."""
    comment: _Char | None = None
    """Character that begins a comment. A line that starts with it is not read, and any other line is read up to it.
    Defaults to none."""
    dateformat: _TimeFormat | None = None
    """Format of dates, such as `%d/%m/%Y`, in the notation of `strptime`. Then other forms are text, or malformed in a
    column that is declared as DATE. Defaults to ISO 8601."""
    timestampformat: _TimeFormat | None = None
    """Format of instants, such as `%d/%m/%Y %H:%M`. An offset (`%z`) is converted to UTC. Defaults to ISO 8601 with an
    optional offset, or AM and PM."""

    @model_validator(mode="before")
    @classmethod
    def _short_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for short, name in _SHORT.items():
            if short in value and name in value:
                raise ValueError(f"{short} and {name} mean the same; keep one of them")
        return {_SHORT.get(key, key): item for key, item in value.items()}

    @model_validator(mode="after")
    def _distinct_characters(self) -> Csv:
        named = {"quote": self.quote, "comment": self.comment, "delim": self.delim}
        used = [(name, char) for name, char in named.items() if char]
        for index, (name, char) in enumerate(used):
            if other := next((n for n, c in used[:index] if c == char), None):
                raise ValueError(f"{other} and {name} are both {char!r}; choose different characters")
        if self.thousands == self.decimal_separator:
            raise ValueError(f"thousands and decimal_separator are both {self.thousands!r}")
        return self
