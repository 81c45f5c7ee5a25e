"""Commands that a page shows can be called so, wherever it shows them."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence

import typer
from documented import ROOT, blocks, texts
from markdown_it import MarkdownIt
from terminal import steps
from typer.core import TyperGroup
from typer.exceptions import TyperException

from sandbox_core.cli.app import app

COMMAND = typer.main.get_command(app)
INCOMPLETE = ("BadOptionUsage", "MissingParameter")
"""What typer raises for a command without its arguments: a text may name it so."""


def shown() -> Iterator[tuple[str, list[str]]]:
    """Yield the words of every command that begins with a program, with its place."""
    for block in blocks():
        if block.language in ("bash", "console"):
            for step in steps(block):
                yield f"{block.page}: {step.command}", step.words
    for page, text in texts().items():
        for token in MarkdownIt("commonmark").enable("table").parse(text):
            for inline in token.children or ():
                if inline.type == "code_inline" and re.match(r"[a-z-]+ ", inline.content):
                    yield f"{page}: `{inline.content}`", words_of(inline.content)


def words_of(text: str) -> list[str]:
    """Return the words as a shell does, if they are a shell's."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def accept(words: Sequence[str]) -> None:
    """Parse the arguments of ``sandbox-core`` as it does, without running it.

    Raises:
        TyperException: It does not take them.
    """
    command = COMMAND
    context = command.make_context("sandbox-core", [*words])
    while isinstance(command, TyperGroup):
        name, found, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None
        assert name is not None
        command, context = found, found.make_context(name, rest, parent=context)


def test_sandbox_core_has_the_subcommands_and_options() -> None:
    refused = []
    for place, words in shown():
        if "sandbox-core" not in words or "pip" in words or "--help" in words:
            continue
        arguments = itertools.takewhile(
            lambda word: word not in ("|", "<"), words[words.index("sandbox-core") + 1 :]
        )
        try:
            accept([*arguments])
        except TyperException as error:
            if not (place.endswith("`") and type(error).__name__ in INCOMPLETE):
                refused.append(f"{place}: {error}")

    assert [] == refused


def test_make_has_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w.-]+):", makefile, re.M))
    asked = {
        (place, word)
        for place, words in shown()
        if words[0] == "make" and not place.startswith("helper/")
        for word in words[1:]
        if re.fullmatch(r"[a-z-]+", word) and not word.startswith("--")
    }

    assert len(asked) > 10
    assert set() == {(place, target) for place, target in asked if target not in targets}
