"""A user-defined family: a Python module in the experiment's folder, or its text."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ValidationError, field_validator

from tidemill.errors import Code, TidemillError
from tidemill.models.core.family import Family, Network
from tidemill.models.core.user_code import load_family
from tidemill.section import Name

if TYPE_CHECKING:
    from tidemill.models.core.inputs import Layout


class OwnFamily(Family):
    """A family of your own: a module that defines `FAMILY`, a subclass of `tidemill.models.Network` with a method
    `logit(features)`."""

    family: Literal["own"]
    name: Name = "own"
    module: str
    """A Python file in the experiment file's folder, or its text. Modules that the file imports from its folder become
    part of the text."""
    settings: dict[str, Any] = {}
    """The hyperparameters of the module's family."""

    libraries: ClassVar[tuple[str, ...]] = ("keras",)
    several_labels: ClassVar[bool] = True
    """`family_for` checks the module's own attribute: planning runs no user code."""

    @field_validator("module")
    @classmethod
    def _is_a_module(cls, module: str) -> str:
        if "FAMILY" not in module and not module.strip().endswith(".py"):
            raise ValueError("name a Python file in the experiment file's folder, or write its text with FAMILY")
        return module

    def family_for(self, layout: Layout) -> Network:
        """Returns the module's family with the settings, for a layout's labels.

        Raises:
            TidemillError: As for `family_of_module`, and `unsupported` if the family predicts one label and the layout
                has several.
        """
        family = self.family_of_module()
        if len(layout.labels) > 1 and not family.several_labels:
            got = f"a family that predicts one label, with {len(layout.labels)} labels"
            want = "set several_labels = True and return a column for each label from logit, or set one label"
            raise TidemillError(Code.UNSUPPORTED, f"models.{self.name}.module", got, want)
        return family

    def family_of_module(self) -> Network:
        """Returns the module's family with the settings.

        Raises:
            TidemillError: `invalid-value` if the module fails or defines no family, or if the family does not accept
                the settings.
        """
        family = load_family(self.module, f"models.{self.name}.module")
        try:
            named = typing.get_args(family.model_fields["family"].annotation) or (family.__name__,)
            return family.model_validate(dict(self.settings) | {"family": named[0], "name": self.name})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(["models", self.name, "settings", *map(str, first["loc"])])
            reason = " ".join(first["msg"].split())
            raise TidemillError(Code.INVALID_VALUE, where, repr(first["input"]), f"correct it: {reason}") from None


FAMILY = OwnFamily
