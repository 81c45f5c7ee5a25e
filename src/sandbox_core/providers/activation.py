"""Creates and closes a provider's client, with a time limit and clear errors."""

from __future__ import annotations

import asyncio
import inspect
import threading
from asyncio.events import _set_running_loop
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from sandbox_core.errors import ProviderLoad

if TYPE_CHECKING:
    from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions

_ResultT = TypeVar("_ResultT")

MADE_WITHIN_S = 60.0
"""How long `create_client` may take, including the import of the vendor's SDK."""


class CreatesClient(Protocol):
    """What of a provider is needed here."""

    name: str

    def create_client(self) -> object: ...


async def make_client(
    provider: CreatesClient, which: str, *, within_s: float = MADE_WITHIN_S
) -> BaseSandboxClient[BaseSandboxClientOptions | None]:
    """Return the client of a provider.

    Args:
        provider: The provider.
        which: Its name in errors: ``provider 'acme' (acme-sandbox 1.0)``.
        within_s: The time limit in seconds.

    Raises:
        ProviderLoad: `create_client` raised, did not return in time, or returned no client.
    """
    from agents.sandbox.session.sandbox_client import BaseSandboxClient

    try:
        made = await in_thread(_in_running_loop(provider.create_client), within_s=within_s)
    except asyncio.TimeoutError:
        raise _unusable(
            which,
            f"its create_client did not return within {within_s:g} s. It must not wait for the "
            f"backend without a time limit.",
        ) from None
    except Exception as error:  # A plugin boundary: any error of the vendor's.
        raise _unusable(which, f"{type(error).__name__}: {error}") from error
    if inspect.isawaitable(made):
        if inspect.iscoroutine(made):
            made.close()
        raise _unusable(
            which,
            "its create_client is asynchronous. It must be an ordinary function that returns the "
            "client; await in the client's operations instead.",
        )
    if not isinstance(made, BaseSandboxClient):
        raise _unusable(
            which,
            f"its create_client returned {made!r:.80}, which is not an instance of "
            f"agents.sandbox.session.sandbox_client.BaseSandboxClient.",
        )
    return cast("BaseSandboxClient[BaseSandboxClientOptions | None]", made)


def _unusable(which: str, reason: str) -> ProviderLoad:
    message = f"{which} is installed but cannot be used on this worker: {reason}"
    return ProviderLoad(message, reason=reason)


async def close_client(client: object) -> None:
    """Close a provider's client, if it has a `close` method."""
    close = getattr(client, "close", None)
    closing = close() if callable(close) else None
    if inspect.isawaitable(closing):
        await closing


@asynccontextmanager
async def open_client(
    provider: CreatesClient, which: str | None = None
) -> AsyncIterator[BaseSandboxClient[BaseSandboxClientOptions | None]]:
    """Yield the client of a provider, and close it.

    Args:
        provider: The provider.
        which: Its name in errors; by default only that.

    Raises:
        ProviderLoad: See `make_client`.
    """
    client = await make_client(provider, which or f"provider {provider.name!r}")
    try:
        yield client
    finally:
        await close_client(client)


async def in_thread(function: Callable[[], _ResultT], *, within_s: float) -> _ResultT:
    """Call a plugin's function, which may block, in its own daemon thread.

    If the function does not return in time, its thread is abandoned.

    Raises:
        asyncio.TimeoutError: The function did not return within `within_s` seconds.
        Exception: Raised by the function.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_ResultT] = loop.create_future()
    context = copy_context()

    def report(result: _ResultT | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(cast("_ResultT", result))
        else:
            done.set_exception(error)

    def run() -> None:
        result, raised = None, None
        try:
            result = context.run(function)
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            raised = error
        except BaseException as error:  # noqa: BLE001 - a plugin that exits must not go unnoticed
            raised = RuntimeError(f"{type(error).__name__}: {error}")
        if not loop.is_closed():
            loop.call_soon_threadsafe(report, result, raised)

    threading.Thread(target=run, name="sandbox-core-plugin", daemon=True).start()
    return await asyncio.wait_for(done, within_s)


def _in_running_loop(function: Callable[[], _ResultT]) -> Callable[[], _ResultT]:
    """Let `function` see the caller's event loop as running; some clients require one."""
    loop = asyncio.get_running_loop()

    def call() -> _ResultT:
        _set_running_loop(loop)
        return function()

    return call
