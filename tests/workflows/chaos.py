"""Workflows for the chaos tests: one command that counts, and many that write lines."""

from __future__ import annotations

import asyncio
import io
import random
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path

from agents.sandbox import Manifest
from agents.sandbox.manifest import Environment
from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityConfig

from sandbox_core.workflow import temporal_sandbox_client

SESSION = "SANDBOX_CHAOS"
"""The variable that every process of a session has, with the workflow's id."""


@dataclass(kw_only=True)
class Patience:
    """How soon a dead worker is given up, and how often an operation is attempted."""

    heartbeat_s: float = 2.0
    schedule_to_start_s: float = 2.0
    attempts: int = 5

    def config(self) -> ActivityConfig:
        """Return the options of the activities."""
        return ActivityConfig(
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=timedelta(seconds=self.heartbeat_s),
            schedule_to_start_timeout=timedelta(seconds=self.schedule_to_start_s),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=500),
                maximum_interval=timedelta(seconds=2),
                maximum_attempts=self.attempts,
            ),
        )


@dataclass(kw_only=True)
class Count:
    """A command that counts its runs, and where."""

    command: str
    root: str
    patience: Patience = field(default_factory=Patience)


@workflow.defn
class RunCounted:
    """Runs one command and returns what it wrote."""

    @workflow.run
    async def run(self, count: Count) -> str:
        client = temporal_sandbox_client("local", count.patience.config())
        session = await client.create(manifest=Manifest(root=count.root))
        try:
            await session.start()
            return (await session.exec(count.command)).stdout.decode()
        finally:
            await asyncio.shield(client.delete(session))


@dataclass(kw_only=True)
class Lines:
    """How many operations, of which the seed chooses the kinds; most of them append a line."""

    seed: int
    operations: int = 20
    provider: str = "local"
    local_activities: bool = False
    # All workers may be away for as long as a busy machine takes to start others.
    patience: Patience = field(
        default_factory=lambda: Patience(heartbeat_s=1, schedule_to_start_s=120, attempts=50)
    )


@dataclass(kw_only=True)
class Written:
    """What is in the log at the end, what should be, and which answers were wrong."""

    log: str
    expected: str
    wrong: list[str]
    session_id: str


@workflow.defn
class WriteLines:
    """Appends numbered lines to a log in its sandbox, in several ways, and deletes the sandbox."""

    @workflow.run
    async def run(self, lines: Lines) -> Written:
        self._expected, self._wrong = "", list[str]()
        client = temporal_sandbox_client(
            lines.provider, lines.patience.config(), local_activities=lines.local_activities
        )
        environment = Environment(value={SESSION: workflow.info().workflow_id})
        session = await client.create(manifest=Manifest(environment=environment))
        try:
            await session.start()
            choice = random.Random(lines.seed)
            for number in range(lines.operations):
                kinds = (self._exec, self._execs, self._process, self._write, self._read)
                kind = choice.choice(kinds)
                await kind(session, number)
            log = (await session.read(Path("log"))).read().decode()
        finally:
            await asyncio.shield(client.delete(session))
        return Written(
            log=log,
            expected=self._expected,
            wrong=self._wrong,
            session_id=str(session.state.session_id),
        )

    async def _exec(self, session: SandboxSession, number: int) -> None:
        ran = await session.exec(f"echo {number} >>log; sleep 0.2; echo wrote {number}; exit 3")
        self._expected += f"{number}\n"
        self._check(number, f"wrote {number}\n 3", f"{ran.stdout.decode()} {ran.exit_code}")

    async def _execs(self, session: SandboxSession, number: int) -> None:
        """As local activities they are in one workflow task."""
        for n in range(5):
            ran = await session.exec(f"echo {number}.{n} >>log; sleep 0.05; echo wrote {n}")
            self._expected += f"{number}.{n}\n"
            self._check(number, f"wrote {n}\n", ran.stdout.decode())

    async def _process(self, session: SandboxSession, number: int) -> None:
        """The output comes in pieces, each of which is delivered once."""
        update = await session.pty_exec_start(
            f"for n in 1 2 3; do echo {number}.$n >>log; echo wrote $n; sleep 0.1; done; exit 3",
            yield_time_s=0.25,
        )
        output = update.output
        while update.process_id is not None:
            update = await session.pty_write_stdin(
                session_id=update.process_id, chars="", yield_time_s=0.25
            )
            output += update.output
        self._expected += "".join(f"{number}.{n}\n" for n in (1, 2, 3))
        self._check(
            number, "wrote 1\nwrote 2\nwrote 3\n 3", f"{output.decode()} {update.exit_code}"
        )

    async def _write(self, session: SandboxSession, number: int) -> None:
        """A file is written whole, and a command finds it."""
        line = f"{number} " + "x" * 1000 + "\n"
        await session.write(Path(f"file-{number}"), io.BytesIO(line.encode()))
        ran = await session.exec(f"cat file-{number} >>log")
        self._expected += line
        self._check(number, "exit code 0", f"exit code {ran.exit_code}")

    async def _read(self, session: SandboxSession, number: int) -> None:
        """What was appended so far is there."""
        await session.exec(f"echo {number} >>log")
        self._expected += f"{number}\n"
        log = (await session.read(Path("log"))).read().decode()
        self._check(number, self._expected, log)

    def _check(self, number: int, expected: str, actual: str) -> None:
        if expected != actual:
            self._wrong.append(f"operation {number}: {difference(expected, actual)}")


def difference(expected: str, actual: str) -> str:
    """Return the first lines that are not the same."""
    pairs = zip_longest(expected.splitlines(keepends=True), actual.splitlines(keepends=True))
    line, (first, second) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"line {line}: expected {str(first)[:40]!r}, got {str(second)[:40]!r}"
