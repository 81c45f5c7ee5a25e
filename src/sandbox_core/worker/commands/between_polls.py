"""Keeps publishing processes between two polls, on the worker that holds their session.

What polled a process hands its publisher over to a task, which the process's next poll ends before
it publishes itself. So it ends as well when the session does; and what it has not published, the
next poll does, on whichever worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeAlias
from weakref import WeakKeyDictionary

from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio import activity

from sandbox_core.worker.commands.live import LAST_S, Publisher

logger = logging.getLogger(__name__)

Key: TypeAlias = "tuple[str | None, str | None, str | None, int]"
"""A workflow id, a run id, the user of a process, and its number."""

_Task: TypeAlias = "asyncio.Task[None]"

_published: WeakKeyDictionary[SandboxSession, dict[Key, tuple[Publisher, _Task]]] = (
    WeakKeyDictionary()
)


def key_of(user: str | None, number: int) -> Key:
    """Return what identifies a process that the running activity has started or polled."""
    info = activity.info() if activity.in_activity() else None
    if info is None:
        return None, None, user, number
    return info.workflow_id, info.workflow_run_id, user, number


def go_on(session: SandboxSession, key: Key, publisher: Publisher) -> None:
    """Publish a process until it ends, or `take_back` or `finish` is called."""
    of_session = _published.setdefault(session, {})
    if key not in of_session:
        of_session[key] = publisher, asyncio.create_task(_go_on(publisher))


async def take_back(session: SandboxSession, key: Key) -> int | None:
    """Stop publishing a process; return the offset reached, or None if it was not published."""
    publisher, task = _published.get(session, {}).pop(key, (None, None))
    if publisher is None or task is None:
        return None
    await _ended(publisher, task)
    return publisher.offset


async def finish(session: SandboxSession) -> None:
    """Publish what the session's processes have written, all of which have ended."""
    published = _published.pop(session, {}).values()
    for publisher, task in published:
        await _ended(publisher, task)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_finish(publisher), LAST_S)


async def abandon(session: SandboxSession) -> None:
    """Stop publishing the session's processes until they are polled again."""
    for publisher, task in _published.pop(session, {}).values():
        await _ended(publisher, task)


def learn(session: SandboxSession, secrets: Iterable[bytes]) -> None:
    """Redact the secrets that the session's operations have learned meanwhile."""
    for publisher, _ in _published.get(session, {}).values():
        publisher.learn(secrets)


async def _ended(publisher: Publisher, task: _Task) -> None:
    publisher.ending.set()
    await asyncio.wait({task}, timeout=LAST_S)
    task.cancel()  # A signal that is not answered.


async def _go_on(publisher: Publisher) -> None:
    try:
        await publisher.go_on()
    except Exception as error:  # noqa: BLE001 - nobody waits for it
        logger.debug("a process is not published until its next poll: %r", error)


async def _finish(publisher: Publisher) -> None:
    try:
        await publisher.finish()
    except Exception as error:  # noqa: BLE001 - as when any command ends
        logger.debug("the end of a process's output is not published: %r", error)
