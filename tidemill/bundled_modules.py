"""A user's module as one text, together with the modules that it imports from its folder.

The text of `features.py` that imports `helpers.py` ends with the lines of `helpers.py` as comments:

    def preprocessing_fn(inputs):
        return {"x": helpers.clean(inputs["x"])}
    #! from helpers.py
    #| def clean(x):
    #|     return x

So one text decides what the module does: it travels to the steps, and a cache key that has it notices each change.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.util
import linecache
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tidemill.errors import Code, TidemillError

_FILE = "#! from "
_LINE = "#| "
_INIT = "__init__.py"
_OWN = {"tidemill", "__future__"}


def bundle(path: Path, where: str) -> str:
    """Returns the text of a Python file with the modules and packages that it imports from its folder.

    As when Python runs the file as a script, a module in the folder comes before an installed one of the same name, and
    after one of the standard library. Imports inside functions count too.

    Args:
        path: The file.
        where: The setting that names the file, for errors.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: The file is not UTF-8.
        TidemillError: `unreadable-file` if an imported file is not UTF-8 text, and `invalid-value` if it is not Python.
    """
    text = path.read_text(encoding="utf-8")
    files: dict[str, str] = {}
    waiting = [("", text)]
    while waiting:
        importer, source = waiting.pop()
        for name in sorted(_imported(source, importer, where)):
            for file in _files(path.parent, name):
                if file not in files:
                    files[file] = _read(path.parent / file, where)
                    waiting.append((file, files[file]))
    lines = []
    for file in sorted(files):
        lines += [_FILE + file, *(_LINE + line for line in files[file].split("\n"))]
    return "\n".join([text.rstrip("\n"), *lines]) + "\n" if lines else text


def unbundle(text: str) -> dict[str, str]:
    """Returns the texts of the imported files by path below the module's folder."""
    files: dict[str, str] = {}
    lines: list[str] = []
    for line in reversed(text.rstrip("\n").split("\n")):
        if line.startswith(_FILE):
            files[line.removeprefix(_FILE)] = "\n".join(reversed(lines))
            lines = []
        elif line.startswith(_LINE):
            lines.append(line.removeprefix(_LINE))
        else:
            break
    return files


def execute(text: str, file: str, namespace: dict[str, Any]) -> None:
    """Executes a module's text, in which its imports find the files that the text has.

    Args:
        text: As `bundle` returns it, or any Python source.
        file: The file name for tracebacks. The bundled files have names below it: see `line_of`.
        namespace: The module's namespace.
    """
    # Tracebacks, inspect.getsource and AutoGraph read the source from here.
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    if files := unbundle(text):
        namespace["__builtins__"] = _Importer(files, text, file).builtins
    exec(compile(text, file, "exec"), namespace)


def line_of(error: BaseException, file: str) -> str:
    """Returns the innermost line of a bundled file in an error's traceback, such as `helpers.py, line 3`, or nothing.

    Args:
        error: The error.
        file: The file name that `execute` received.
    """
    prefix = file.removesuffix(".py") + "/"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(prefix)]
    return f"{frames[-1].filename.removeprefix(prefix)}, line {frames[-1].lineno}" if frames else ""


def top_level_imports(text: str) -> dict[str, str]:
    """Returns the modules outside the text that are imported when it is executed, each with its first place.

    A place is `line 3` or, in a bundled file, `helpers.py, line 3`.

    Imports inside functions, under `if TYPE_CHECKING:` and in a `try:` are left out: they run later, never, or may
    fail.
    """
    files, found = unbundle(text), {}
    own = {_name(file).partition(".")[0] for file in files}
    for file, source in [("", text), *files.items()]:
        for node in _executed(ast.parse(source).body):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level:
                continue
            for name in names:
                if name.partition(".")[0] not in own:
                    found.setdefault(name, f"{file}, line {node.lineno}".removeprefix(", "))
    return found


