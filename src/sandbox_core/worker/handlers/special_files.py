"""Refuses FIFOs and devices, which can block a reader or writer forever."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.workspace_paths import sandbox_path_str

from sandbox_core.errors import InvalidRequest
from sandbox_core.worker.sdk_session import validated

_ResultT = TypeVar("_ResultT")

_SUSPICIOUS_S = 5.0
"""How long an operation on a file may take before the kind of the file is checked."""

_IS_SPECIAL = '[ -e "$1" ] && ! [ -f "$1" ] && ! [ -d "$1" ]'


async def unless_special(
    session: SandboxSession, path: str, work: Coroutine[object, object, _ResultT]
) -> _ResultT:
    """Await `work` on the file at `path`, unless it blocks because that is a FIFO or a device.

    Raises:
        InvalidRequest: The file is a FIFO, a socket or a device.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=_SUSPICIOUS_S)
        if not done and await _is_special(session, path):
            raise InvalidRequest(f"{path!r} is a FIFO, a socket or a device, not a regular file.")
        return await task
    finally:
        task.cancel()


async def _is_special(session: SandboxSession, path: str) -> bool:
    resolved = sandbox_path_str(await validated(session, path))
    return (await session.exec("sh", "-c", _IS_SPECIAL, "sh", resolved, shell=False)).ok()
