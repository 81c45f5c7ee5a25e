"""Writes `operations.md` from the table: ``python docs/generate.py``."""

from __future__ import annotations

from pathlib import Path

from sandbox_core.wire.messages import Message
from sandbox_core.wire.operations import Effect, Operation, operations

PAGE = Path(__file__).with_name("operations.md")

_HEAD = """\
# Operations

Every operation of a sandbox session is one activity, `{provider}-sandbox_{operation}`. This page is
made from the table in `sandbox_core.wire.operations`.

The effect of an operation decides how often it may be attempted:

"""


def render() -> str:
    """Return the page."""
    lines = [_HEAD]
    lines += [f"- **{effect.value}**: {_documented(effect)}\n" for effect in Effect]
    lines += ["\n| Operation | Effect | What it does | Bytes in | Answer |\n"]
    lines += ["| --- | --- | --- | --- | --- |\n"]
    lines += [_line(row) for row in operations()]
    return "".join(lines)


def _line(row: Operation[Message, Message | bytes | None]) -> str:
    does = (row.request.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
    answer = {bytes: "bytes", type(None): "nothing"}.get(row.response, row.response.__name__)
    taken = "yes" if row.takes_bytes else ""
    return f"| `{row.name}` | {row.effect.value} | {does} | {taken} | {answer} |\n"


def _documented(effect: Effect) -> str:
    return {
        Effect.READ: "changes nothing; up to 5 attempts.",
        Effect.IDEMPOTENT: "repeating it ends in the same state; up to 5 attempts.",
        Effect.KEYED: "the worker, or for a command the sandbox, recognises a repetition by the "
        "key in the request and answers with what the first attempt did; up to 5 attempts. Where "
        "that cannot be told, the answer to a repetition is `OutcomeUnknown`.",
        Effect.ONCE: "never attempted again once it may have begun; if its worker dies, the answer "
        "is `OutcomeUnknown`.",
    }[effect]


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
