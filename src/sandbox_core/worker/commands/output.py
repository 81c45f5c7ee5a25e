"""Keeps a command's output within its limit by cutting out the middle."""

from __future__ import annotations

import codecs

from sandbox_core.worker.commands.protocol import Answer

_LONGEST_CHARACTER = 4


def cut_output(output: bytes, limit: int) -> bytes:
    """Return `output`, or its head and tail if it has more than `limit` bytes.

    A line between them, not counted towards the limit, says how many bytes were cut. UTF-8
    characters stay whole, so that text stays readable.
    """
    if len(output) <= limit:
        return output
    head = limit - limit // 2
    return _joined(output[:head], output[len(output) - limit // 2 :], len(output), limit)


def kept_output(answer: Answer, name: str, limit: int) -> bytes:
    """Return the output that the helper kept of a stream, with a line where the middle is missing.

    Args:
        answer: The record of a command that has ended.
        name: The stream, "out" or "err".
        limit: The most bytes to return; the line names it.
    """
    kept = answer.fields.get(name, b"")
    total = answer.number(f"{name}_total") + answer.number(f"{name}_altered")
    if total <= len(kept):
        return cut_output(kept, limit)
    # The record may have been made with another worker's limit, lower or higher.
    head_length = answer.number(f"{name}_head")
    head, tail = kept[:head_length], kept[head_length:]
    if len(kept) > limit:
        head, tail = head[: limit - limit // 2], tail[max(0, len(tail) - limit // 2) :]
    return _joined(head, tail, total, limit)


def dropped_line(count: int, limit: int) -> bytes:
    """Return the line that replaces `count` missing bytes."""
    return b"\n[... %s bytes cut: more than the limit of %s ...]\n" % (
        f"{count:,}".encode(),
        f"{limit:,}".encode(),
    )


def _joined(head: bytes, tail: bytes, total: int, limit: int) -> bytes:
    """Join the head and tail of `total` bytes, without partial characters at the cut."""
    head = head[: len(head) - partial_character(head)]
    # A character has up to three continuation bytes (10xxxxxx); other data is cut anywhere.
    begun = 0
    while begun < min(3, len(tail)) and tail[begun] & 0xC0 == 0x80:
        begun += 1
    tail = tail[begun:]
    return head + dropped_line(total - len(head) - len(tail), limit) + tail


def partial_character(output: bytes) -> int:
    """Return how many bytes at the end are the beginning of a UTF-8 character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(output[-_LONGEST_CHARACTER:])
    return len(decoder.getstate()[0])
