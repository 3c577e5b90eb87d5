"""A family of the user's own: a Python module that stands beside the experiment, or inline."""

from __future__ import annotations

import functools
import inspect
import linecache
import sys
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ValidationError, field_validator

from tidemill.errors import Code, TidemillError
from tidemill.models.core.family import Family
from tidemill.models.core.origin import module_name, own_errors
from tidemill.section import Name

if TYPE_CHECKING:
    from tidemill.models.core.base import Model
    from tidemill.models.core.inputs import Layout

_MAX_REASON = 200


class OwnFamily(Family):
    """A family of your own: a module that defines `FAMILY`, a subclass of `tidemill.models.core.family.Network` with a
    method `logit(features)`, as those of Tidemill are."""

    family: Literal["own"]
    name: Name = "own"
    module: str
    """A Python file beside the experiment file, or its text."""
    settings: dict[str, Any] = {}
    """The hyperparameters of the module's family."""

    several_labels: ClassVar[bool] = True
    """What the module's family says is looked at when it is opened: planning runs no user's code."""

    @field_validator("module")
    @classmethod
    def _is_a_module(cls, module: str) -> str:
        if "FAMILY" not in module and not module.strip().endswith(".py"):
            raise ValueError("name a Python file beside the experiment file, or write its text, which defines FAMILY")
        return module

    def open(self, layout: Layout) -> Model:
        family = self._own()
        if len(layout.labels) > 1 and not family.several_labels:
            got = f"a family that predicts one label, with {len(layout.labels)} labels"
            want = "set several_labels = True where logit gives a column for each label, or give one label"
            raise TidemillError(Code.UNSUPPORTED, f"models.{self.name}.module", got, want)
        model = family.open(layout)
        model.told = self
        return model

    def load(self, folder: Path, layout: Layout) -> Model:
        family = self._own()
        with own_errors(family.origin, f"models.{self.name}.module", only_its_lines=True):
            model = family.load(folder, layout)
        model.told = self
        return model

    def _own(self) -> Family:
        """The module's family with the settings.

        Raises:
            TidemillError: `invalid-value` for a module that does not run or has no family, and for settings that it
                does not take.
        """
        kind = _family(self.module, f"models.{self.name}.module")
        try:
            called = typing.get_args(kind.model_fields["family"].annotation) or (kind.__name__,)
            return kind.model_validate(dict(self.settings) | {"family": called[0], "name": self.name})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(["models", self.name, "settings", *map(str, first["loc"])])
            reason = " ".join(first["msg"].split())
            raise TidemillError(Code.INVALID_VALUE, where, repr(first["input"]), f"mend it: {reason}") from None


@functools.lru_cache(maxsize=8)
def _family(text: str, where: str) -> type[Family]:
    name = module_name(text)
    file = f"{name}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = types.ModuleType(name)
    # Pydantic looks names up there.
    sys.modules[name] = module
    with own_errors(name, where):
        exec(compile(text, file, "exec"), module.__dict__)
    found = getattr(module, "FAMILY", None)
    if not (isinstance(found, type) and issubclass(found, Family)) or inspect.isabstract(found):
        got = "no FAMILY" if found is None else f"FAMILY = {found!r}"[:_MAX_REASON]
        want = "define FAMILY, a subclass of tidemill.models.core.family.Network with a method logit(self, features)"
        raise TidemillError(Code.INVALID_VALUE, where, got, want)
    found.origin = name
    return found


FAMILY = OwnFamily
