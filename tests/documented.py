"""The code blocks of the documentation, as they are checked and run.

A test asks for the block that it runs with `documented`, by its page and its beginning, both
literal: `tests/blocks/test_blocks.py` finds these calls, and with them the blocks
that no test runs. As a script, ``documented.py FOLDER`` writes the Python blocks into files, for
ruff and mypy.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parents[1]

FRAGMENTS: Final[Mapping[tuple[str, str], str]] = {
    ("docs/guide.md", "from agents.sandbox.snapshot"): """\
from sandbox_core.workflow import TemporalSandboxClient


async def fragment(client: TemporalSandboxClient) -> None:
""",
    ("docs/observe.md", "from sandbox_core.worker"): """\
async def fragment() -> None:
""",
    ("docs/observe.md", "if session.usage"): """\
from sandbox_core.workflow import TemporalSandboxClient, WorkflowSandboxSession


async def fragment(client: TemporalSandboxClient, session: WorkflowSandboxSession) -> None:
""",
    ("tests/packaging/acme-sandbox-echo/README.md", "from acme"): """\
async def fragment() -> None:
""",
}
"""The head of a function around each Python block that is no module, by page and beginning."""

NOT_INSTALLED: Final = ("docs/provider-list.md",)
"""The pages whose blocks import what is not installed here."""


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    """The path of the page from the root of the repository."""
    line: int
    language: str
    """What follows the fence; empty for an indented block."""
    content: str
    above: str
    """The text between the block and the one before it."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.first}"

    @property
    def first(self) -> str:
        """The first line."""
        return self.content.split("\n", 1)[0]

    @property
    def module(self) -> str:
        """The name of a Python block's module, which the text above may say: "`worker.py`"."""
        named = re.search(r"`(\w+)\.py`[^`\n]*(?:`[^`\n]*`[^`\n]*)*\n\n\Z", self.above)
        return named[1] if named else re.sub(r"\W", "_", f"{self.page}_{self.line}")

    @property
    def code(self) -> str:
        """A Python block as a module."""
        for (page, beginning), head in FRAGMENTS.items():
            if self.page == page and self.first.startswith(beginning):
                return head + textwrap.indent(self.content, "    ")
        return self.content


@cache
def texts() -> Mapping[str, str]:
    """Return the text of each page by its path."""
    patterns = ("*.md", "*.md.tmpl", ":!CHANGELOG.md", ":!changelog.d/")
    listed = subprocess.run(
        ["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    pages = [page for page in listed.stdout.split("\0") if page and (ROOT / page).exists()]
    return {page: (ROOT / page).read_text(encoding="utf-8") for page in pages}


@cache
def blocks() -> tuple[Block, ...]:
    """Return the blocks of all pages, in order."""
    return tuple(block for page, text in texts().items() for block in blocks_of(page, text))


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """Yield the blocks of a page's text."""
    lines, end = text.splitlines(keepends=True), 0
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in ("fence", "code_block") and token.map is not None:
            start, next_end = token.map
            above = "".join(lines[end:start])
            yield Block(page, start + 1, token.info.strip(), token.content, above)
            end = next_end


def documented(page: str, beginning: str) -> Block:
    """Return the one block of a page that begins so."""
    found = [each for each in blocks() if each.page == page and each.content.startswith(beginning)]
    assert len(found) == 1, f"{page} has {len(found)} blocks that begin with {beginning!r}"
    return found[0]


def write_modules(folder: Path) -> None:
    """Write each Python block into a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = {
        f"{block.module}.py": block
        for block in blocks()
        if block.language == "python" and block.page not in NOT_INSTALLED
    }
    for old in folder.glob("*.py"):
        if old.name not in modules:
            old.unlink()
    for name, block in modules.items():
        (folder / name).write_text(block.code, encoding="utf-8")


if __name__ == "__main__":
    write_modules(Path(sys.argv[1]))
