"""Keeps a relay in a sandbox for the commands of one user, and replaces one that is of no use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from agents.sandbox.session.base_sandbox_session import BaseSandboxSession

from sandbox_core.providers import ProcessStream, SupportsProcessStreams
from sandbox_core.worker.commands.install import Installed
from sandbox_core.worker.commands.protocol import Answer, Field
from sandbox_core.worker.commands.relay import Relay, Unheard, Unsupported

logger = logging.getLogger(__name__)

OPEN_S = 10.0
"""How long starting a relay may take."""

PAUSE_S = 10.0
"""How long after a relay could not be started another one is tried."""


class Relays:
    """The relays of one user in a sandbox: one that is asked, and those that still answer."""

    def __init__(
        self, provider: SupportsProcessStreams, session: BaseSandboxSession, user: str | None
    ) -> None:
        self._provider = provider
        self._session = session
        self._user = user
        self._current: Relay | None = None
        self._retired: set[Relay] = set()
        self._starting: asyncio.Task[None] | None = None
        self._inherited: object = None
        self._not_before = 0.0
        self._closed = False

    @property
    def in_use(self) -> bool:
        """Whether requests go through a relay at present."""
        return self._current is not None and self._current.usable

    async def ask(self, where: Installed, verb: str, fields: Sequence[Field]) -> Answer | None:
        """Make a request; return None if it was not made.

        Raises:
            NotAnAnswer: It may have been carried out.
        """
        relay = await self._relay(where)
        if relay is None or relay.is_full:
            return None
        if verb in ("run", "start"):
            fields = [("context", relay.context), *fields]
        wait_s = next((int(value) for name, value in fields if name == "wait"), 0) / 1000
        try:
            answer = await relay.ask(verb, fields, wait_s)
        except Unheard:
            return None
        if answer.word == "unknown-context":
            await relay.retire()  # Another resident has taken the place of the one that knew it.
            return None
        return answer

    async def _relay(self, where: Installed) -> Relay | None:
        inherited = _inherited(self._session)
        current = self._current
        if current is not None and current.usable and inherited == self._inherited:
            return current
        if current is not None:
            self._current = None
            self._retired = {relay for relay in self._retired if not relay.ended}
            self._retired.add(current)
            await current.retire()
        if self._starting is None:
            if self._closed or asyncio.get_running_loop().time() < self._not_before:
                return None
            self._starting = asyncio.create_task(self._start(where, inherited))
        await asyncio.shield(self._starting)
        return self._current

    async def _start(self, where: Installed, inherited: object) -> None:
        async def open_stream(command: Sequence[str]) -> ProcessStream:
            return await self._provider.open_stream(self._session, command, user=self._user)

        try:
            relay = await asyncio.wait_for(Relay.start(open_stream, where), OPEN_S)
        except (Unsupported, NotImplementedError) as error:
            logger.debug("a sandbox has no relays: %s", error)
            self._closed = True
        except Exception as error:  # noqa: BLE001 - a provider's; `exec` fails in its own way
            logger.debug("a relay could not be started: %r", error)
            self._not_before = asyncio.get_running_loop().time() + PAUSE_S
        else:
            self._current, self._inherited = relay, inherited
            if self._closed:
                await relay.aclose()
        finally:
            self._starting = None

    async def aclose(self) -> None:
        """End all relays, and start no others."""
        self._closed = True
        if self._starting is not None:
            await asyncio.wait({self._starting})
        relays = [*self._retired, *([] if self._current is None else [self._current])]
        for relay in relays:
            await relay.aclose()


def _inherited(session: BaseSandboxSession) -> object:
    """Return what determines what a process inherits; a relay keeps what it was started with."""
    state = session.state
    return state.workspace_root_ready, dict(state.manifest.environment.value)
