"""Every code block of the documentation is one that a test runs."""

from __future__ import annotations

from documented import blocks

LANGUAGES = {"bash", "console", "dockerfile", "mermaid", "python", "text", "toml"}
"""`bash` is to paste, `console` shows what a command prints, `text` is neither."""


def test_each_block_is_fenced_and_says_its_language() -> None:
    assert len(blocks()) > 100
    assert [] == [str(block) for block in blocks() if block.language not in LANGUAGES]


def test_what_a_command_prints_is_below_a_prompt() -> None:
    assert [] == [
        str(block)
        for block in blocks()
        if block.first.startswith("$ ") != (block.language == "console")
    ]
