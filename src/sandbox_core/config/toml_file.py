"""Reads a TOML file, with the lines of its keys."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_BYTES = 1024 * 1024
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

KeyPath = tuple[str, ...]


class UnreadableFile(Exception):
    """The file cannot be read.

    Args:
        where: The file, with line and column if they are known.
        reason: Why not.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class TomlFile:
    """The content of a file."""

    shown: str
    """The path as errors show it."""
    content: Mapping[str, object] = field(default_factory=dict)
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    """The first line of each key and table."""

    def where(self, path: KeyPath) -> str:
        """Return the place of a key, or of the innermost table that has a line: ``file:3``."""
        for length in range(len(path), 0, -1):
            if line := self.lines.get(path[:length]):
                return f"{self.shown}:{line}"
        return self.shown


def read_toml(path: Path, shown: str) -> TomlFile:
    """Return the content of a file.

    Raises:
        UnreadableFile: It does not exist, cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as opened:
            data = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableFile(shown, error.strerror or str(error)) from error
    if len(data) > _MAX_BYTES:
        raise UnreadableFile(shown, f"larger than {_MAX_BYTES:,} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(f"{shown}:{line}", "not UTF-8") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _invalid(str(error), text, shown) from error
    return TomlFile(shown=shown, content=content, lines=dict(reversed([*_lines(text)])))


def _invalid(message: str, text: str, shown: str) -> UnreadableFile:
    """Return a parser's error with its place in front."""
    found = _AT.search(message)
    reason = f"not TOML: {_AT.sub('', message)}"
    if found is None:
        return UnreadableFile(shown, reason)
    lines = text.split("\n")
    line, column = found[1] or str(len(lines)), found[2] or str(len(lines[-1]) + 1)
    return UnreadableFile(f"{shown}:{line}:{column}", reason)


def _lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Yield the keys and tables of valid TOML with their lines.

    Statements are found by parsing: one ends with the first line that makes it complete.
    """
    table: KeyPath = ()
    statement, begin = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += line + "\n"
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # It goes on in the next line.
        is_header = statement.lstrip().startswith("[")
        if is_header:
            table = ()
        for path in _paths(parsed, table):
            yield path, begin
            if is_header:
                table = path
        statement, begin = "", number + 1


def _paths(value: Mapping[str, object], prefix: KeyPath) -> Iterator[KeyPath]:
    for key, inner in value.items():
        yield (*prefix, key)
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            inner = inner[0]
        if isinstance(inner, dict):
            yield from _paths(inner, (*prefix, key))
