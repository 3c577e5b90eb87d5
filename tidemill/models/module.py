"""A family of the user's own: a Python module that stands beside the experiment, or inline."""

from __future__ import annotations

import functools
import hashlib
import linecache
import sys
import traceback
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from tidemill.errors import Code, TidemillError
from tidemill.experiment.base import Name
from tidemill.models.parts.family import Family

if TYPE_CHECKING:
    from tidemill.models.parts.base import Model
    from tidemill.training.input import Layout

_MAX_REASON = 300


class OwnFamily(Family):
    """A family of your own: a module that defines `FAMILY`, a subclass of `tidemill.models.parts.family.Network` with a
    method `logit(features)`, as those of Tidemill are."""

    family: Literal["module"]
    name: Name = "own"
    module: str
    """A Python file beside the experiment file, or its text."""
    settings: dict[str, Any] = {}
    """The hyperparameters of the module's family."""

    def open(self, layout: Layout) -> Model:
        return self._own().open(layout)

    def load(self, folder: Path, layout: Layout) -> Model:
        return self._own().load(folder, layout)

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
            raise TidemillError(
                Code.INVALID_VALUE, where, repr(first["input"]), f"mend it: {first['msg'].lower()}"
            ) from None


@functools.lru_cache(maxsize=8)
def _family(text: str, where: str) -> type[Family]:
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    name = f"tidemill_family_{digest}"
    file = f"{name}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = types.ModuleType(name)
    # Pydantic looks names up there.
    sys.modules[name] = module
    try:
        exec(compile(text, file, "exec"), module.__dict__)
    except Exception as error:
        line = next((f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == file), None)
        line = getattr(error, "lineno", None) if line is None else line
        got = f"{type(error).__name__}: {error}"[:_MAX_REASON]
        raise TidemillError(
            Code.INVALID_VALUE, where if line is None else f"{where}, line {line}", got, "mend the module"
        ) from error
    found = getattr(module, "FAMILY", None)
    if not (isinstance(found, type) and issubclass(found, Family)):
        got = "no FAMILY" if found is None else f"FAMILY = {found!r}"[:_MAX_REASON]
        raise TidemillError(
            Code.INVALID_VALUE, where, got, "define FAMILY, a subclass of tidemill.models.parts.family.Network"
        )
    found.origin = digest
    return found


FAMILY = OwnFamily
