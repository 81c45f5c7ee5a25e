"""Every code block of the documentation is one that a test runs.

Either a test names it in a call of `documented` or of its own `of`, or its kind is in `CHECKED`,
or it is in `NOT_RUN`, with the reason. ruff and mypy check all blocks of Python besides (``make
check``), and `test_commands.py` all commands that begin with ``sandbox-core`` or ``make``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch

from documented import ROOT, Block, blocks
from syntax import syntax_tree

LANGUAGES = {"bash", "console", "dockerfile", "mermaid", "python", "text", "toml"}
"""`bash` is to paste, `console` shows what a command prints, `text` is neither."""

CHECKED = (
    ("*", r"make ", "tests/blocks/test_commands.py"),
    ("*", r"pip install (?!-e|.*\$)", "tests/packaging/test_page_of_providers.py"),
    ("benchmarks/README.md", r"python ", "tests/blocks/test_references.py"),
    ("docs/cli.md", r"sandbox-core ", "tests/test_docs.py"),
    ("docs/provider-list.md", r"from ", "tests/blocks/test_provider_list.py"),
    ("examples/follow/README.md", r"uv run ", "tests/examples/test_examples.py"),
    ("plugins/*/README.md", r"from ", "tests/blocks/test_options.py"),
)
"""The page, the beginning of the block, and the test that takes all such blocks."""

NOT_RUN = (
    ("*.md", r"sandbox-core dev|uvx ", "a server at its usual port, which may be taken"),
    ("CONTRIBUTING.md", r"git switch ", "publishes"),
    ("docs/architecture.md", r"sequenceDiagram", "a drawing"),
    ("docs/durability.md", r"workflow  ", "a drawing"),
    ("docs/provider-list.md", r"sandbox-core check ", "minutes; the plugins' tests check the same"),
    (
        "docs/tutorial.md",
        r"kill ",
        "may hit other processes; the test kills its own worker",
    ),
    ("helper/PROTOCOL.md", r"MARK |chunk ", "a syntax, by which helper/tests reads answers"),
    ("helper/README.md", r"backend's exec ", "a drawing"),
    ("plugins/*/README.md", r"\w+=|sandbox-core check ", "an account, or minutes; likewise"),
    ("*/README.md.tmpl", r"pip install ", "names a distribution that is not published yet"),
)
"""The page, the beginning of the block, and the reason."""


def names(page: str, beginning: str, block: Block) -> bool:
    return fnmatch(block.page, page) and re.match(beginning, block.content) is not None


def asked_for() -> Iterator[tuple[str, str]]:
    """Yield the page and the beginning of each block that a test names."""
    for folder in ("tests", "plugins", "helper/tests"):
        for path in (ROOT / folder).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            if "documented" in source:
                yield from _asked_for(syntax_tree(source))


def _asked_for(module: ast.Module) -> Iterator[tuple[str, str]]:
    constants = {
        node.targets[0].id: node.value.value
        for node in module.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(module):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("documented", "of")
        ):
            given = [
                constants.get(each.id) if isinstance(each, ast.Name) else each.value
                for each in node.args
                if isinstance(each, ast.Name | ast.Constant)
            ]
            if len(given) == 2:
                yield str(given[0]), str(given[1])


def test_each_block_is_fenced_and_says_its_language() -> None:
    assert len(blocks()) > 100
    assert [] == [str(block) for block in blocks() if block.language not in LANGUAGES]


def test_what_a_command_prints_is_below_a_prompt() -> None:
    assert [] == [
        str(block)
        for block in blocks()
        if block.first.startswith("$ ") != (block.language == "console")
    ]


def test_each_block_is_run() -> None:
    """A new one needs a test."""
    named = {*asked_for()}

    assert len(named) > 10
    assert [] == [
        str(block)
        for block in blocks()
        if not any(
            block.page == page and block.content.startswith(beginning) for page, beginning in named
        )
        and not any(names(page, beginning, block) for page, beginning, _ in (*CHECKED, *NOT_RUN))
    ]


def test_each_kind_has_blocks_and_each_test_exists() -> None:
    kinds = (*CHECKED, *NOT_RUN)

    assert [] == [kind for kind in kinds if not any(names(*kind[:2], block) for block in blocks())]
    assert [] == [test for _, _, test in CHECKED if not (ROOT / test).is_file()]
