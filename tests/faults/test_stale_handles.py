"""After a session was resumed elsewhere, a worker's stale handle of it changes nothing.

Other users' handles of the same session continue to work.

The tests call the activities as a late task would, on one worker or the other.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import cast

import pytest
from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.snapshot import RemoteSnapshotSpec
from local_backend import LocalProvider
from temporalio.testing import ActivityEnvironment

from sandbox_core.errors import SessionNotOpen
from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.storage.location import parse_location
from sandbox_core.storage.object_store import ObjectStore
from sandbox_core.storage.snapshots import SnapshotStore
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import JsonObject, apply_delta, dump_manifest, dump_snapshot
from sandbox_core.wire.naming import activity_name
from sandbox_core.wire.operations import Operation, RequestT, ResponseT
from sandbox_core.worker.runtime import ProviderRuntime

MANIFEST = dump_manifest(Manifest(entries={"hello.txt": File(content=b"hello\n")}))


class OneWorker:
    """The activities of one worker."""

    def __init__(self, runtime: ProviderRuntime) -> None:
        self._activities = [*runtime.activities()]

    async def perform(
        self, operation: Operation[RequestT, ResponseT], request: RequestT, body: bytes = b""
    ) -> JsonObject | bytes | None:
        """Run an operation as a task of its own."""
        (run,) = (
            fn for fn in self._activities if _name(fn) == activity_name("local", operation.name)
        )
        arguments = [request.dump(), body] if operation.takes_bytes else [request.dump()]
        environment = ActivityEnvironment()
        environment.info = replace(
            environment.info,
            started_time=datetime.now(timezone.utc),
            start_to_close_timeout=timedelta(seconds=30),
            activity_id=HANDLE,
        )
        return cast("JsonObject | bytes | None", await environment.run(run, *arguments))

    async def open(
        self, request: m.CreateSessionRequest | m.ResumeSessionRequest
    ) -> m.OpenSessionResponse:
        """Create or resume a session."""
        if isinstance(request, m.CreateSessionRequest):
            answer = await self.perform(ops.CREATE_SESSION, request)
        else:
            answer = await self.perform(ops.RESUME_SESSION, request)
        return m.OpenSessionResponse.model_validate(answer)

    async def write(self, ref: m.SessionRef, text: str) -> None:
        """Write the file."""
        await self.perform(ops.WRITE, m.WriteRequest(session=ref, path="hello.txt"), text.encode())

    async def read(self, ref: m.SessionRef) -> str:
        """Return the file."""
        content = await self.perform(ops.READ, m.ReadRequest(session=ref, path="hello.txt"))
        assert isinstance(content, bytes)
        return content.decode()


def _name(fn: object) -> str:
    return str(fn.__temporal_activity_definition.name)  # type: ignore[attr-defined]  # Temporal's


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[list[OneWorker]]:
    async with AsyncExitStack() as stack:
        started = []
        for number in range(2):
            store = SnapshotStore(ObjectStore(parse_location(str(tmp_path))))
            runtime = ProviderRuntime(LocalProvider(), snapshots=store)
            await stack.enter_async_context(runtime.active(f"agents@host#{number}"))
            started.append(OneWorker(runtime))
        yield started


async def create(worker: OneWorker) -> tuple[m.SessionRef, JsonObject]:
    """Create and start a session with epoch 1; return it, with its state."""
    snapshot = dump_snapshot(RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY))
    opened = await worker.open(
        m.CreateSessionRequest(create_key="key", epoch=1, manifest=MANIFEST, snapshot=snapshot)
    )
    state = apply_delta({"manifest": MANIFEST}, opened.state_delta)
    answer = await worker.perform(ops.START, m.StartRequest(session=opened.session))
    return opened.session, apply_delta(state, m.StateResponse.model_validate(answer).state_delta)


def root_of(state: JsonObject) -> str:
    manifest = state["manifest"]
    assert isinstance(manifest, dict)
    return str(manifest["root"])


HANDLE = "the workflow's"


def resumption(
    state: JsonObject, epoch: int, handle: str | None = HANDLE
) -> m.ResumeSessionRequest:
    return m.ResumeSessionRequest(
        state=state, epoch=epoch, started=True, sandbox_id=root_of(state), handle=handle
    )


async def delete(worker: OneWorker, ref: m.SessionRef, state: JsonObject) -> None:
    await worker.perform(ops.DELETE_SESSION, m.DeleteSessionRequest(session=ref, state=state))


class TestLateOperation:
    async def test_with_an_old_epoch_is_refused(self, pair: list[OneWorker]) -> None:
        """The session went to the other worker and came back."""
        one, other = pair
        old, state = await create(one)
        await other.open(resumption(state, 2))
        new = (await one.open(resumption(state, 3))).session
        await one.write(new, "new\n")
        with pytest.raises(SessionNotOpen):
            await one.write(old, "late\n")
        seen = await one.read(new)
        await delete(one, new, state)

        assert "new\n" == seen

    async def test_with_a_new_epoch_is_not_done_with_an_old_handle(
        self, pair: list[OneWorker]
    ) -> None:
        """Which may be one of a sandbox that was replaced."""
        one, other = pair
        old, state = await create(one)
        new = (await other.open(resumption(state, 2))).session
        with pytest.raises(SessionNotOpen):
            await one.read(new)
        seen = await one.read(old)
        await delete(other, new, state)

        assert "hello\n" == seen


class TestLateResume:
    async def test_does_not_replace_a_newer_handle(self, pair: list[OneWorker]) -> None:
        """The workflow has gone on with that one."""
        one, _ = pair
        _, state = await create(one)
        new = (await one.open(resumption(state, 3))).session
        await one.write(new, "new\n")
        with pytest.raises(SessionNotOpen):
            await one.open(resumption(state, 2))
        seen = await one.read(new)
        await delete(one, new, state)

        assert "new\n" == seen


class TestRepeatedResume:
    async def test_says_again_that_the_workspace_was_restored(self, pair: list[OneWorker]) -> None:
        """Its first answer was lost, and with it the only warning."""
        one, other = pair
        ref, state = await create(one)
        answer = await one.perform(ops.STOP, m.StopRequest(session=ref))
        state = apply_delta(state, m.StateResponse.model_validate(answer).state_delta)
        shutil.rmtree(root_of(state))
        first = await other.open(resumption(state, 2))
        again = await other.open(resumption(state, 2))
        seen = await other.read(again.session)
        await delete(other, again.session, state)

        assert "hello\n" == seen
        assert [True, True] == [first.restored, again.restored]


class TestAnotherHandle:
    async def test_joins_the_open_session(self, pair: list[OneWorker]) -> None:
        """It takes nothing from the first, and gets nothing of what that has made of its state."""
        one, _ = pair
        first, state = await create(one)
        answer = await one.open(resumption(state, 2, handle="another"))
        await one.write(first, "first\n")
        seen = [await one.read(ref) for ref in (first, answer.session)]
        await delete(one, answer.session, state)

        assert ["first\n"] * 2 == seen
        assert ({}, True, False) == (answer.state_delta, answer.started, answer.restored)
        with pytest.raises(SessionNotOpen):
            await one.read(first)

    async def test_joins_what_was_restored_in_place_of_its_sandbox(
        self, pair: list[OneWorker]
    ) -> None:
        """Or each would go on in a workspace of its own."""
        one, other = pair
        ref, state = await create(one)
        answer = await one.perform(ops.STOP, m.StopRequest(session=ref))
        state = apply_delta(state, m.StateResponse.model_validate(answer).state_delta)
        shutil.rmtree(root_of(state))
        first = await other.open(resumption(state, 2))
        second = await other.open(resumption(state, 3, handle="another"))
        await other.write(first.session, "first\n")
        seen = await other.read(second.session)
        await delete(other, second.session, state)

        assert "first\n" == seen
        assert first.sandbox_id == second.sandbox_id
        assert [True, True] == [first.restored, second.restored]

    async def test_is_not_late_when_the_first_comes_back_from_elsewhere(
        self, pair: list[OneWorker]
    ) -> None:
        one, other = pair
        _, state = await create(one)
        second = (await one.open(resumption(state, 2, handle="another"))).session
        await other.open(resumption(state, 3))
        first = (await one.open(resumption(state, 4))).session
        await one.write(second, "second\n")
        seen = await one.read(first)
        await delete(one, first, state)

        assert "second\n" == seen

    async def test_goes_on_when_the_first_has_shut_down(self, pair: list[OneWorker]) -> None:
        """The sandbox is shut down with the last of them."""
        one, _ = pair
        first, state = await create(one)
        second = (await one.open(resumption(state, 2, handle="another"))).session
        running = []
        for ref in (first, second):
            await one.perform(ops.SHUTDOWN, m.ShutdownRequest(session=ref))
            answer = await one.perform(ops.RUNNING, m.RunningRequest(session=second))
            running.append(m.RunningResponse.model_validate(answer).running)
        await delete(one, second, state)

        assert [True, False] == running
