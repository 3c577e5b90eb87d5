"""The steps: one module each, with the step's spec, its planner and the code part of its cache key.

A module `tidemill.steps.<name>` belongs to the component `tidemill.components.<name>` and defines `CODE`, a `StepCode`.
Every module in this package is discovered automatically.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from tidemill.steps.core.spec import StepCode


@functools.cache
def step_codes() -> dict[str, StepCode]:
    """Returns `CODE` of each module of this package by step name. Imports no framework."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return {name: importlib.import_module(f"{__name__}.{name}").CODE for name in names}
