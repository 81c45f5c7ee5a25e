"""The handlers of all operations, by name."""

from __future__ import annotations

from sandbox_core.worker.handlers import (
    commands,
    files,
    inspect,
    lifecycle,
    names,
    skills,
    workspace,
)
from sandbox_core.worker.handlers.registry import handlers_of
from sandbox_core.worker.reaping import reaper

HANDLERS = handlers_of(lifecycle, commands, files, names, workspace, skills, inspect, reaper)
