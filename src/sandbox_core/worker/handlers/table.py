"""The handlers of all operations, by name."""

from __future__ import annotations

from sandbox_core.worker.handlers import (
    commands,
    files,
    inspect,
    lifecycle,
    names,
    reap,
    skills,
    workspace,
)
from sandbox_core.worker.handlers.registry import handlers_of

HANDLERS = handlers_of(lifecycle, commands, files, names, workspace, skills, inspect, reap)
