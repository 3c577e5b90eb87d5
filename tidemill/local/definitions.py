"""The installed components and pipelines, and how to compile them."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tidemill.errors import Code, TidemillError, suggest_name

Kind = Literal["component", "pipeline"]
PACKAGES: dict[str, Kind] = {
    "tidemill.components": "component",
    "tidemill.pipelines": "pipeline",
    "tidemill.pipelines.nested": "pipeline",
}
"""Packages with one folder per definition."""


@dataclass(frozen=True)
class Definition:
    """One component or pipeline.

    The folder `<name>` of a package has a module `component` or `pipeline` with a function `<name>`, which is compiled
    to `component.yaml` or `pipeline.yaml` in the same folder.
    """

    kind: Kind
    name: str
    folder: Path
    package: str
    """Full name of the package that contains the folder: `tidemill.components`, `tidemill.pipelines` or
    `tidemill.pipelines.nested`."""

    @property
    def compiled(self) -> Path:
        """Path of the compiled YAML."""
        return self.folder / f"{self.kind}.yaml"

    @property
    def readme(self) -> Path:
        """Path of the README whose tables are generated."""
        return self.folder / "README.md"

    def compile(self, path: Path) -> None:
        """Compiles the definition to the file `path`."""
        from kfp import compiler

        compiler.Compiler().compile(self._definition(), str(path))

    def docstring(self) -> str:
        """Returns the docstring of the definition's function."""
        definition = self._definition()
        function = definition.python_func if self.kind == "component" else definition.pipeline_func
        return function.__doc__ or ""

    def _definition(self) -> Any:
        module = importlib.import_module(f"{self.package}.{self.name}.{self.kind}")
        return getattr(module, self.name)


def definitions() -> list[Definition]:
    """Returns all components, then all pipelines, then the nested pipelines, each by name."""
    return [definition for package in PACKAGES for definition in definitions_in(package)]


def definitions_in(package: str) -> list[Definition]:
    """Returns the definitions of one package by name.

    Args:
        package: A key of `PACKAGES`.
    """
    kind, definitions = PACKAGES[package], []
    for top in importlib.import_module(package).__path__:
        for module in pkgutil.iter_modules([top]):
            folder = Path(top) / module.name
            if (folder / f"{kind}.py").is_file():
                definitions.append(Definition(kind, module.name, folder, package))
    return sorted(definitions, key=lambda definition: definition.name)


def pipeline_names() -> list[str]:
    """Returns the names of the pipelines that run by themselves. Nested pipelines do not."""
    return [definition.name for definition in definitions_in("tidemill.pipelines")]


def find_pipeline(name: str, where: str = "--pipeline") -> Definition:
    """Returns one pipeline that runs by itself.

    Args:
        name: Its name.
        where: What named it, for errors. Defaults to the option of the command line.

    Raises:
        TidemillError: `invalid-value` for an unknown name.
    """
    known = {definition.name: definition for definition in definitions_in("tidemill.pipelines")}
    if name not in known:
        raise TidemillError(Code.INVALID_VALUE, where, repr(name), suggest_name(name, list(known)))
    return known[name]
