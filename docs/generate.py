"""Writes what is made from other files: ``python docs/generate.py``.

`operations.md` from the table of operations; the metrics in `observe.md` from theirs; the tables in
`configuration.md` from the settings; the promises in `contract.md` from the provider kit; from each
plugin's pyproject.toml the table of providers in the README, and the names that
`sandbox_core.wire.published` advises to install; `provider-list.md` from these and
`provider-list.toml`; and `cli.md` from the commands' own help.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli
import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from sandbox_core.cli.app import app
from sandbox_core.config import (
    OTHER_VARIABLES,
    SETTINGS,
    Settings,
    WorkerSettings,
    write_value,
)
from sandbox_core.providers import CAPABILITIES
from sandbox_core.testing.contract import CHECKS, LEVELS
from sandbox_core.wire.messages import Message
from sandbox_core.wire.metrics import METRICS, Kind, Metric
from sandbox_core.wire.operations import Effect, Operation, operations

ROOT = Path(__file__).parents[1]
CLI = ROOT / "docs" / "cli.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
OPERATIONS = ROOT / "docs" / "operations.md"
CONTRACT = ROOT / "docs" / "contract.md"
OBSERVE = ROOT / "docs" / "observe.md"
README = ROOT / "README.md"
LISTED = ROOT / "docs" / "provider-list.toml"
PROVIDER_LIST = ROOT / "docs" / "provider-list.md"
PUBLISHED = ROOT / "src" / "sandbox_core" / "wire" / "published.py"

_HEAD = """\
# Operations

Every operation of a sandbox session is one activity, `{provider}-sandbox_{operation}`. This page is
generated from the table in `sandbox_core.wire.operations`.

An operation's effect determines how often it may be attempted:

