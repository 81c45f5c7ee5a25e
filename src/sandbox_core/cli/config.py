"""`sandbox-core config show`: every setting, its value, and where that comes from."""

from __future__ import annotations

from typing import cast

import typer
from pydantic import JsonValue
from rich.text import Text

from sandbox_core.cli.connection import ServerUnavailable, address_source, connection_settings
from sandbox_core.cli.printing import new_table, print_json, print_table
from sandbox_core.cli.secret_values import remove_secrets
from sandbox_core.config import (
    FILE_NAME,
    SETTINGS,
    Configuration,
    Setting,
    read_configuration,
    write_value,
)
from sandbox_core.errors import ProviderError, StorageError
from sandbox_core.providers import discover
from sandbox_core.providers.discovery import select
from sandbox_core.storage.location import choose_location
from sandbox_core.wire.agents_models import JsonObject


def show_configuration(*, as_json: bool) -> int:
    """Print all settings; return 1 if something is wrong, which is printed to stderr, 0 otherwise.

    Args:
        as_json: Whether to print JSON.
    """
    configuration = read_configuration()
    server, temporal_problem = _server()
    problems = [str(problem) for problem in configuration.problems]
    problems += filter(None, [_refused(configuration), temporal_problem])
    problems = [remove_secrets(problem) for problem in problems]
    if as_json:
        report: JsonObject = {
            "file": None if configuration.file is None else str(configuration.file),
            "temporal": server,
            "settings": [_as_json(setting, configuration) for setting in SETTINGS],
            "errors": list[JsonValue](problems),
        }
        print_json(report)
    else:
        _print(configuration, server)
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    return int(bool(problems))


def _server() -> tuple[JsonObject, str]:
    """Return the Temporal server with what says so, and what is wrong with that."""
    try:
        found = connection_settings(None, None)
    except ServerUnavailable as error:
        return {}, str(error)
    host = found["target_host"]
    return {
        "address": host,
        "namespace": found.get("namespace", "default"),
        "from": address_source(None, host),
    }, ""


def _refused(configuration: Configuration) -> str:
    """Return why a worker would refuse the settings, although each is of its kind."""
    try:
        choose_location(None, configuration)
        select(discover(), configuration)
    except StorageError as error:
        # What is not a URL is not shown: it may be a credential in the wrong place.
        is_url = "://" in (configuration.settings.storage or "")
        named = configuration.named("storage")
        return error.message if is_url else f"{named} is neither an absolute path nor a URL"
    except ProviderError as error:
        return error.message
    return ""


def _shown(setting: Setting, configuration: Configuration) -> str:
    text = write_value(setting.of(configuration.settings))
    if setting.name == "storage" and text:
        try:
            return choose_location(text, configuration).url
        except StorageError:
            return "[not shown]"
    return remove_secrets(text)


def _as_json(setting: Setting, configuration: Configuration) -> JsonObject:
    value = setting.of(configuration.settings)
    is_plain = value is None or isinstance(value, bool | int)
    return {
        "name": setting.name,
        "value": cast("JsonValue", value) if is_plain else _shown(setting, configuration),
        "from": configuration.origins.get(setting.name, "default"),
        "variable": setting.variable,
        "argument": setting.argument or None,
    }


def _print(configuration: Configuration, server: JsonObject) -> None:
    file = configuration.file
    typer.echo(f"File      {f'no {FILE_NAME} here' if file is None else file}")
    if server:
        typer.echo(
            f"Temporal  {server['address']}, namespace {server['namespace']} ({server['from']})"
        )
    typer.echo()
    table = new_table("SETTING", "VALUE", "FROM")
    for setting in SETTINGS:
        origin = configuration.origins.get(setting.name, "default")
        table.add_row(setting.name, Text(_shown(setting, configuration) or "-"), origin)
    print_table(table, fold=True)
    typer.echo(
        "\nArguments of SandboxPlugin(...) and options of commands take precedence. The connection "
        "is\nTemporal's own configuration."
    )
