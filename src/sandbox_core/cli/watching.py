"""Shared by the demos: choosing a provider, watching the workflow, counting its sandboxes."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from typing import Any

from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from rich.console import Console
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowFailureError, WorkflowHandle

from sandbox_core.errors import UnknownProvider
from sandbox_core.providers import (
    FailedProvider,
    LoadedProvider,
    SupportsCheck,
    SupportsExists,
    SupportsIdentity,
    discover,
    load,
)
from sandbox_core.providers.activation import open_client
from sandbox_core.providers.registry import Provider
from sandbox_core.testing import DevServer
from sandbox_core.wire.naming import activity_name
from sandbox_core.wire.operations import CREATE_SESSION, DELETE_SESSION
from sandbox_core.wire.published import how_to_install

_GIVEN_UP_WITHIN_S = 30.0

_logger = logging.getLogger(__name__)


def load_provider(name: str) -> Provider:
    """Return the installed provider of this name.

    Raises:
        ProviderError: It is not installed, or cannot be loaded.
    """
    results = {
        r.name if isinstance(r, FailedProvider) else r.provider.name: r for r in load(discover())
    }
    result = results.get(name)
    if isinstance(result, LoadedProvider):
        return result.provider
    if isinstance(result, FailedProvider):
        raise result.error
    raise UnknownProvider(
        f"provider {name!r} is not installed here. Installed: {', '.join(results) or 'none'}. "
        f"Install it: {how_to_install(name)}"
    )


CONFINED, UNCONFINED = "bubblewrap", "local"
"""The demo's default providers, which need no account and no daemon."""


async def choose_provider(name: str | None) -> tuple[Provider, str]:
    """Return the named provider, or the best that runs here, and a line that names it.

    Raises:
        ProviderError: It is not installed, or cannot be loaded.
    """
    if name is not None:
        return load_provider(name), f"Provider: {name}."
    try:
        provider = load_provider(CONFINED)
        async with open_client(provider) as client:
            if isinstance(provider, SupportsCheck):
                await provider.check(client)
    except Exception as error:  # noqa: BLE001 - a plugin boundary: any error says why not
        return load_provider(UNCONFINED), (
            f"Provider: {UNCONFINED}, which isolates nothing: {CONFINED} cannot be used ({error})"
        )
    return provider, f"Provider: {CONFINED}."


async def give_up(handle: WorkflowHandle[Any, Any]) -> None:
    """Cancel a workflow, and let it delete its sandbox before the server stops."""
    await handle.cancel()
    try:
        await asyncio.wait_for(handle.result(), _GIVEN_UP_WITHIN_S)
    except WorkflowFailureError:
        pass
    except asyncio.TimeoutError:
        _logger.warning(
            "workflow %s has not ended %g s after it was cancelled: its sandbox may remain",
            handle.id,
            _GIVEN_UP_WITHIN_S,
        )


def activity_end(event: HistoryEvent) -> tuple[str, int] | None:
    """Return a mark for how an activity ended, and its event id; None for other events."""
    if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
        return "✓", event.activity_task_completed_event_attributes.scheduled_event_id
    if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED:
        return "✗", event.activity_task_failed_event_attributes.scheduled_event_id
    if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
        return "⧗", event.activity_task_timed_out_event_attributes.scheduled_event_id
    return None


def seconds(event: HistoryEvent) -> float:
    """Return the event's time in seconds since the epoch."""
    return event.event_time.seconds + event.event_time.nanos / 1e9


async def sandboxes_left(
    console: Console,
    provider: Provider,
    completed: Mapping[str, int],
    state: SandboxSessionState | None,
) -> int:
    """Show and return how many sandboxes are left.

    Args:
        console: Where to show it.
        provider: The provider of the sandboxes.
        completed: The number of completed activities of each type.
        state: The session state of the last sandbox, if the workflow returned it.
    """
    created = completed.get(activity_name(provider.name, CREATE_SESSION.name), 0)
    deleted = completed.get(activity_name(provider.name, DELETE_SESSION.name), 0)
    left = created - deleted
    if state is not None:
        left = max(left, int(await _exists(provider, state)))
    remaining = word(not left, "none", str(left))
    console.print(f"Sandboxes: {created} created, {deleted} deleted, {remaining} left")
    return left


async def _exists(provider: Provider, state: SandboxSessionState) -> bool:
    """Ask the backend itself, if it can be asked, whether the sandbox still exists."""
    if not (isinstance(provider, SupportsIdentity) and isinstance(provider, SupportsExists)):
        return False
    async with open_client(provider) as client:
        return await provider.exists(client, provider.identity(state))


def word(good: bool, yes: str, no: str) -> str:
    """Return one of two words, in green or red."""
    return f"[green]{yes}[/]" if good else f"[red]{no}[/]"


async def until_interrupted(console: Console, server: DevServer) -> None:
    """Keep the server running until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    console.print(f"\nThe server stays up at {server.address}; Ctrl-C stops it.", highlight=False)
    await stopped.wait()
