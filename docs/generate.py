"""Writes what is made from other files: ``python docs/generate.py``.

`operations.md` from the table of operations; the promises in `contract.md` from the provider kit;
from each plugin's pyproject.toml the table of providers in the README, and the names that
`sandbox_core.wire.published` advises to install.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tomli

from sandbox_core.testing.contract import CHECKS, LEVELS
from sandbox_core.wire.messages import Message
from sandbox_core.wire.operations import Effect, Operation, operations

ROOT = Path(__file__).parents[1]
OPERATIONS = ROOT / "docs" / "operations.md"
CONTRACT = ROOT / "docs" / "contract.md"
README = ROOT / "README.md"
PUBLISHED = ROOT / "src" / "sandbox_core" / "wire" / "published.py"

_HEAD = """\
# Operations

Every operation of a sandbox session is one activity, `{provider}-sandbox_{operation}`. This page is
made from the table in `sandbox_core.wire.operations`.

The effect of an operation decides how often it may be attempted:

"""


def render_operations() -> str:
    """Return the page of operations."""
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


def render_contract() -> str:
    """Return the page of the contract with a row for each promise that is checked."""
    lines = []
    for level in LEVELS:
        lines += [f"### {level.title()}\n\n", _LEVELS[level], "\n\n"]
        lines += ["| Promise | What it costs if it is broken | Check |\n", "| --- | --- | --- |\n"]
        lines += [
            f"| {check.promise} | {check.cost} | "
            f'<a id="{check.name.replace(".", "")}"></a>`{check.name}` |\n'
            for check in CHECKS
            if check.level == level
        ]
        lines += ["\n"]
    return _between("checks", "".join(lines).rstrip("\n") + "\n", CONTRACT)


_LEVELS = {
    "package": "Without the backend.",
    "session": "With sandboxes of the backend, and without Temporal.",
    "labels": "With the same, for providers that have `identity`, `destroy` and labels.",
    "durable": "With workers on a real Temporal server, which are killed.",
}


def render_readme() -> str:
    """Return the README with a row for each plugin in its table of providers."""
    table = [
        "| Name | Install | Sandboxes are | The worker needs |\n",
        "| --- | --- | --- | --- |\n",
        *map(_provider, _plugins()),
    ]
    return _between("providers", "".join(table), README)


def _between(mark: str, content: str, page: Path) -> str:
    return re.sub(
        rf"(<!-- {mark} -->\n).*(<!-- /{mark} -->)",
        lambda marks: f"{marks[1]}{content}{marks[2]}",
        page.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )


def render_published() -> str:
    """Return the module of the published providers with an entry for each plugin."""
    entries = [f'    "{_name(plugin)}": "{plugin["project"]["name"]}",\n' for plugin in _plugins()]
    return re.sub(
        r"(PUBLISHED = \{\n).*?(\}\n)",
        lambda marks: f"{marks[1]}{''.join(entries)}{marks[2]}",
        PUBLISHED.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )


def _plugins() -> list[dict[str, Any]]:
    files = sorted(ROOT.glob("plugins/*/pyproject.toml"))
    return [tomli.loads(file.read_text(encoding="utf-8")) for file in files]


def _name(plugin: dict[str, Any]) -> str:
    (name,) = plugin["project"]["entry-points"]["sandbox_core.providers"]
    return str(name)


def _provider(plugin: dict[str, Any]) -> str:
    row = plugin["tool"]["sandbox-core"]
    install = f"`pip install {plugin['project']['name']}`"
    return f"| `{_name(plugin)}` | {install} | {row['sandboxes']} | {row['needs']} |\n"


if __name__ == "__main__":
    OPERATIONS.write_text(render_operations(), encoding="utf-8")
    CONTRACT.write_text(render_contract(), encoding="utf-8")
    README.write_text(render_readme(), encoding="utf-8")
    PUBLISHED.write_text(render_published(), encoding="utf-8")
