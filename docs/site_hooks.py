"""Hooks of mkdocs: files of the repository that pages link to become files of the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)")
_FOLDER = "repository"
"""The folder of the site for these files."""


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links that leave `docs/` to copies of the files in the site."""

    def replace(match: re.Match) -> str:
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), match[2]))
        if target.startswith("docs/"):
            return match[0]
        path = Path(config.config_file_path).parent / target
        if path.is_dir() and (path / "README.md").is_file():
            path, target = path / "README.md", f"{target}/README.md"
        name = f"{_FOLDER}/{target}.txt"
        if files.get_file_from_path(name) is None and path.exists():
            files.append(File.generated(config, name, content=_content(path)))
        return match[1] + posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(replace, markdown)


def _content(path: Path) -> str:
    """Returns the text of a file, or the names of the files of a folder."""
    if path.is_file():
        return path.read_text(encoding="utf-8")
    return "".join(f"{file.name}\n" for file in sorted(path.iterdir()) if file.name != "__pycache__")
