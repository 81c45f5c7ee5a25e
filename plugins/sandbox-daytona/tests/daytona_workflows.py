"""Workflows that need Daytona's own options."""

from __future__ import annotations

from agents.extensions.sandbox.daytona import DaytonaSandboxClientOptions
from temporalio import workflow

from sandbox_core.workflow import temporal_sandbox_client


@workflow.defn
class CreateFromImage:
    """Creates a sandbox with the options that the README shows, and deletes it."""

    @workflow.run
    async def run(self) -> str | None:
        client = temporal_sandbox_client("daytona")
        session = await client.create(options=DaytonaSandboxClientOptions(image="python:3.12"))
        await client.delete(session)
        return getattr(session.state, "image", None)
