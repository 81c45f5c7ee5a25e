"""Files are moved, compared and created by name, with every version of the Agents SDK."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from agents.sandbox.errors import ExecNonZeroError, SandboxError
from local_backend import LocalProvider
from support import running_worker, scheduled_activities, unique
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment
from workflows.names import EXPECTED, NamesOfFiles

from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.naming import split_activity_name
from sandbox_core.worker.call import Call
from sandbox_core.worker.handlers.table import HANDLERS
from sandbox_core.worker.sessions.pool import Client as SandboxClient


async def test_each_answer_is_one_activity_and_what_the_sdk_answers(
    temporal_client: Client,
) -> None:
    async with running_worker(temporal_client, NamesOfFiles) as queue:
        handle = await temporal_client.start_workflow(
            NamesOfFiles.run, "local", id=unique("names"), task_queue=queue
        )
        assert EXPECTED == await handle.result()
        history = await handle.fetch_history()

    performed = Counter(
        pair[1]
        for name in scheduled_activities(history)
        if (pair := split_activity_name(name)) is not None
    )
    assert (8, 8) == (performed["move"], performed["same_file"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """An open session, and how its operations are performed."""

    call: Call
    ref: m.SessionRef
    root: Path
    """The workspace, on this host."""

    async def attempt(self, number: int, request: m.Message, body: bytes = b"") -> object:
        """Perform an operation as this attempt of its activity."""
        (row,) = (row for row in ops.operations() if row.request is type(request))
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(environment.info, attempt=number)
        return await environment.run(HANDLERS[row.name], self.call, request, body)

    async def write(self, path: str, content: bytes) -> None:
        await self.attempt(1, m.WriteRequest(session=self.ref, path=path), content)

    async def read(self, path: str) -> object:
        return await self.attempt(1, m.ReadRequest(session=self.ref, path=path))


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    provider = LocalProvider()
    call = Call(provider=provider, client=cast("SandboxClient", provider.create_client()))
    create = m.CreateSessionRequest(create_key="names", epoch=1)
    made = await ActivityEnvironment().run(HANDLERS["create_session"], call, create)
    assert isinstance(made, m.OpenSessionResponse)
    assert made.sandbox_id is not None
    session = Opened(call=call, ref=made.session, root=Path(made.sandbox_id))
    await session.attempt(1, m.StartRequest(session=session.ref))
    yield session
    await session.attempt(1, m.DeleteSessionRequest(session=session.ref))


class TestSecondAttempt:
    """One whose predecessor's answer was lost."""

    async def test_of_a_completed_move_succeeds(self, opened: Opened) -> None:
        await opened.write("a.txt", b"a")
        move = m.MoveRequest(session=opened.ref, source="a.txt", destination="b.txt")

        await opened.attempt(1, move)
        await opened.attempt(2, move)

        assert b"a" == await opened.read("b.txt")

    async def test_of_a_move_of_nothing_is_an_error(self, opened: Opened) -> None:
        """The first says so for good: at the second, `b.txt` would be what was moved."""
        await opened.write("b.txt", b"b")
        move = m.MoveRequest(session=opened.ref, source="a.txt", destination="b.txt")

        with pytest.raises(ExecNonZeroError) as raised:
            await opened.attempt(1, move)

        assert raised.value.retryable is False

    async def test_of_a_completed_create_succeeds(self, opened: Opened) -> None:
        write = m.WriteRequest(session=opened.ref, path="new.txt", new=True)

        await opened.attempt(1, write, b"new")
        await opened.attempt(2, write, b"new")

        with pytest.raises(FileExistsError):
            await opened.attempt(1, write, b"new")

    async def test_of_a_create_over_another_file_is_an_error(self, opened: Opened) -> None:
        await opened.write("new.txt", b"old")
        write = m.WriteRequest(session=opened.ref, path="new.txt", new=True)

        with pytest.raises(FileExistsError):
            await opened.attempt(2, write, b"new")

        assert b"old" == await opened.read("new.txt")

    async def test_of_a_removal_that_failed_is_an_error(self, opened: Opened) -> None:
        """A link that leads nowhere is there although what it leads to is not."""
        link = opened.root / "link"
        link.symlink_to("nowhere")
        remove = m.RmRequest(session=opened.ref, path="link", user="nobody-has-this-name")

        with pytest.raises(SandboxError):
            await opened.attempt(2, remove)

        assert link.is_symlink()

    async def test_of_a_completed_removal_succeeds(self, opened: Opened) -> None:
        (opened.root / "link").symlink_to("nowhere")
        remove = m.RmRequest(session=opened.ref, path="link")

        await opened.attempt(1, remove)
        await opened.attempt(2, remove)

        assert not (opened.root / "link").is_symlink()
