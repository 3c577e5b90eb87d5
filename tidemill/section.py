"""Base class of experiment sections and step specs, and their shared value types."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)}
_UNITS |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)}


class Section(BaseModel):
    """A section of the experiment file or of a spec. It rejects unknown keys and is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


def parse_bytes(value: object) -> object:
    """Converts a text such as `2GiB` or `500 MB` to a number of bytes.

    Values of other types are returned unchanged; pydantic checks them.

    Raises:
        ValueError: The text is not a number with a known unit.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([a-zA-Z]*)\s*", value)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError("write a number of bytes with a unit, such as 500MB or 2GiB")
    return int(float(match[1]) * unit)


Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str), Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Column = Annotated[str, Field(min_length=1)]
Labels = Annotated[list[Column], Field(min_length=1)]
"""The columns to predict, in the order of the experiment file."""
