"""What is kept of commands that have ended, and when the rest is looked for.

A result may be asked for again as long as its activity can be attempted again. Nobody tells when
that is over, so the newest records are kept, and all of an hour: longer than five attempts of five
minutes each, which is what the default options allow. Only their size shortens that. Of what is
removed an empty mark stays, so that a late attempt learns that the command must not be run again.

The sandbox does the work, after it has answered a command. It looks at every record that it keeps,
so this worker asks for it the more rarely the more commands there were: a fixed share of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult

KEPT = 64
"""How many of the newest records are kept, however old they are."""

KEPT_S = 3600
"""How many seconds after the end of its command a record is kept."""

KEPT_BYTES = 256 * 1024 * 1024
"""How much output is kept, however young it is."""

KEPT_ALWAYS = 8
"""How many of the newest records are kept, however large they are."""

_EVERY = 64
"""After how many commands records are pruned again; a quarter of `KEPT_BYTES` does it as well."""


@dataclass
class _Counts:
    commands: int = 0
    pruned_at: int = -_EVERY  # Another worker may have left something: the first one prunes.
    output: int = 0


_counts: WeakKeyDictionary[SandboxSession, dict[str, _Counts]] = WeakKeyDictionary()


def to_prune(session: SandboxSession, folder: str) -> str:
    """Return what the next command in `folder` is to keep when it has answered; "-" for all."""
    counts = _counts.setdefault(session, {}).setdefault(folder, _Counts())
    since = counts.commands - counts.pruned_at
    counts.commands += 1
    if since < max(_EVERY, counts.pruned_at // 8) and counts.output < KEPT_BYTES // 4:
        return "-"
    counts.pruned_at = counts.commands
    counts.output = 0
    return f"{KEPT} {KEPT_S} {KEPT_BYTES} {KEPT_ALWAYS}"


def add_output(session: SandboxSession, folder: str, result: ExecResult) -> None:
    """Take note of the output of a command in `folder`."""
    counts = _counts.setdefault(session, {}).setdefault(folder, _Counts())
    counts.output += len(result.stdout) + len(result.stderr)
