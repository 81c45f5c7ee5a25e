"""The sessions that a worker holds: bounded, evicted when unused, and counted."""

from __future__ import annotations

import asyncio
import gc
from typing import cast
from weakref import WeakSet

import pytest
from agents.sandbox.session.sandbox_session import SandboxSession
from local_backend import LocalProvider
from support import running_worker, unique
from temporalio.client import Client
from temporalio.runtime import MetricBuffer, MetricBufferDurationFormat, Runtime, TelemetryConfig
from workflows.sessions import CreateMany

from sandbox_core.errors import SessionNotOpen
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.messages import Message
from sandbox_core.worker.call import Call
from sandbox_core.worker.handlers.table import HANDLERS
from sandbox_core.worker.sessions.pool import Client as SandboxClient
from sandbox_core.worker.sessions.pool import SessionPool

pytestmark = pytest.mark.any_sdk


def call_with(pool: SessionPool) -> Call:
    provider = LocalProvider()
    client = cast("SandboxClient", provider.create_client())
    return Call(provider=provider, client=client, pool=pool)


async def create(call: Call, key: str) -> m.OpenSessionResponse:
    opened = await HANDLERS[ops.CREATE_SESSION.name](
        call, m.CreateSessionRequest(create_key=key, epoch=1)
    )
    assert isinstance(opened, m.OpenSessionResponse)
    return opened


async def perform(call: Call, name: str, request: Message) -> None:
    await HANDLERS[name](call, request)


async def delete(call: Call, opened: m.OpenSessionResponse) -> None:
    await perform(call, ops.DELETE_SESSION.name, m.DeleteSessionRequest(session=opened.session))


class Closable:
    """What a session depends on, and closes with its handle."""

    def __init__(self, closed: asyncio.Event) -> None:
        self._closed = closed

    async def aclose(self) -> None:
        self._closed.set()


class TestPool:
    async def test_a_thousand_sessions_leave_nothing(self) -> None:
        pool = SessionPool()
        call = call_with(pool)
        alive: WeakSet[SandboxSession] = WeakSet()
        for number in range(1000):
            opened = await create(call, str(number))
            held = pool.find(opened.session.session_id)
            assert held is not None
            alive.add(held.session)
            del held
            await delete(call, opened)

        await asyncio.gather(*pool._closing)
        gc.collect()
        assert (0, {}, 0) == (len(pool), pool._locks, len(alive))

    async def test_beyond_the_limit_the_longest_unused_one_is_evicted(self) -> None:
        call = call_with(SessionPool(max_sessions=2))
        first, second = await create(call, "1"), await create(call, "2")
        await perform(call, ops.RUNNING.name, m.RunningRequest(session=first.session))

        third = await create(call, "3")

        with pytest.raises(SessionNotOpen):
            await perform(call, ops.RUNNING.name, m.RunningRequest(session=second.session))
        for opened in (first, third):
            await perform(call, ops.RUNNING.name, m.RunningRequest(session=opened.session))
            await delete(call, opened)

    async def test_one_that_is_not_used_is_evicted_by_the_next(self) -> None:
        call = call_with(SessionPool(max_idle_s=0))
        first = await create(call, "1")

        second = await create(call, "2")

        assert 1 == len(call.pool)
        with pytest.raises(SessionNotOpen):
            await perform(call, ops.RUNNING.name, m.RunningRequest(session=first.session))
        await delete(call, second)

    async def test_one_that_was_shut_down_is_evicted_when_it_is_used(self) -> None:
        """The sessions of some backends would make another sandbox."""
        call = call_with(SessionPool())
        opened = await create(call, "shut-down")
        await perform(call, ops.SHUTDOWN.name, m.ShutdownRequest(session=opened.session))
        held = len(call.pool)
        with pytest.raises(SessionNotOpen):
            await perform(call, ops.LS.name, m.LsRequest(session=opened.session, path="."))

        assert 1 == held
        assert 0 == len(call.pool)

    async def test_one_in_use_is_not_evicted(self) -> None:
        call = call_with(SessionPool(max_idle_s=0, max_sessions=1))
        first = await create(call, "1")
        async with call.pool.use(m.RunningRequest(session=first.session)):
            second = await create(call, "2")
            assert 2 == len(call.pool)
        for opened in (first, second):
            await delete(call, opened)

    async def test_one_that_is_not_used_is_evicted_without_another_and_its_handle_is_closed(
        self,
    ) -> None:
        pool = SessionPool(max_idle_s=0.2)
        call = call_with(pool)
        closed = asyncio.Event()
        async with pool.evicting():
            opened = await create(call, "1")
            held = pool.find(opened.session.session_id)
            assert held is not None
            held.session.dependencies.bind_factory(
                "acme", lambda _: Closable(closed), owns_result=True
            )
            await held.session.dependencies.require("acme")
            del held

            await asyncio.wait_for(closed.wait(), 20)

        assert 0 == len(pool)
        provider = cast("LocalProvider", call.provider)
        (sandbox_id,) = [opened.sandbox_id]
        assert sandbox_id is not None
        assert await provider.exists(provider.create_client(), sandbox_id)
        await provider.destroy(provider.create_client(), sandbox_id)

    async def test_what_is_held_is_closed_when_the_worker_stops(self) -> None:
        pool = SessionPool()
        async with pool.evicting():
            opened = await create(call_with(pool), "1")
            assert opened.sandbox_id is not None

        assert 0 == len(pool)
        provider = LocalProvider()
        await provider.destroy(provider.create_client(), opened.sandbox_id)


class TestOpening:
    async def test_is_for_one_at_a_time_however_many_wait(self) -> None:
        """Also for one that comes when the first is done and the second has not begun yet."""
        pool = SessionPool()
        inside, most = 0, 0

        async def open_it() -> None:
            nonlocal inside, most
            async with pool.opening("id"):
                inside += 1
                most = max(most, inside)
                for _ in range(5):
                    await asyncio.sleep(0)
                inside -= 1

        async def come_later(first: asyncio.Task[None]) -> None:
            await asyncio.wait({first})
            await open_it()

        first = asyncio.create_task(open_it())
        waiting = [asyncio.create_task(open_it()), asyncio.create_task(come_later(first))]
        await asyncio.gather(first, *waiting)

        assert 1 == most
        del first, waiting
        assert not pool._locks


class TestMetrics:
    async def test_say_how_many_sessions_are_open(self, temporal_address: str) -> None:
        buffer = MetricBuffer(10_000, MetricBufferDurationFormat.SECONDS)
        runtime = Runtime(telemetry=TelemetryConfig(metrics=buffer))
        client = await Client.connect(temporal_address, runtime=runtime)
        async with running_worker(client, CreateMany) as queue:
            await client.execute_workflow(CreateMany.run, 3, id=unique("metrics"), task_queue=queue)

        seen = [
            (update.attributes["provider"], update.attributes["task_queue"], update.value)
            for update in buffer.retrieve_updates()
            if "sandbox_core_open_sessions" == update.metric.name
        ]
        assert [("local", queue, value) for value in (1, 2, 3, 2, 1, 0)] == seen
