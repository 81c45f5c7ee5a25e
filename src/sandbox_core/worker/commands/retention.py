"""What is kept of commands that have ended, and when the rest is looked for.

A result may be asked for again as long as its activity can be attempted again. Nobody tells when
that is over, so the newest records are kept, and all of an hour: longer than five attempts of five
minutes each, which is what the default options allow. Only their size shortens that. Of what is
removed a mark stays, so that a late attempt learns that the command must not be run again.

The helper does it when it is told to. This worker tells it so after a share of the commands, when
they have been answered, and the more rarely the more commands there were.
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
"""How many of the newest records are kept, however old they are."""

KEPT_S = 3600
"""How many seconds after the end of its command a record is kept."""

KEPT_BYTES = 256 * 1024 * 1024
"""How much output is kept, however young it is."""

KEPT_ALWAYS = 8
"""How many of the newest records are kept, however large they are."""

KEPT_MARKS = 10_000
"""How many marks are kept of records that are not."""

_EVERY = 64
"""After how many commands records are pruned again; a quarter of `KEPT_BYTES` does it as well."""


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
    """Take note of a command that has been answered, and prune records in the background if due."""
    if is_due(session, user, len(result.stdout) + len(result.stderr)):
        task = asyncio.create_task(prune(helper))
        _pruning.add(task)
        task.add_done_callback(_pruning.discard)


def is_due(session: SandboxSession, user: str | None, output: int = 0) -> bool:
    """Return whether records are to be pruned after one more command, with so much output."""
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
    """Have the helper drop the records that need not be kept."""
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
