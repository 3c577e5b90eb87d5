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
        if path.is_dir():
            path, target = path / "README.md", f"{target}/README.md"
        name = f"{_FOLDER}/{target}.txt"
        if files.get_file_from_path(name) is None and path.is_file():
            files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
        return match[1] + posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(replace, markdown)
