"""The workflow of the chaos demo: runs a command that counts how often it has run."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from sandbox_core.wire.agents_models import dump_state
from sandbox_core.workflow import temporal_sandbox_client

LINES = 7
HEARTBEAT_TIMEOUT = timedelta(seconds=2)
COMMAND = (
    f"echo run >> counter; n=0; "
    f"while [ $n -lt {LINES} ]; do n=$((n + 1)); echo line $n; sleep 1; done"
)

_CONFIG = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=1),
    schedule_to_start_timeout=timedelta(seconds=20),
    heartbeat_timeout=HEARTBEAT_TIMEOUT,
)


@dataclass(frozen=True, kw_only=True)
class CountResult:
    """The command's output and its counter.

    `session_state` is the state of the deleted session, as JSON.
    """

    output: str
    exit_code: int
    counter: str
    session_state: str


@workflow.defn
class CountRuns:
    """Runs the command in a sandbox."""

    @workflow.run
    async def run(self, provider: str) -> CountResult:
        """Run the command, and delete the sandbox even if that fails."""
        client = temporal_sandbox_client(provider, _CONFIG)
        session = await client.create()
        try:
            await session.start()
            ran = await session.exec(COMMAND)
            counter = (await session.read(Path("counter"))).read()
            return CountResult(
                output=(ran.stdout + ran.stderr).decode("utf-8", errors="replace"),
                exit_code=ran.exit_code,
                counter=counter.decode("utf-8", errors="replace"),
                session_state=json.dumps(dump_state(session.state)),
            )
        finally:
            # Shielded, so that a cancelled workflow cleans up.
            await asyncio.shield(client.delete(session))
