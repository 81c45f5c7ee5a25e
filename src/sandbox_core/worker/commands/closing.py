"""Ends the commands of a session that is stopped or deleted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.providers.registry import Provider
from sandbox_core.worker.commands import between_polls
from sandbox_core.worker.commands.ending import KILL_S
from sandbox_core.worker.commands.helper import used_helper
from sandbox_core.worker.commands.protocol import Field

logger = logging.getLogger(__name__)


async def terminate_all(
    provider: Provider, session: SandboxSession, users: Sequence[str] = ()
) -> None:
    """End all polled processes of the default user and of `users`, of all handles."""
    await _ask_all(provider, session, users, "end", ("which", "started"), ("reason", "terminated"))
    await between_polls.finish(session)


async def forget(provider: Provider, session: SandboxSession, users: Sequence[str] = ()) -> bool:
    """End every command in the session's sandbox and remove the records of all of them.

    Returns:
        Whether nothing is left; False if the sandbox could not be asked.
    """
    return await _ask_all(provider, session, users, "stop")


async def _ask_all(
    provider: Provider, session: SandboxSession, users: Sequence[str], verb: str, *fields: Field
) -> bool:
    try:
        for user in (None, *users):
            helper = await used_helper(provider, session, user)
            if helper is not None:
                await asyncio.wait_for(helper.ask(verb, fields), timeout=KILL_S)
    except Exception as error:  # noqa: BLE001 - the boundary to a provider's exec
        # A sandbox that is gone has no processes, and must not prevent the session from ending:
        # after a shutdown that ended it, each delete comes here.
        logger.debug("the processes of a sandbox could not be ended: %s", error)
        return False
    return True
