"""Encodes requests to the helper in a sandbox and decodes its answers, without I/O.

A request is a verb and fields, whose names may repeat. It travels as a frame over the helper's
socket, or encoded as the arguments of a command line. An answer is a word and fields; it comes as a
frame, or as text in the output of that command. ``helper/PROTOCOL.md`` describes both.
"""

from __future__ import annotations

import base64
import binascii
import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

Field: TypeAlias = "tuple[str, str | bytes | int]"

VERSION = 1
"""The version of the protocol; a helper with another version is not used."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""The largest answer that is accepted from a socket."""

_PIECE_CHARACTERS = 96 * 1024
"""The length of one argument of a command line; Linux allows 128 KiB."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)

_PAYLOADS = ("out", "err", "data")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One command in an answer to ``list``."""

    key: str
    mode: str
    """The verb that started it, ``run`` or ``start``; ``tty`` for one with a terminal."""

    state: str
    """``running``, ``ended``, ``lost`` or ``dropped``."""

    number: int
    """By which it is polled; 0 if it is not."""

    started_ms: int
    """When it was started, in milliseconds since the epoch."""

    used_ms: int
    """When it was last asked about, likewise; 0 if unknown."""

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Return the command that a field describes.

        Raises:
            NotAnAnswer: It describes none.
        """
        try:
            key, mode, state, number, started, _, used, *_ = text.split(":")
            return cls(
                key=key,
                mode=mode,
                state=state,
                number=int(number),
                started_ms=int(started),
                used_ms=int(used),
            )
        except ValueError as error:
            raise NotAnAnswer("not an entry of a list") from error


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer of the helper's: its word and that word's fields."""

    word: str
    fields: Mapping[str, bytes] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    """In an answer to ``list``, one for each command."""

    reported: int | None = None
    """The exit code that the backend reported for the call with this answer."""

    @property
    def is_refusal(self) -> bool:
        """Whether the helper could not be asked; nothing was carried out."""
        return self.word in ("refused", "unavailable")

    @property
    def is_for_want_of_room(self) -> bool:
        """Whether it could not be asked because the sandbox's file system is full."""
        return self.is_refusal and self.number("errno") in _NO_ROOM

    @property
    def is_too_long(self) -> bool:
        """Whether the sandbox's operating system did not start the command for its length."""
        return self.word == "notrun" and self.number("errno") == errno.E2BIG

    def number(self, name: str, default: int = 0) -> int:
        """Return a field as a number; `default` if the answer does not have it."""
        value = self.fields.get(name)
        return default if value is None else int(value)

    def text(self, name: str) -> str:
        """Return a field as text; empty if the answer does not have it."""
        return self.fields.get(name, b"").decode("utf-8", errors="replace")


class NotAnAnswer(Exception):
    """The output is no answer, or was cut short."""


class RecordsRemoved(NotAnAnswer):
    """The helper's state was removed, and with it the record of the request."""


def message(fields: Iterable[Field]) -> bytes:
    """Return fields as netstrings, names and values in turn."""
    words = [_bytes(word) for name_and_value in fields for word in name_and_value]
    return b"".join([b"%d:%s," % (len(word), word) for word in words])


def frame(verb: str, fields: Iterable[Field]) -> bytes:
    """Return a request as a frame for the socket."""
    body = message([("verb", verb), *fields])
    return len(body).to_bytes(4, "big") + body


def pieces(fields: Iterable[Field]) -> list[str]:
    """Return a request's fields as arguments of a command line, unreadable in a process list."""
    encoded = base64.urlsafe_b64encode(message(fields)).decode("ascii")
    return [
        encoded[start : start + _PIECE_CHARACTERS]
        for start in range(0, len(encoded), _PIECE_CHARACTERS)
    ]


def parse_message(body: bytes) -> Answer:
    """Return the answer in a frame.

    Raises:
        NotAnAnswer: It is not one.
    """
    words: list[bytes] = []
    at = 0
    while at < len(body):
        colon = body.find(b":", at, at + 12)
        if colon < 0 or not body[at:colon].isdigit():
            raise NotAnAnswer("not a netstring")
        end = colon + 1 + int(body[at:colon])
        if body[end : end + 1] != b",":
            raise NotAnAnswer("a netstring does not end")
        words.append(body[colon + 1 : end])
        at = end + 1
    return _answer(
        None,
        ((words[n].decode("ascii", "replace"), words[n + 1]) for n in range(0, len(words) - 1, 2)),
    )


def parse_text(output: bytes, mark: str) -> Answer:
    """Return the answer between two `mark`s in the output of a command line.

    Raises:
        NotAnAnswer: There is none, or it was cut short.
    """
    _, found, rest = output.partition(mark.encode() + b" ")
    head, newline, body = rest.partition(b"\n")
    if not found or not newline:
        raise NotAnAnswer("no answer")
    word, *pairs = head.decode("ascii", "replace").split(" ")
    end = b"\n%s\n" % mark.encode()
    fields: list[tuple[str, bytes]] = []
    for pair in pairs:
        name, _, value = pair.partition("=")
        encoding, colon, length = value.partition(":")
        if name not in _PAYLOADS or not colon:
            fields.append((name, unquote_to_bytes(value)))
            continue
        content, found, body = body.partition(end)
        if not found:
            raise NotAnAnswer("the answer was cut")
        fields.append((name, content if encoding == "raw" else _decoded(content)))
        # A backend may have altered it, as it would have altered the command's own output.
        fields.append((f"{name}_altered", b"%d" % (len(content) - int(length))))
    if not body.startswith(mark.encode() + b" end"):
        raise NotAnAnswer("the answer was cut")
    return _answer(word, fields)


def _answer(word: str | None, pairs: Iterable[tuple[str, bytes]]) -> Answer:
    fields: dict[str, bytes] = {}
    entries: list[Entry] = []
    for name, value in pairs:
        if name == "entry":
            entries.append(Entry.parse(value.decode("utf-8", errors="replace")))
        else:
            fields[name] = value
    said = word or fields.pop("word", b"").decode("ascii", "replace")
    if not said:
        raise NotAnAnswer("an answer without a word")
    return Answer(word=said, fields=fields, entries=tuple(entries))


def _decoded(section: bytes) -> bytes:
    try:
        return base64.b64decode(section, validate=True)
    except binascii.Error as error:
        raise NotAnAnswer("the answer was changed on its way") from error


def _bytes(value: str | bytes | int) -> bytes:
    if isinstance(value, bytes):
        return value
    # An argument may hold bytes that are not text, as surrogates like those of Python's `os`.
    return str(value).encode("utf-8", "surrogateescape")
