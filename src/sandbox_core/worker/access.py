"""What `SandboxPlugin(authorize=...)` is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class SandboxAccess:
    """An operation in a sandbox that its caller does not own."""

    provider: str
    operation: str
    """The operation's name, such as ``resume_session``; see the list of operations."""

    sandbox_id: str | None
    """The backend's id of the sandbox; None if the provider has none."""

    labels: Mapping[str, str]
    """The sandbox's labels; empty if it has none, or its provider does not support them.

    ``sandbox-core.workflow-id`` and ``sandbox-core.run-id`` name its owner.
    """

    namespace: str
    workflow_id: str | None
    """The caller; None for a standalone activity, such as those of ``sandbox-core exec``."""

    workflow_run_id: str | None
    workflow_type: str | None


Authorize: TypeAlias = Callable[[SandboxAccess], "bool | Awaitable[bool]"]
"""Returns whether the access is allowed; must not block. If it raises, it is asked again."""
