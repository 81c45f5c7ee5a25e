"""Decides which records of ended commands are kept, and when the helper prunes the rest.

A result may be asked for again as long as its activity can be attempted again. Nothing reports the
end of that time. So the newest records are kept, and all those of the last hour: longer than five
attempts of five minutes each, which the default options allow. Only their size shortens that. A
removed record leaves a mark, so that a late attempt learns that the command must not run again.

The helper prunes when it is asked to. This worker asks after some of the commands, once they have
been answered, and less often the more commands there were.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult

from sandbox_core.worker.commands.helper import Helper
from sandbox_core.worker.commands.protocol import NotAnAnswer

logger = logging.getLogger(__name__)

KEPT = 64
"""How many of the newest records are kept regardless of age."""

KEPT_S = 3600
"""How many seconds a record is kept after its command has ended."""

KEPT_BYTES = 256 * 1024 * 1024
"""How many bytes of output are kept regardless of age."""

KEPT_ALWAYS = 8
"""How many of the newest records are kept regardless of size."""

KEPT_MARKS = 10_000
"""How many marks of removed records are kept."""

_EVERY = 64
"""The fewest commands between two prunings, unless their output is a quarter of `KEPT_BYTES`."""


@dataclass
class _Counts:
    commands: int = 0
    pruned_at: int = -_EVERY  # Another worker may have left something: the first one prunes.
    output: int = 0


_counts: WeakKeyDictionary[SandboxSession, dict[str | None, _Counts]] = WeakKeyDictionary()
_pruning: set[asyncio.Task[None]] = set()


def after_command(
    helper: Helper, session: SandboxSession, user: str | None, result: ExecResult
) -> None:
    """Count an answered command, and prune records in the background if that is due."""
    if is_due(session, user, len(result.stdout) + len(result.stderr)):
        task = asyncio.create_task(prune(helper))
        _pruning.add(task)
        task.add_done_callback(_pruning.discard)


def is_due(session: SandboxSession, user: str | None, output: int = 0) -> bool:
    """Count one more command with `output` bytes; return whether to prune records now."""
    counts = _counts.setdefault(session, {}).setdefault(user, _Counts())
    since = counts.commands - counts.pruned_at
    counts.commands += 1
    counts.output += output
    if since < max(_EVERY, counts.pruned_at // 8) and counts.output < KEPT_BYTES // 4:
        return False
    counts.pruned_at = counts.commands
    counts.output = 0
    return True


async def prune(helper: Helper) -> None:
    """Make the helper drop the records that need not be kept."""
    try:
        await helper.ask(
            "prune",
            [
                ("keep", KEPT),
                ("keep_ms", KEPT_S * 1000),
                ("keep_bytes", KEPT_BYTES),
                ("keep_always", KEPT_ALWAYS),
                ("keep_gone", KEPT_MARKS),
            ],
        )
    except (SandboxError, NotAnAnswer) as error:
        logger.debug("the records of commands were not pruned: %s", error)
