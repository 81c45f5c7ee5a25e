"""The hook that a provider's module implements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions

    from sandbox_core.providers.contract import SandboxClientProvider

PROJECT = "sandbox_core"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin's module as the implementation of a sandbox-core hook."""


@hookspec
def sandbox_client_provider() -> SandboxClientProvider[BaseSandboxClientOptions]:  # type: ignore[empty-body]  # a hook has none
    """Return the module's provider; called once for each worker."""
