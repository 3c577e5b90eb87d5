"""The section `models`: the members of an experiment."""

from __future__ import annotations

import functools
import operator
from typing import Annotated

from pydantic import Field

from tidemill.models import families
from tidemill.models.core.family import Family

MemberConfig = Annotated[functools.reduce(operator.or_, families().values()), Field(discriminator="family")]
"""A member: the hyperparameters of a model of one family."""


def unique_names(models: list[Family]) -> list[Family]:
    """Checks that no two members have the same name.

    Raises:
        ValueError: Two members have the same name.
    """
    names = [model.name for model in models]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two members have the name {duplicates[0]!r}; give each a different name")
    return models
