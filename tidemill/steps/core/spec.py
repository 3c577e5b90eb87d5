"""The spec of a step, and the code part of its cache key: modules, templates and library versions."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

from tidemill import fingerprint
from tidemill.distributions import installed_version
from tidemill.section import Section
from tidemill.steps.core import import_graph


class StepSpec(Section):
    """A step's settings, which travel to it as one JSON parameter.

    A spec holds everything that decides the step's result besides its input artifacts. The pipeline engine uses the
    parameter and the input artifacts as the step's cache key. A subclass sets `step`'s type to a literal with the
    step's name as default.
    """

    step: Any
    """The step's name."""
    code: str
    """Fingerprint of the modules and templates that the step can reach."""
    libraries: dict[str, str] = {}  # noqa: RUF012 - pydantic copies defaults
    """Versions of the libraries that decide the step's result, by distribution."""


@dataclass(frozen=True)
class StepCode:
    """The code that decides a step's result."""

    step: str
    """The step's name, which is its component's too."""
    libraries: tuple[str, ...] = ()
    """Distributions whose versions decide the result of every such step."""

    @property
    def entry(self) -> str:
        """The full name of the component's module. The step's code is what this module can reach."""
        return f"tidemill.components.{self.step}.component"

    def files(self) -> dict[str, str]:
        """Returns the fingerprints of the modules and templates that the step can reach, by path."""
        return import_graph.installed().files(self.entry)

    def fingerprint(self) -> str:
        """Returns the fingerprint of these files."""
        return fingerprint.of_json(self.files())

    def versions(self, *extra: str) -> dict[str, str]:
        """Returns the versions of the step's libraries.

        Args:
            extra: Further distributions, which decide the result only with some settings.

        Returns:
            Versions by distribution, sorted. Distributions that are not installed are left out.
        """
        versions = {name: _version(name) for name in sorted({*self.libraries, *extra})}
        return {name: version for name, version in versions.items() if version is not None}


def _version(distribution: str) -> str | None:
    """Returns the version of an installed distribution, or None."""
    try:
        return installed_version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
