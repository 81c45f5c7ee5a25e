"""Keeps a command's output within its limit: head and tail stay, the middle goes."""

from __future__ import annotations

from sandbox_core.worker.commands.protocol import Answer


def cut_output(output: bytes, limit: int) -> bytes:
    """Return `output`, or if it has more than `limit` bytes its head and tail.

    A line between them says how many bytes were cut, and comes on top of the limit. Characters of
    UTF-8 stay whole, so that text which was readable still is.
    """
    if len(output) <= limit:
        return output
    head = limit - limit // 2
    return _joined(output[:head], output[len(output) - limit // 2 :], len(output), limit)


def kept_output(answer: Answer, name: str, limit: int) -> bytes:
    """Return what the helper has kept of a stream, with a line where it has dropped the middle.

    Args:
        answer: The record of a command that has ended.
        name: The stream, "out" or "err".
        limit: The most that is returned, in bytes, and what the line says of it.
    """
    kept = answer.fields.get(name, b"")
    total = answer.number(f"{name}_total") + answer.number(f"{name}_altered")
    if total <= len(kept):
        return cut_output(kept, limit)
    # Another worker may have asked for the command, and for less or more of its output.
    head_length = answer.number(f"{name}_head")
    head, tail = kept[:head_length], kept[head_length:]
    if len(kept) > limit:
        head, tail = head[: limit - limit // 2], tail[max(0, len(tail) - limit // 2) :]
    return _joined(head, tail, total, limit)


def dropped_line(count: int, limit: int) -> bytes:
    """Return the line that stands for `count` bytes that are not there."""
    return b"\n[... %s bytes cut: more than the limit of %s ...]\n" % (
        f"{count:,}".encode(),
        f"{limit:,}".encode(),
    )


def _joined(head: bytes, tail: bytes, total: int, limit: int) -> bytes:
    """Join what is left of `total` bytes, without the parts of characters at the cut."""
    head = head[: len(head) - _unfinished(head)]
    # A character has up to three continuation bytes (10xxxxxx); what is not UTF-8 is cut anywhere.
    begun = 0
    while begun < min(3, len(tail)) and tail[begun] & 0xC0 == 0x80:
        begun += 1
    tail = tail[begun:]
    return head + dropped_line(total - len(head) - len(tail), limit) + tail


def _unfinished(head: bytes) -> int:
    """Return how many bytes at the end are the beginning of a character."""
    for back in range(1, min(4, len(head)) + 1):
        byte = head[-back]
        if byte & 0xC0 == 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
        if byte & 0xC0 != 0x80:
            return 0
    return 0
