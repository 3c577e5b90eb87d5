"""The import graph of Tidemill's sources: which files a module can reach.

The graph is static: it is read from the sources and imports nothing. An edge is an `import` statement (at the top of a
module or inside a function, but not under `if TYPE_CHECKING:`), a string that is the full name of a module, or the file
name of a template. A call of `import_module` with an f-string that names a package, as the registry of model families
has it, reaches all modules of that package.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidemill import fingerprint

_TYPE_CHECKING = re.compile(r"^([ \t]*)if (?:typing\.)?TYPE_CHECKING:\n(?:\1[ \t]+.*\n|[ \t]*\n)*", re.MULTILINE)
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+[\w.]+[ \t]+import[ \t]+(?:\([^)]*\)|[^\n(]+)|import[ \t]+[\w., \t]+)", re.MULTILINE
)
_MODULE_NAME = re.compile(r"[\"'](tidemill(?:\.\w+)+)[\"']")
_TEMPLATE_NAME = re.compile(r"[\"']([\w.-]+\.jinja)[\"']")
_IMPORT_BY_NAME = re.compile(r"import_module\(f[\"'](tidemill(?:\.\w+)*|\{__name__\})\.\{")


@dataclass(frozen=True)
class ModuleSource:
    """A Python module's file, with the names that it refers to."""

    label: str
    """Path below the repository, for example `tidemill/data/ingest.py` or `components/train/component.py`."""
    path: Path
    imports: set[str]
    """Full names of the modules and packages whose code it runs."""
    packages: set[str]
    """Packages that contain these modules. Python runs their `__init__.py` too."""
    templates: set[str]
    """File names of the templates that it names."""
    libraries: set[str]
    """Top-level packages outside Tidemill that it imports."""


class ImportGraph:
    """The import graph of a set of source folders.

    Args:
        folders: Folder of each top-level package by its full name, for example `{"tidemill": …, "tidemill.components":
            …}`. The last part of the name is the package's name in labels.
    """

    def __init__(self, folders: dict[str, Path]):
        self._files: dict[str, tuple[str, Path]] = {}
        self._templates: dict[str, list[tuple[str, Path]]] = {}
        for package, folder in folders.items():
            top = package.rpartition(".")[2]
            for path in sorted(folder.rglob("*.py")):
                parts = path.relative_to(folder).with_suffix("").parts
                name = ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])
                self._files[name] = (f"{top}/{path.relative_to(folder).as_posix()}", path)
            for path in sorted(folder.rglob("*.jinja")):
                label = f"{top}/{path.relative_to(folder).as_posix()}"
                self._templates.setdefault(path.name, []).append((label, path))
        self._sources: dict[str, ModuleSource] = {}
        self._fingerprints: dict[Path, str] = {}
        self._results: dict[str, dict[str, str]] = {}

    def files(self, module: str) -> dict[str, str]:
        """Returns the files that a module can reach, itself included.

        The `__init__.py` of a package counts when one of its modules is reached. Its own imports are followed only when
        something imports the package itself.

        Args:
            module: Full name of the module.

        Returns:
            Fingerprints of the files' bytes by label, sorted.

        Raises:
            KeyError: the module does not exist.
        """
        if module in self._results:
            return self._results[module]
        reached = self._reached(module)
        files = {source.label: source.path for source in reached}
        for source in reached:
            files |= {self._files[name][0]: self._files[name][1] for name in source.packages}
            for name in source.templates:
                files |= dict(self._templates_of(name, source.path.parent))
        self._results[module] = {label: self._fingerprint(path) for label, path in sorted(files.items())}
        return self._results[module]

    def libraries(self, module: str) -> set[str]:
        """Returns the top-level packages outside Tidemill that a module and what it reaches import."""
        return {library for source in self._reached(module) for library in source.libraries}

    def _reached(self, module: str) -> list[ModuleSource]:
        names, waiting = {module}, [module]
        while waiting:
            imports = self._source(waiting.pop()).imports - names
            names |= imports
            waiting += imports
        return [self._source(name) for name in names]

    def _source(self, name: str) -> ModuleSource:
        if name not in self._sources:
            label, path = self._files[name]
            self._sources[name] = self._read(name, label, path)
        return self._sources[name]

    def _read(self, name: str, label: str, path: Path) -> ModuleSource:
        text = path.read_text(encoding="utf-8")
        imports, libraries = set(), set()
        for imported in imported_names(text):
            (imports if self._nearest(imported) else libraries).add(
                self._nearest(imported) or imported.partition(".")[0]
            )
        imports |= {literal for literal in _MODULE_NAME.findall(text) if literal in self._files}
        for package in _IMPORT_BY_NAME.findall(text):
            package = name if package == "{__name__}" else package
            imports |= {module for module in self._files if module.rpartition(".")[0] == package}
        packages = {parent for module in {name, *imports} for parent in _parents(module) if parent in self._files}
        templates = _TEMPLATE_NAME.findall(text)
        return ModuleSource(label, path, imports, packages, set(templates), libraries)

    def _nearest(self, name: str) -> str | None:
        """Returns the module that an imported name refers to or is defined in; None if it is outside the folders."""
        candidates = [name, *_parents(name)]
        return next((candidate for candidate in candidates if candidate in self._files), None)

    def _templates_of(self, name: str, folder: Path) -> Iterator[tuple[str, Path]]:
        """Yields a template, and those that it extends or includes, from a folder; if it is not there, from all
        folders."""
        known = self._templates.get(name, [])
        own = [(label, path) for label, path in known if path.parent == folder]
        for label, path in own or known:
            yield label, path
            for other in set(_TEMPLATE_NAME.findall(path.read_text(encoding="utf-8"))) - {name}:
                yield from self._templates_of(other, path.parent)

    def _fingerprint(self, path: Path) -> str:
        if path not in self._fingerprints:
            self._fingerprints[path] = fingerprint.of_file(path)
        return self._fingerprints[path]


@functools.cache
def installed() -> ImportGraph:
    """Returns the graph of the installed sources, read once a process."""
    return ImportGraph({"tidemill": Path(__file__).parents[2], "tidemill.components": _folder("tidemill.components")})


def imported_names(text: str) -> set[str]:
    """Returns the full names that a module's `import` statements name, without those under `if TYPE_CHECKING:`.

    Only the import statements are parsed, which takes a tenth of the time of the whole module.

    Args:
        text: The module's source.

    Returns:
        For `import a.b` the name `a.b`; for `from a.b import c` the name `a.b.c`, which may be a module or a member.
    """
    names = set()
    for statement in _IMPORT.findall(_TYPE_CHECKING.sub("", text)):
        try:
            (node,) = ast.parse(textwrap.dedent(statement).strip()).body
        except (SyntaxError, ValueError):
            continue  # A line of a text that begins with "from" or "import".
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _parents(name: str) -> list[str]:
    """Returns the packages around a module, the innermost first."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations, package
    return Path(next(iter(spec.submodule_search_locations)))
