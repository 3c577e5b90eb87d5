"""Reads the repository's Markdown pages: links, anchors and code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/**/*.md"),
        *(
            page
            for folder in ("components", "pipelines", "examples")
            for page in REPOSITORY.glob(f"{folder}/**/README.md")
        ),
        REPOSITORY / "benchmarks" / "README.md",
        REPOSITORY / "images" / "README.md",
        REPOSITORY / "manifests" / "README.md",
    ]
)
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)$")
_COMMENT = re.compile(r"^<!-- (.*) -->$")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.*)$")
_CODE = re.compile(r"(`+).*?\1")


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: Path
    line: int
    """Line of the opening fence, from 1."""
    language: str
    text: str
    comment: str
    """The HTML comment on the line before the fence, such as `needs Google Cloud`; empty without one."""

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    """Returns the path of a page in the repository."""
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path) -> list[Block]:
    """Returns the code blocks of a page."""
    found, opened, lines = [], None, page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        match = _FENCE.match(line)
        if opened is None and match:
            opened = number, match
        elif opened is not None and match and not match["language"]:
            first, fence = opened
            indent = len(fence["indent"])
            text = "".join(f"{inner[indent:]}\n" for inner in lines[first : number - 1])
            comment = _COMMENT.match(lines[first - 2].strip()) if first > 1 else None
            found.append(Block(page, first, fence["language"], text, comment[1] if comment else ""))
            opened = None
    assert opened is None, f"{name(page)}: the block of line {opened and opened[0]} is not closed"
    return found


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a page outside code blocks, with their numbers from 1."""
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            yield number, line


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Yields the targets of the links of a page, with their line numbers."""
    for number, line in prose(page):
        for target in _LINK.findall(_CODE.sub("", line)):
            yield number, target


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for _, line in prose(page):
        if match := _HEADING.match(line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1])
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            repeated = next(i for i in range(len(found) + 1) if (f"{anchor}-{i}" if i else anchor) not in found)
            found.add(f"{anchor}-{repeated}" if repeated else anchor)
    return found
