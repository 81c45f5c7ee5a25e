"""Sessions of each backend, and the functions of a worker's handlers that run commands in them."""

from __future__ import annotations

import dataclasses
import inspect
import shlex
import uuid
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult
from temporalio.common import RetryPolicy
from temporalio.testing import ActivityEnvironment

from sandbox_core.providers.registry import Provider
from sandbox_core.wire import messages as m
from sandbox_core.worker.commands import binaries, closing, processes, run
from sandbox_core.worker.commands.helper import Helper, helper_for
from sandbox_core.worker.commands.install import BASES, state_id
from sandbox_core.worker.commands.protocol import Answer, Field

OFF = "SANDBOX_CORE_HELPER=off"


def turn_helper_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn the helper off where no worker runs, which would do it."""
    monkeypatch.setattr(binaries, "_why_off", ContextVar("off", default=OFF))


REF = m.SessionRef(session_id="unused", epoch=1)


@dataclass
class Box:
    """A session, and one worker's view of what runs in it."""

    provider: Provider
    session: SandboxSession

    @property
    def root(self) -> str:
        return self.session.state.manifest.root

    async def plain(self, *words: str, shell: bool | list[str] = True) -> ExecResult:
        """What the backend itself makes of a command."""
        return await self.session.exec(*words, shell=shell, timeout=20)

    async def text(self, command: str) -> str:
        """What a plain command prints."""
        return (await self.session.exec(command)).stdout.decode()

    async def line(self, path: str) -> str:
        """The first line of a file of the workspace, once it is there; in one call."""
        path = shlex.quote(path)
        return await self.text(f"until [ -s {path} ]; do sleep 0.01; done; cat {path}")

    async def run(self, request: m.ExecRequest) -> ExecResult:
        return (await run.run(self.provider, self.session, request)).result

    async def exec(self, *words: str, timeout: float | None = None) -> ExecResult:
        """Run a command under the helper."""
        return await self.run(command(*words, timeout=timeout))

    async def start(self, request: m.PtyExecStartRequest) -> Polling:
        polled = await processes.start(self.provider, self.session, request)
        return Polling(box=self, number=polled.update.process_id, last=polled)

    async def terminate_all(self) -> None:
        await closing.terminate_all(self.provider, self.session)

    async def forget(self) -> bool:
        return await closing.forget(self.provider, self.session)

    async def helper(self) -> Helper:
        return await helper_for(self.provider, self.session)

    async def ask(self, verb: str, *fields: Field) -> Answer:
        """Ask the helper itself."""
        return await (await self.helper()).ask(verb, fields)

    async def states(self) -> dict[str, str]:
        """The state of each command that there is a record of, by its key."""
        return {entry.key: entry.state for entry in (await self.ask("list")).entries}

    def folder(self) -> Path | None:
        """Where the helper's state is on this host, if it is there."""
        found = (base.glob(f".sandbox-*-{state_id(self.session)}") for base in map(Path, BASES))
        return next((path for paths in found for path in paths), None)


@dataclass
class Polling:
    """A process, polled by somebody who remembers how much of it was delivered."""

    box: Box
    number: int | None
    last: processes.Polled
    pieces: list[str] = field(default_factory=list)

    @property
    def update(self) -> PtyExecUpdate:
        return self.last.update

    async def poll(self, chars: str = "", wait: float | None = None) -> PtyExecUpdate:
        """Poll from where the last answer ended."""
        self.last = await self.ask(polling(self.number, chars, offset=self.last.offset, wait=wait))
        return self.last.update

    async def ask(self, request: m.PtyWriteStdinRequest) -> processes.Polled:
        return await processes.write(self.box.provider, self.box.session, request)

    async def to_the_end(self) -> list[str]:
        """Each piece of output, as it is polled to the end."""
        pieces = [self.update.output.decode()]
        while self.update.process_id is not None:
            pieces.append((await self.poll()).output.decode())
        return pieces


def command(
    *words: str,
    timeout: float | None = None,
    shell: bool | Sequence[str] = True,
    operation_id: str | None = None,
) -> m.ExecRequest:
    return m.ExecRequest(
        session=REF,
        operation_id=operation_id or uuid.uuid4().hex,
        command=words,
        timeout=timeout,
        shell=shell if isinstance(shell, bool) else tuple(shell),
    )


def starting(
    *words: str,
    wait: float = 0.25,
    tokens: int | None = None,
    operation_id: str | None = None,
    tty: bool = False,
) -> m.PtyExecStartRequest:
    return m.PtyExecStartRequest(
        session=REF,
        operation_id=operation_id or uuid.uuid4().hex,
        command=words,
        yield_time_s=wait,
        max_output_tokens=tokens,
        tty=tty,
    )


def polling(
    number: int | None, chars: str = "", *, offset: int | None = 0, wait: float | None = None
) -> m.PtyWriteStdinRequest:
    return m.PtyWriteStdinRequest(
        session=REF,
        operation_id=uuid.uuid4().hex,
        process_id=number or 0,
        chars=chars,
        offset=offset or 0,
        yield_time_s=wait,
    )


def seen(result: ExecResult) -> tuple[bytes, bytes, int]:
    return result.stdout, result.stderr, result.exit_code


def second_attempt(*told: str) -> ActivityEnvironment:
    """Where an activity runs for the last time that was attempted before, and what that told."""
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(
        environment.info,
        attempt=2,
        heartbeat_details=list(told),
        retry_policy=RetryPolicy(maximum_attempts=2),
    )
    return environment


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent(pid: int) -> int:
    """The process that is the parent of another, such as a command's keeper."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def of_any_backend(kind: type) -> type:
    """Return a class of those tests of `kind` that ask for a `box`, whichever that is."""
    tests = {
        name: value
        for name, value in vars(kind).items()
        if not name.startswith("test_") or "box" in inspect.signature(value).parameters
    }
    del tests["__dict__"], tests["__weakref__"]
    return type(kind.__name__, (), tests)
