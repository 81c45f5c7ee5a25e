"""Keeps a command's output within its limit: head and tail stay, the middle goes."""

from __future__ import annotations


def cut_output(output: bytes, limit: int) -> bytes:
    """Return `output`, or if it has more than `limit` bytes its head and tail.

    A line between them says how many bytes were cut, and comes on top of the limit. Characters of
    UTF-8 stay whole, so that text which was readable still is.
    """
    if len(output) <= limit:
        return output
    head_end = limit - limit // 2
    tail_start = len(output) - limit // 2
    # A character has up to three continuation bytes (10xxxxxx); what is not UTF-8 is cut anywhere.
    for _ in range(3):
        if head_end and _continues(output, head_end):
            head_end -= 1
        if tail_start < len(output) and _continues(output, tail_start):
            tail_start += 1
    marker = f"\n[... {tail_start - head_end:,} bytes cut: more than the limit of {limit:,} ...]\n"
    return output[:head_end] + marker.encode("ascii") + output[tail_start:]


def _continues(output: bytes, position: int) -> bool:
    return output[position] & 0xC0 == 0x80
