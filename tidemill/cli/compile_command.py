"""The command `tidemill compile`: writes every generated file of the repository."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tidemill.cli import image_options, readme_tables, reference_pages
from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.local.definitions import Definition, definitions
from tidemill.local.pod_settings import pod_settings


def compile_all(args: argparse.Namespace) -> int:
    """Writes the compiled YAMLs, the tables of the READMEs and the generated pages of `docs/`, or checks them."""
    if args.output or image_options.given(args) or _pod_options(args):
        return _compile_to(args)
    files = {path: text for definition in _chosen(args.names) for path, text in _files(definition).items()}
    if not args.names:
        files |= _lists(definitions()) | reference_pages.pages()
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if not args.check:
        for path in stale:
            path.write_text(files[path], encoding="utf-8")
    for path in stale:
        print(f"{'not current' if args.check else 'written'}: {_shown(path)}")
    if args.check and stale:
        print("error: run `tidemill compile` and commit the result", file=sys.stderr)
        return 1
    if not stale:
        print("everything is current")
    return 0


def _compile_to(args: argparse.Namespace) -> int:
    """Writes the YAMLs with other images and settings of pods into a folder of the user's."""
    options = [*image_options.given(args), *_pod_options(args)]
    if not args.output:
        want = "add --output DIR; the YAMLs of the repository are those of the released version"
        raise TidemillError(Code.INVALID_VALUE, options[0], "no folder to write to", want)
    if args.check:
        raise TidemillError(Code.INVALID_VALUE, "--check", "--output", "give one of the two")
    images = image_options.images(args)
    components = [definition.name for definition in definitions() if definition.kind == "component"]
    settings = pod_settings(args.queue, args.priority, args.timeout, components)
    for definition in _chosen(args.names):
        path = Path(args.output, *definition.package.split(".")[1:], f"{definition.name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        definition.compile(path)
        images.write_into(path)
        settings.write_into(path)
        print(f"written: {_shown(path)}")
    for name in images.used():
        print(f"image: {name}")
    return 0


def _pod_options(args: argparse.Namespace) -> list[str]:
    """Returns the options for pods that were given, as they are written."""
    return [f"--{option}" for option in ("queue", "priority", "timeout") if getattr(args, option)]


def _files(definition: Definition) -> dict[Path, str]:
    """Returns the current texts of a definition's generated files: the compiled YAML and the README."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / definition.compiled.name
        definition.compile(compiled)
        files = {definition.compiled: compiled.read_text(encoding="utf-8")}
        if definition.readme.is_file():
            tables = readme_tables.generate(compiled, definition.docstring())
            files[definition.readme] = readme_tables.insert(definition.readme.read_text(encoding="utf-8"), tables)
    return files


def _lists(all_definitions: Sequence[Definition]) -> dict[Path, str]:
    """Returns the current texts of the READMEs that list the definitions of a folder."""
    docstrings: dict[Path, dict[str, str]] = {}
    for definition in all_definitions:
        docstrings.setdefault(definition.folder.parent, {})[definition.name] = definition.docstring()
    files = {}
    for folder, by_name in docstrings.items():
        if (readme := folder / "README.md").is_file():
            table = readme_tables.generate_list(folder.name, by_name)
            files[readme] = readme_tables.insert(readme.read_text(encoding="utf-8"), table)
    return files


def _chosen(names: list[str]) -> list[Definition]:
    known = definitions()
    for name in names:
        if name not in {definition.name for definition in known}:
            want = suggest_name(name, [definition.name for definition in known])
            raise TidemillError(Code.INVALID_VALUE, "NAME", repr(name), want)
    return [definition for definition in known if not names or definition.name in names]


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