def _executed(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from _executed([*node.body, *node.orelse])
        elif isinstance(node, ast.ClassDef | ast.With):
            yield from _executed(node.body)


def _imported(source: str, importer: str, where: str) -> set[str]:
    """Returns the full names that a file imports: for `from a import b` both `a` and `a.b`."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        if not importer:  # the module itself, which the experiment checks
            return set()
        got = f"{importer}, line {error.lineno}, which is not Python: {error.msg}"
        raise TidemillError(Code.INVALID_VALUE, where, got, "correct the file, or do not import it") from None
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = importer.split("/")[:-1]
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, *([base] if base else [])])
            names |= {base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)}
    return {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names | _OWN}


def _files(folder: Path, name: str) -> Iterator[str]:
    """Yields the files below a folder that importing a name runs: those of the packages around it, and its own."""
    parts = name.split(".") if name else []
    for length in range(1, len(parts) + 1):
        module = "/".join(parts[:length])
        for file in (f"{module}/{_INIT}", f"{module}.py"):
            if (folder / file).is_file():
                yield file
                break
        else:
            if length == 1 and not (folder / module).is_dir():
                return


def _read(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        got = f"{str(path)!r}, which is not UTF-8 text (byte {error.start})"
        raise TidemillError(Code.UNREADABLE_FILE, where, got, "save it as UTF-8") from error


def _name(file: str) -> str:
    """Returns the module's name of a file: `a.b` for `a/b.py` and for `a/b/__init__.py`."""
    return file.removesuffix(f"/{_INIT}").removesuffix(".py").replace("/", ".")


class _Importer:
    """The import system of one bundled text. Its modules are in `sys.modules` under names that contain a hash.

    Attributes:
        builtins: The builtins of the text's modules, whose `__import__` finds the files first.
    """

    def __init__(self, files: Mapping[str, str], text: str, importer: str):
        self._prefix = f"tidemill_bundle_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self._importer = importer.removesuffix(".py")
        self._files = {_name(file): (file, source) for file, source in files.items()}
        parents = {name.rpartition(".")[0] for name in self._files} - {""}
        while missing := {name for name in parents if name not in self._files}:
            self._files |= dict.fromkeys(missing, ("", ""))
            parents = {name.rpartition(".")[0] for name in missing} - {""}
        self._loaded: dict[str, types.ModuleType] = {}
        self.builtins = {**vars(builtins), "__import__": self._import}

    def _import(
        self,
        name: str,
        scope: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
        fromlist: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        """Does what `__import__` does."""
        full = name
        if level and (package := (scope or {}).get("__package__") or ""):
            full = importlib.util.resolve_name("." * level + name, package).removeprefix(f"{self._prefix}.")
        if full not in self._files or (level and full == name and not (scope or {}).get("__package__")):
            return builtins.__import__(name, scope, local, fromlist or (), level)
        module = self._load(full)
        if not fromlist:
            return self._load(full.partition(".")[0])
        names = [each.rpartition(".")[2] for each in self._files if each.rpartition(".")[0] == full]
        for each in names if "*" in fromlist else set(fromlist) & set(names):
            if not hasattr(module, each):
                self._load(f"{full}.{each}")
        return module

    def _load(self, name: str) -> types.ModuleType:
        if name in self._loaded:
            return self._loaded[name]
        parent, _, last = name.rpartition(".")
        if parent:
            self._load(parent)
        file, source = self._files[name]
        module = types.ModuleType(f"{self._prefix}.{name}")
        is_package = not file or file.endswith(_INIT)
        module.__package__ = module.__name__ if is_package else module.__name__.rpartition(".")[0]
        module.__dict__["__builtins__"] = self.builtins
        self._loaded[name] = sys.modules[module.__name__] = module
        shown = f"{self._importer}/{file or name}"
        linecache.cache[shown] = (len(source), None, source.splitlines(keepends=True), shown)
        try:
            exec(compile(source, shown, "exec"), module.__dict__)
        except BaseException:
            del self._loaded[name], sys.modules[module.__name__]
            raise
        if parent:
            setattr(self._loaded[parent], last, module)
        return module
