"""Keeps the number of processes within the SDK's limit, 64 for each user of a session.

One more ends the least recently used, as in the SDK's backends.
"""

from __future__ import annotations

from agents.sandbox.errors import SandboxError
from agents.sandbox.session.pty_types import PTY_PROCESSES_MAX, PTY_PROCESSES_PROTECTED_RECENT

from sandbox_core.worker.commands.ending import end_command
from sandbox_core.worker.commands.helper import Helper
from sandbox_core.worker.commands.protocol import NotAnAnswer


async def make_room(helper: Helper, user: str | None, known: dict[str | None, int]) -> None:
    """End the least recently used process of a user if there is no room for another.

    Args:
        helper: The user's helper.
        user: The sandbox user; None is the backend's default.
        known: An upper bound of the running processes of each user, kept by this function: this
            worker counts those that it starts, and asks the helper only near the limit.
    """
    if known.get(user, PTY_PROCESSES_MAX) >= PTY_PROCESSES_MAX:
        try:
            listed = await helper.ask("list", [])
        except (NotAnAnswer, SandboxError):
            return
        polled = (entry for entry in listed.entries if entry.mode in ("start", "tty"))
        running = sorted(
            (entry for entry in polled if entry.state == "running"),
            key=lambda entry: max(entry.used_ms, entry.started_ms),
        )
        known[user] = len(running)
        victims = running[: len(running) - PTY_PROCESSES_PROTECTED_RECENT]
        if len(running) >= PTY_PROCESSES_MAX and victims:
            await end_command(helper, victims[0].key, "evicted")
            known[user] -= 1
    known[user] = known.get(user, 0) + 1