"""


def render_operations() -> str:
    """Return the page of operations."""
    lines = [_HEAD]
    lines += [f"- **{effect.value}**: {_documented(effect)}\n" for effect in Effect]
    lines += ["\n| Operation | Effect | What it does | Bytes in | Response |\n"]
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
        Effect.IDEMPOTENT: "repeating it leads to the same state; up to 5 attempts.",
        Effect.KEYED: "the worker, or for a command the sandbox, recognises a repetition by the "
        "request's key and returns the first attempt's result; up to 5 attempts. If that result is "
        "unknown, a repetition raises `OutcomeUnknown`.",
        Effect.ONCE: "never attempted again once it may have started; if its worker dies, it "
        "raises `OutcomeUnknown`.",
    }[effect]


def render_configuration() -> str:
    """Return the page of the configuration with a row for each setting and variable."""
    page = CONFIGURATION.read_text(encoding="utf-8")
    for mark, lines in (("settings", _settings()), ("variables", _variables())):
        page = _between(mark, "".join(lines), page)
    return page


def _settings() -> Iterator[str]:
    for table, title in _TABLES.items():
        rows = [setting for setting in SETTINGS if setting.table is table]
        yield f"### {title}\n\n| Key | Variable | Value | Default | |\n"
        yield "| --- | --- | --- | --- | --- |\n"
        for row in rows:
            default = f"`{write_value(row.default)}`" if row.default not in (None, (), {}) else ""
            yield f"| `{row.key}` | `{row.variable}` | {row.kind} | {default} "
            yield f"| {row.description} |\n"
        yield "" if table is WorkerSettings else "\n"


_TABLES = {
    Settings: "Clients and workers",
    WorkerSettings: "The table `[worker]`",
}


def _variables() -> Iterator[str]:
    yield "| Variable | |\n| --- | --- |\n"
    for name, description in OTHER_VARIABLES.items():
        yield f"| `{name}` | {description} |\n"


def render_contract() -> str:
    """Return the page of the contract with a row for each promise that is checked."""
    lines = []
    for level in LEVELS:
        lines += [f"### {level.title()}\n\n", _LEVELS[level], "\n\n"]
        lines += ["| Promise | If broken | Check |\n", "| --- | --- | --- |\n"]
        lines += [
            f"| {check.promise} | {check.cost} | "
            f'<a id="{check.name.replace(".", "")}"></a>`{check.name}` |\n'
            for check in CHECKS
            if check.level == level
        ]
        lines += ["\n"]
    return _between("checks", "".join(lines).rstrip("\n") + "\n", CONTRACT.read_text("utf-8"))


_LEVELS = {
    "package": "Checked without the backend.",
    "session": "Checked with sandboxes of the backend, without Temporal.",
    "labels": "The same, for providers with `identity`, `destroy` and labels.",
    "durable": "Checked with workers on a real Temporal server, which are killed.",
}


def render_observe() -> str:
    """Return the page of metrics with a row for each."""
    lines = ["| Metric | Kind | What it is | Attributes |\n", "| --- | --- | --- | --- |\n"]
    lines += map(_metric, METRICS)
    return _between("metrics", "".join(lines), OBSERVE.read_text("utf-8"))


def _metric(row: Metric) -> str:
    suffix = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.DURATIONS: "_seconds"}[row.kind]
    attributes = ", ".join(f"`{name}`" for name in row.attributes)
    return f"| `{row.name}{suffix}` | {row.kind.value} | {row.description} | {attributes} |\n"


def render_readme() -> str:
    """Return the README with a row for each plugin in its table of providers."""
    table = [
        "| Name | Install | Sandboxes are | The worker needs |\n",
        "| --- | --- | --- | --- |\n",
        *map(_provider, _plugins()),
    ]
    return _between("providers", "".join(table), README.read_text("utf-8"))


def _between(mark: str, content: str, page: str) -> str:
    return re.sub(
        rf"(<!-- {mark} -->\n).*(<!-- /{mark} -->)",
        lambda marks: f"{marks[1]}{content}{marks[2]}",
        page,
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


def render_provider_list() -> str:
    """Return the page of all providers that are known, and of clients that could be providers."""
    listed = tomli.loads(LISTED.read_text(encoding="utf-8"))
    published = listed.get("provider", [])
    sections = {
        "ours": _table(map(_of_plugin, _plugins())),
        "others": _table(published) if published else ["None is known yet.\n"],
        "clients": map(_client, listed["client"]),
    }
    page = PROVIDER_LIST.read_text(encoding="utf-8")
    for mark, lines in sections.items():
        page = _between(mark, "".join(lines), page)
    return page


def _table(providers: Iterable[Mapping[str, Any]]) -> list[str]:
    head = "| Name | Install | Sandboxes are | Abilities | Last check |\n"
    return [head, "| --- | --- | --- | --- | --- |\n", *map(_listed, providers)]


def _listed(row: Mapping[str, Any]) -> str:
    name = f"[`{row['name']}`]({row['url']})"
    check = f"{row['check']}; {row['against']}" if "check" in row else "not recorded"
    install = f"`pip install {row['distribution']}`"
    return f"| {name} | {install} | {row['backend']} | {', '.join(row['abilities'])} | {check} |\n"


def _of_plugin(plugin: dict[str, Any]) -> dict[str, Any]:
    project, row = plugin["project"], plugin["tool"]["sandbox-core"]
    checked = {key: row[key] for key in ("check", "against") if key in row}
    return {
        "name": _name(plugin),
        "distribution": project["name"],
        "backend": row["sandboxes"],
        "url": f"../plugins/{project['name']}/README.md",
        "abilities": _abilities(ROOT / "plugins" / project["name"]),
        **checked,
    }


def _abilities(plugin: Path) -> list[str]:
    """Return the abilities whose methods the provider's class has, without importing it."""
    (module,) = plugin.glob("src/*/__init__.py")
    methods = {
        each.name
        for node in ast.parse(module.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
        for each in node.body
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return [
        ability
        for ability, protocol in CAPABILITIES.items()
        if {name for name in vars(protocol) if not name.startswith("_")} <= methods
    ]


def _client(row: Mapping[str, Any]) -> str:
    module, _, options = row["options"].partition(":")
    imports = sorted(
        [
            f"from {module} import {options}\n",
            "from sandbox_core.providers import client_provider\n",
        ]
    )
    arguments = [f'"{row["name"]}"', f'"{row["client"]}"', options]
    arguments += [f'identity="{row["identity"]}"']
    arguments += [f"{key}={row[key]}" for key in ("host_bound", "durable_processes") if key in row]
    lines = ",\n    ".join(arguments)
    facts = [row["backend"], *([row["note"]] if "note" in row else []), *_check_of(row)]
    return (
        f"\n**{row['distribution']}** {row['version']}: {'; '.join(facts)}.\n\n"
        f"```python\n{''.join(imports)}\nprovider = client_provider(\n    {lines},\n)\n```\n"
    )


def _check_of(row: Mapping[str, Any]) -> list[str]:
    return [f"`{row['check']}`"] if "check" in row else ["not checked"]


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


def render_cli() -> str:
    """Return the page of the commands, with what ``--help`` says of each."""
    return "".join([_CLI_HEAD, *_commands(typer.main.get_command(app), "sandbox-core")])


_CLI_HEAD = """\
# Command-line reference

What `sandbox-core COMMAND --help` says of each command. [Commands for operators](commands.md) shows
what they print.
"""


def _commands(command: object, path: str) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], f"{path} {name}")
        return
    assert isinstance(command, TyperCommand)
    options = [each for each in command.params if isinstance(each, TyperOption)]
    arguments = [each for each in command.params if isinstance(each, TyperArgument)]
    taken = [each.metavar or (each.name or "").upper() for each in arguments]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *taken])
    yield f"\n## {path}\n\n```text\n{usage}\n```\n\n{_paragraphs(command.help)}\n"
    rows = [
        *((name, each.help, "") for name, each in zip(taken, arguments, strict=True)),
        *map(_option, options),
    ]
    if rows:
        yield "\n| Argument or option | What it is | Default |\n| --- | --- | --- |\n"
    for name, does, default in rows:
        cells = (f"`{name}`", _paragraphs(does), default)
        yield f"| {' | '.join(cell.replace('|', ' or ') for cell in cells)} |\n"
    examples = (command.epilog or "").replace("\\[", "[").split("\n\n")[1:]
    if examples:
        yield "\n".join(["\nExamples:\n", "```bash", *examples, "```", ""])


def _option(option: TyperOption) -> tuple[str, str | None, str]:
    names = ", ".join([*option.opts, *option.secondary_opts])
    takes = f" {option.metavar}" if option.metavar else ""
    default = option.default
    shown = isinstance(default, str | int) and not isinstance(default, bool)
    return f"{names}{takes}", option.help, f"`{default}`" if shown else ""


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(each.split()) for each in (text or "").split("\n\n"))


if __name__ == "__main__":
    CLI.write_text(render_cli(), encoding="utf-8")
    CONFIGURATION.write_text(render_configuration(), encoding="utf-8")
    OPERATIONS.write_text(render_operations(), encoding="utf-8")
    CONTRACT.write_text(render_contract(), encoding="utf-8")
    OBSERVE.write_text(render_observe(), encoding="utf-8")
    README.write_text(render_readme(), encoding="utf-8")
    PROVIDER_LIST.write_text(render_provider_list(), encoding="utf-8")
    PUBLISHED.write_text(render_published(), encoding="utf-8")
