"""A workflow that passes arguments of other types than it should."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from temporalio import workflow
from workflows.sessions import new_session

from sandbox_core.errors import SandboxCoreError
from sandbox_core.workflow import temporal_sandbox_client


@workflow.defn
class WrongTypes:
    """Reports what it is told of each mistake; an error of another kind fails its task."""

    @workflow.run
    async def run(self, provider: str) -> list[str]:
        client: Any = temporal_sandbox_client(provider)
        told = []
        async with new_session(provider) as opened:
            session: Any = opened

            async def parsed() -> None:
                client.deserialize_session_state("state")

            async def named() -> None:
                wrong: Any = None
                temporal_sandbox_client(wrong)

            mistakes: list[Callable[[], Awaitable[object]]] = [
                lambda: session.write(Path("file"), b"bytes"),
                lambda: session.write(Path("file"), "text"),
                lambda: session.read(5),
                lambda: client.create(manifest={"root": "/x"}),
                lambda: client.create(snapshot="name"),
                parsed,
                named,
            ]
            for mistake in mistakes:
                try:
                    await mistake()
                except SandboxCoreError as error:  # noqa: PERF203 - each is told of
                    told.append(str(error))
        return told
