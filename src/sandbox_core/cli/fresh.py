"""`sandbox-core run`: one command in a fresh sandbox, which is deleted afterwards."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import typer
from agents.sandbox.errors import ExecTimeoutError, SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio.exceptions import ApplicationError

from sandbox_core.cli.outcome import TIMED_OUT, pass_on, reason_of
from sandbox_core.cli.watching import load_provider
from sandbox_core.errors import OperationFailed
from sandbox_core.providers.activation import open_client
from sandbox_core.providers.registry import Provider
from sandbox_core.wire import messages as m
from sandbox_core.wire.failures import decode_error
from sandbox_core.worker.attempts import uncancellable
from sandbox_core.worker.commands.closing import forget
from sandbox_core.worker.commands.run import run
from sandbox_core.worker.sessions.pool import Client

_ENDED_WITHIN_S = 60.0
"""How long a backend may take to finish a create that was interrupted, and to delete."""


async def run_fresh(
    provider: str, command: Sequence[str], *, timeout: timedelta, as_json: bool
) -> int:
    """Run a command in a new sandbox of `provider`, and return the command's exit code.

    The sandbox is created from here, without Temporal, and is deleted also if this is interrupted.

    Raises:
        OperationFailed: The sandbox could not be created or deleted, or the command not be run.
        ProviderError: The provider is not installed, or cannot be used from here.
    """
    chosen = load_provider(provider)
    request = m.ExecRequest(
        session=m.SessionRef(session_id="", epoch=0),
        operation_id=uuid.uuid4().hex,
        command=tuple(command),
        timeout=timeout.total_seconds(),
        shell=False,
    )
    async with open_client(chosen) as client:
        try:
            async with _sandbox(chosen, client) as session:
                # As on a worker: whatever happens, the command is ended with all that it started.
                result = (await run(chosen, session, request)).result
        except (SandboxError, ApplicationError) as error:
            # What only an activity would raise is encoded for a workflow.
            raised = decode_error(error) if isinstance(error, ApplicationError) else error
            if isinstance(raised, ExecTimeoutError):
                typer.echo(f"error: it was ended after {timeout}, its --timeout", err=True)
                return TIMED_OUT
            reason = reason_of(raised, command) if isinstance(raised, SandboxError) else str(raised)
            raise OperationFailed(reason) from error
    response = m.ExecResponse(
        stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code
    )
    return pass_on(response, as_json=as_json)


@asynccontextmanager
async def _sandbox(provider: Provider, client: Client) -> AsyncIterator[SandboxSession]:
    """Yield a new sandbox, and delete it."""
    try:
        options = provider.default_options()
    except ValueError as error:
        raise OperationFailed(
            f"provider {provider.name!r} has no default options: {error}"
        ) from error
    creating = asyncio.ensure_future(client.create(options=options))
    try:
        session = await asyncio.shield(creating)
    except asyncio.CancelledError:
        # A backend finishes a create that nobody waits for.
        made = await uncancellable(asyncio.wait_for(creating, _ENDED_WITHIN_S))
        await uncancellable(asyncio.wait_for(client.delete(made), _ENDED_WITHIN_S))
        raise
    except SandboxError:
        raise
    except Exception as error:  # A plugin boundary: any error of the vendor's.
        raise OperationFailed(f"{provider.name} did not create a sandbox: {error}") from error
    try:
        await session.start()
        yield session
    finally:
        await uncancellable(_delete(provider, client, session))


async def _delete(provider: Provider, client: Client, session: SandboxSession) -> None:
    if provider.host_bound:  # Elsewhere, a sandbox's processes end with it.
        await forget(provider, session)
    await asyncio.wait_for(client.delete(session), _ENDED_WITHIN_S)
