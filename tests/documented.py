"""The code blocks of the documentation, as its tests run them.

A test asks for the block that it runs with `documented`, by its page and the beginning of its
first line, both literal: `tests/blocks/test_blocks.py` finds these calls, and with them the blocks
that no test runs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    """The path of the page from the root of the repository."""
    line: int
    language: str
    """What follows the fence; empty for an indented block."""
    content: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.first}"

    @property
    def first(self) -> str:
        """The first line."""
        return self.content.split("\n", 1)[0]


@cache
def blocks() -> tuple[Block, ...]:
    """Return the blocks of all pages, in order."""
    patterns = ("*.md", "*.md.tmpl", ":!changelog.d/")
    listed = subprocess.run(
        ["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return tuple(
        block
        for page in listed.stdout.split("\0")
        if page and (ROOT / page).exists()
        for block in blocks_of(page, (ROOT / page).read_text(encoding="utf-8"))
    )


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """Yield the blocks of a page's text."""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in ("fence", "code_block") and token.map is not None:
            yield Block(page, token.map[0] + 1, token.info.strip(), token.content)


def documented(page: str, beginning: str) -> str:
    """Return the content of the one block of a page whose first line begins so."""
    found = [each for each in blocks() if each.page == page and each.first.startswith(beginning)]
    assert len(found) == 1, f"{page} has {len(found)} blocks that begin with {beginning!r}"
    return found[0].content
