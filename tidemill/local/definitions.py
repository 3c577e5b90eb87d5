"""Compiling the installed components and pipelines to YAML."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tidemill.errors import Code, TidemillError, suggest_name


@dataclass(frozen=True)
class Definition:
    """One component or pipeline.

    By convention the folder `<name>` of `tidemill.components` (`tidemill.pipelines`) has a module `component`
    (`pipeline`) with a function `<name>`, and is compiled to `component.yaml` (`pipeline.yaml`) beside it.
    """

    kind: str
    """`component` or `pipeline`."""
    name: str
    folder: Path

    @property
    def compiled(self) -> Path:
        """Where the compiled YAML is kept."""
        return self.folder / f"{self.kind}.yaml"

    @property
    def readme(self) -> Path:
        """The README whose tables are generated."""
        return self.folder / "README.md"

    def compile(self, path: Path) -> None:
        """Compiles to the file `path`."""
        from kfp import compiler

        compiler.Compiler().compile(self._definition(), str(path))

    def docstring(self) -> str:
        """The docstring of its function."""
        definition = self._definition()
        function = definition.python_func if self.kind == "component" else definition.pipeline_func
        return function.__doc__ or ""

    def _definition(self):
        module = importlib.import_module(f"tidemill.{self.kind}s.{self.name}.{self.kind}")
        return getattr(module, self.name)


def definitions() -> list[Definition]:
    """All components, then all pipelines, by name."""
    return [*_of_kind("component"), *_of_kind("pipeline")]


def find_pipeline(name: str) -> Definition:
    """One pipeline.

    Raises:
        TidemillError: `invalid-value` for an unknown name.
    """
    known = {source.name: source for source in _of_kind("pipeline")}
    if name not in known:
        raise TidemillError(Code.INVALID_VALUE, "--pipeline", repr(name), suggest_name(name, list(known)))
    return known[name]


def _of_kind(kind: str) -> list[Definition]:
    package: ModuleType = importlib.import_module(f"tidemill.{kind}s")
    found = []
    for module in pkgutil.iter_modules(package.__path__):
        folder = Path(module.module_finder.path) / module.name
        if (folder / f"{kind}.py").is_file():
            found.append(Definition(kind, module.name, folder))
    return sorted(found, key=lambda source: source.name)
