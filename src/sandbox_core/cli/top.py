"""`sandbox-core top`: the sandboxes of a namespace in a terminal, kept up to date."""

from __future__ import annotations

import asyncio
import sys
import webbrowser
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import ClassVar
from urllib.parse import quote

from rich.table import Table
from rich.text import Text
from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Footer, Static

from sandbox_core.cli.access.show import lines_of, look_at
from sandbox_core.cli.connection import ServerUnavailable, connect_with_storage
from sandbox_core.cli.durations import format_duration
from sandbox_core.cli.sandboxes import Listed, find_all
from sandbox_core.errors import InvalidRequest, SandboxCoreError

_SHORTEST = timedelta(seconds=1)
_COLUMNS = ("PROVIDER", "SANDBOX", "WORKFLOW", "OWNER", "AGE")
_LOCAL_UI = "http://localhost:8233"
_CLOUD, _CLOUD_UI = ".tmprl.cloud", "https://cloud.temporal.io"


class Top(App[None]):
    """A table of the sandboxes, and what `sandbox-core show` says of the selected one.

    Args:
        client: The client of the sandboxes' namespace.
        providers: The providers to query; empty for all.
        every: How long to wait after each look at the backends.
        ui: The address of the Temporal UI; None if it is not known.
    """

    CSS = """
    DataTable { height: 1fr; }
    VerticalScroll { height: 1fr; border-top: solid $primary; }
    #status { height: auto; max-height: 4; background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "open_workflow", "Open the workflow in the Temporal UI"),
        Binding("r", "look_again", "Refresh"),
        Binding("q,ctrl+c", "quit", "Quit"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(
        self, client: Client, *, providers: Sequence[str], every: timedelta, ui: str | None
    ) -> None:
        super().__init__()
        self._client = client
        self._providers = providers
        self._every = every
        self._ui = ui
        self._listed: dict[str, Listed] = {}

    def compose(self) -> ComposeResult:
        table: DataTable[str] = DataTable(cursor_type="row")
        table.add_columns(*((each, each) for each in _COLUMNS))
        yield table
        with VerticalScroll():
            yield Static(id="details")
        yield Static("Asking the providers...", id="status")
        yield Footer()

    def on_mount(self) -> None:
        self.action_look_again()

    # --- The table --------------------------------------------------------------------------------

    def action_look_again(self) -> None:
        """Look now, and then again and again."""
        self.run_worker(self._follow(), group="table", exclusive=True)

    async def _follow(self) -> None:
        while True:
            try:
                _, found, errors = await find_all(self._providers, self._client)
            except (ServerUnavailable, SandboxCoreError) as error:
                self._say(str(error))
            else:
                self._update(found)
                now = datetime.now().astimezone().strftime("%H:%M:%S")
                unasked = [f"{name} could not be asked: {why}" for name, why in errors.items()]
                self._say(f"{len(found)} sandboxes at {now}", *unasked)
                self._look_at_selected()
            await asyncio.sleep(self._every.total_seconds())

    def _update(self, found: Sequence[Listed]) -> None:
        """Change the rows that differ, so that the selected one stays selected."""
        table = self.query_one(DataTable)
        listed = {f"{each.provider} {each.sandbox_id}": each for each in found}
        for key in self._listed.keys() - listed.keys():
            table.remove_row(key)
        for key, each in listed.items():
            age = "" if each.age_s is None else format_duration(timedelta(seconds=each.age_s))
            cells = (each.provider, each.sandbox_id, each.workflow_id, each.owner, age)
            if key not in self._listed:
                table.add_row(*map(Text, cells), key=key)
                continue
            for column, cell in zip(_COLUMNS, cells, strict=True):
                table.update_cell(key, column, Text(cell), update_width=True)
        self._listed = listed

    def _say(self, *lines: str) -> None:
        self.query_one("#status", Static).update(Text("\n".join(lines)))

    # --- The selected sandbox ---------------------------------------------------------------------

    def _selected(self) -> Listed | None:
        table = self.query_one(DataTable)
        if not table.is_valid_row_index(table.cursor_row):
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return self._listed.get(key or "")

    def on_data_table_row_highlighted(self) -> None:
        self._look_at_selected()

    def _look_at_selected(self) -> None:
        self.run_worker(self._show(self._selected()), group="details", exclusive=True)

    async def _show(self, sandbox: Listed | None) -> None:
        details = self.query_one("#details", Static)
        if sandbox is None:
            details.update("")
            return
        try:
            shown = await look_at(self._client, sandbox)
        except (ServerUnavailable, SandboxCoreError) as error:
            details.update(Text(str(error)))
            return
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, value in lines_of(shown):
            table.add_row(Text(name), Text(value))
        details.update(table)

    def action_open_workflow(self) -> None:
        """Open the page of the selected sandbox's workflow in a browser."""
        sandbox = self._selected()
        if sandbox is None:
            return
        if self._ui is None:
            self._say("Where is the Temporal UI? Start with --ui URL.")
            return
        url = _page_of(self._ui, self._client.namespace, sandbox)
        self._say(url if webbrowser.open(url) else f"No browser can be opened here: {url}")


def _page_of(ui: str, namespace: str, sandbox: Listed) -> str:
    path = (namespace, "workflows", sandbox.workflow_id, sandbox.run_id, "timeline")
    return f"{ui.rstrip('/')}/namespaces/" + "/".join(quote(part, safe="") for part in path)


def _ui_of(address: str) -> str | None:
    """Return the address of a server's UI, if it can be told from the server's."""
    host, _, port = address.rpartition(":")
    if host.endswith(_CLOUD):
        return _CLOUD_UI
    return _LOCAL_UI if host in ("localhost", "127.0.0.1") and port == "7233" else None


async def watch_sandboxes(
    *,
    providers: Sequence[str],
    every: timedelta,
    ui: str | None,
    storage: str | None,
    address: str | None,
    namespace: str | None,
) -> int:
    """Show the namespace's sandboxes until the user quits, and return 0.

    Args:
        providers: The providers to query; empty for all.
        every: How long to wait after each look at the backends.
        ui: The address of the Temporal UI; None for that of a local server or of Temporal Cloud.
        storage: The workers' storage; None for ``SANDBOX_CORE_STORAGE``, or the default one.
        address: The Temporal server; None for Temporal's own configuration.
        namespace: The namespace; None for Temporal's own configuration.

    Raises:
        InvalidRequest: There is no terminal, or `every` is less than a second.
        ServerUnavailable: The Temporal server cannot be reached, or refuses.
        StorageError: `storage` is not a storage URL.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidRequest("top needs a terminal. Without one, use `sandbox-core ls --json`.")
    if every < _SHORTEST:
        raise InvalidRequest("--every must be at least 1s: each look asks all providers.")
    # What the runtime logs, of a server that does not answer, would be written over the screen.
    silent = Runtime(telemetry=TelemetryConfig(logging=None))
    client = await connect_with_storage(address, namespace, storage, runtime=silent)
    ui = ui or _ui_of(client.service_client.config.target_host)
    await Top(client, providers=providers, every=every, ui=ui).run_async()
    return 0
