"""The options and the state; importing this module registers both with the Agents SDK."""

from __future__ import annotations

from typing import Literal

from agents.sandbox.session import BaseSandboxClientOptions, SandboxSessionState
from pydantic import Field

from sandbox_core.providers import StrictOptions


class EchoSandboxClientOptions(StrictOptions, BaseSandboxClientOptions):
    """What a workflow can ask for when it creates a sandbox."""

    type: Literal["acme_echo"] = "acme_echo"
    prefix: str = Field(default="echo", pattern=r"^[a-z0-9]+$")
    """How the ids of the sandboxes begin."""


class EchoSandboxSessionState(SandboxSessionState):
    """What it takes to find a sandbox again."""

    type: Literal["acme_echo"] = "acme_echo"
    sandbox_id: str = Field(pattern=r"^[a-z0-9]+-[0-9a-f]+$")
    """The name of its directory."""
