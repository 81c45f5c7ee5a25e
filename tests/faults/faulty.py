"""Provider `faulty`: an installed provider that fails once, at a chosen point of an operation."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from agents.sandbox.session.sandbox_session import SandboxSession
from support import installed_provider

from sandbox_core.providers.registry import Provider
from sandbox_core.worker.sessions.pool import Client

VARIABLE = "SANDBOX_FAULT"
"""Gives a worker its fault, as `Fault.variable` writes it."""

OF_VARIABLE = "SANDBOX_FAULT_OF"
"""Names the installed provider that fails; without it, that is the local one."""

_MOMENTS = ("before", "during", "after")
_ACTIONS = ("raise", "hang", "kill")
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Fault:
    """What fails, when, how, and that it does so only once.

    Attributes:
        operation: An asynchronous method of the provider (``find``, ``destroy``, ...), of its
            client (``create``, ``resume``, ``delete``), or of the sessions that this makes
            (``start``, ``exec``, ``write``, ...).
        moment: "before", "during" or "after". "during" is the first time that the operation waits
            for something; for one that never does, it is "after".
        action: "raise" a `ConnectionError`, "hang" for ever, or "kill" the worker with SIGKILL.
        marker: A file that is made before something fails. With it, nothing fails any more.
    """

    operation: str
    moment: str
    action: str
    marker: Path

    def __post_init__(self) -> None:
        assert self.moment in _MOMENTS, self.moment
        assert self.action in _ACTIONS, self.action

    def variable(self) -> dict[str, str]:
        """Return what to add to a worker's environment: ``create:after:kill:/path/of/marker``."""
        return {VARIABLE: f"{self.operation}:{self.moment}:{self.action}:{self.marker}"}

    @staticmethod
    def from_environment() -> Fault | None:
        """Return the fault of this worker, if it has one."""
        if VARIABLE not in os.environ:
            return None
        operation, moment, action, marker = os.environ[VARIABLE].split(":", 3)
        return Fault(operation, moment, action, Path(marker))

    def put_into(self, target: object) -> None:
        """Make the operation of `target` fail, if it has such an operation."""
        kind = type(target)
        method = getattr(kind, self.operation, None)
        if inspect.iscoroutinefunction(method):
            target.__class__ = type(kind.__name__, (kind,), {self.operation: self._failing(method)})

    def _failing(self, method: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
        @wraps(method)
        async def failing(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            if self.moment == "before":
                await self._happen()
            running = asyncio.ensure_future(method(*args, **kwargs))
            try:
                if self.moment == "during":
                    await asyncio.sleep(0)  # It now runs up to where it waits for something.
                    await self._happen()
                result = await running
            finally:
                running.cancel()
            if self.moment == "after":
                await self._happen()
            return result

        return failing

    async def _happen(self) -> None:
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "hang":
            await asyncio.Event().wait()
        raise ConnectionError(f"the backend failed {self.moment} {self.operation}")


def faulty_provider(fault: Fault | None) -> Provider:
    """Return an installed provider with all its abilities, named `faulty`, and a fault in it."""
    provider = installed_provider(os.environ.get(OF_VARIABLE, "local"))
    provider.name = "faulty"
    if fault is not None:
        fault.put_into(provider)
        _put_into_clients(provider, fault)
    return provider


def _put_into_clients(provider: Provider, fault: Fault) -> None:
    kind = type(provider)

    def create_client(self: Provider) -> Client:
        client = cast("Client", kind.create_client(self))
        _put_into_sessions(client, fault)
        fault.put_into(client)
        return client

    # Commands then go through the backend's `exec`, where a fault can meet them.
    own = {"create_client": create_client, "host_process": None}
    provider.__class__ = type(kind.__name__, (kind,), own)


def _put_into_sessions(client: Client, fault: Fault) -> None:
    def with_fault(
        method: Callable[_P, Awaitable[SandboxSession]],
    ) -> Callable[_P, Awaitable[SandboxSession]]:
        @wraps(method)
        async def made(*args: _P.args, **kwargs: _P.kwargs) -> SandboxSession:
            session = await method(*args, **kwargs)
            fault.put_into(session._inner)
            return session

        return made

    kind = type(client)
    methods = {name: with_fault(getattr(kind, name)) for name in ("create", "resume")}
    client.__class__ = type(kind.__name__, (kind,), methods)
