"""What the documentation's blocks of commands show: commands, and what they print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from documented import Block

_PROMPT = "$ sandbox-core "


@dataclass(frozen=True)
class Step:
    """A command, and what the page shows of its output; in a block of `bash`, nothing."""

    command: str
    output: str = ""

    @property
    def words(self) -> list[str]:
        """The words of the command, without its comment."""
        return shlex.split(self.command, comments=True)


def steps(block: Block) -> Iterator[Step]:
    """Yield the commands of a block, in order.

    In a block of `console`, each of them is ``sandbox-core``: some print prompts themselves.
    """
    if block.language == "bash":
        for line in block.content.replace("\\\n", " ").splitlines():
            if line.strip():
                yield Step(line)
        return
    for part in re.split(rf"^{re.escape(_PROMPT)}", block.content, flags=re.M)[1:]:
        command, _, output = part.partition("\n")
        yield Step(_PROMPT.removeprefix("$ ") + command, output)


def pattern(output: str, names: Mapping[str, str]) -> re.Pattern[str]:
    """Return what matches a real output that differs from the page's only in accidents.

    These are numbers of several digits, durations, the width of gaps, UUIDs, and `names`: what the
    page's names stand for here. A line `...` on the page stands for any lines.
    """
    accidents = {
        **{re.escape(name): re.escape(here) for name, here in names.items()},
        r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}": "[0-9a-f-]{36}",
        r"\d+[smhd]\b": r"\d+[smhd]",
        r"\d[\d.,]+": r"\d[\d.,]*",
        r" +": " +",
    }
    split = re.compile("|".join(f"({accident})" for accident in accidents))
    matching = list(accidents.values())

    def line(text: str) -> str:
        end, parts = 0, []
        for found in split.finditer(text.rstrip()):
            parts += [re.escape(text[end : found.start()]), matching[(found.lastindex or 1) - 1]]
            end = found.end()
        return "".join([*parts, re.escape(text.rstrip()[end:]), " *\n"])

    return re.compile(
        "".join(r"(?:.*\n)*" if each == "..." else line(each) for each in output.splitlines())
    )
