"""A worker's event loop is not blocked, and heartbeats continue where it is."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress

import pytest
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
    UnixLocalSandboxSession,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_session import SandboxSession
from support import attempts, running_worker, unique
from temporalio.client import Client
from workflows.steps import Outcome, Perform, Plan, Step

from sandbox_core.providers import SandboxClientProvider
from sandbox_core.wire import messages as m
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.handlers import files
from sandbox_core.workflow import convert


@pytest.fixture(autouse=True)
def _only_local(monkeypatch: pytest.MonkeyPatch) -> None:
    # To import a vendor's SDK blocks the loop for seconds.
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")


async def perform(client: Client, queue: str, plan: Plan) -> tuple[list[Outcome], list[int]]:
    """Return what became of the steps, and the attempts of the activities."""
    handle = await client.start_workflow(Perform.run, plan, id=unique("perform"), task_queue=queue)
    return await handle.result(), attempts(await handle.fetch_history())


class _BlockingSession(UnixLocalSandboxSession):
    async def running(self) -> bool:
        time.sleep(5)  # noqa: ASYNC251 - as an SDK does that computes, or waits for a socket
        return True


class _BlockingClient(UnixLocalSandboxClient):
    def _wrap_session(
        self, inner: BaseSandboxSession, *, instrumentation: Instrumentation | None = None
    ) -> SandboxSession:
        inner.__class__ = _BlockingSession
        return super()._wrap_session(inner, instrumentation=instrumentation)


class _BlockingProvider(SandboxClientProvider[UnixLocalSandboxClientOptions]):
    name = "blocking"
    summary = "Blocks the event loop for longer than a heartbeat timeout"
    api_version = 1
    options_type = UnixLocalSandboxClientOptions

    def create_client(self) -> UnixLocalSandboxClient:
        return _BlockingClient()


class TestHeartbeats:
    """How Temporal knows that a worker lives."""

    async def test_go_on_while_the_event_loop_is_blocked(self, temporal_client: Client) -> None:
        """An operation that takes too long in it is not attempted again."""
        plugins = [SandboxPlugin(providers=[_BlockingProvider()])]
        async with running_worker(temporal_client, Perform, plugins=plugins) as queue:
            plan = Plan([Step("running")], provider="blocking", heartbeat_s=3)
            outcomes, tried = await perform(temporal_client, queue, plan)

        assert [Outcome(text="True")] == outcomes
        assert {1} == set(tried)


class TestSpecialFiles:
    """FIFOs and devices, in the workspace and on the worker's disk."""

    async def test_are_refused_at_once_and_hold_nobody_up(self, temporal_client: Client) -> None:
        """By every operation that opens a file; the next one is answered."""
        steps = [
            Step("exec", ["mkfifo pipe && mknod zero c 1 5 && echo made"]),
            Step("read", ["pipe"]),
            Step("read", ["zero"]),
            Step("write", ["pipe"], data="text"),
            Step("extract", ["pipe"], data="text", options={"compression_scheme": "tar"}),
            Step("apply_patch", ["pipe"], data="@@\n-a\n+b\n"),
            Step("ls", ["pipe"]),
            Step("exec", ["echo alive"]),
        ]
        started = time.monotonic()
        async with running_worker(temporal_client, Perform) as queue:
            (made, *refused, alive), tried = await perform(temporal_client, queue, Plan(steps))

        assert time.monotonic() - started < 30
        assert "made" in made.text
        read = ("WorkspaceArchiveReadError", "Not a regular file")
        assert [read] * 2 == [(e.error, e.text.rpartition(": ")[2]) for e in refused[:2]]
        assert [] == [each for each in refused if each], refused
        assert "alive" in alive.text
        assert {1} == set(tried)


class TestManifests:
    """A manifest of many small files."""

    async def test_leaves_the_loop_free_while_it_is_applied(self, temporal_client: Client) -> None:
        """The SDK compares each file with all others, without a break."""
        async with running_worker(temporal_client, Perform) as queue:
            watching = asyncio.create_task(_longest_block_s())
            plan = Plan([Step("exec", ["ls | wc -l"])], files=1500)
            outcomes, tried = await perform(temporal_client, queue, plan)
            watching.cancel()
            blocked_s = await watching

        assert [Outcome(text="1500\n")] == outcomes
        assert {1} == set(tried)
        assert blocked_s < 3


async def _longest_block_s() -> float:
    """Return for how long the event loop was blocked at most, until this is cancelled."""
    longest, last = 0.0, time.monotonic()
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(0.02)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
    return longest


class TestListings:
    """A directory of very many files."""

    async def test_is_listed_unless_it_is_too_long_to_decode(
        self, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A workflow must decode it within two seconds, or its task fails over and over again."""
        monkeypatch.setattr(files, "MAX_ENTRIES", 3000)  # Many take a busy machine too long.
        steps = [
            Step("exec", ["mkdir many && cd many && seq 1 3000 | xargs touch"]),
            Step("ls", ["many"]),
            Step("exec", ["cd many && seq 3001 4000 | xargs touch"]),
            Step("ls", ["many"]),
        ]
        async with running_worker(temporal_client, Perform) as queue:
            (_, long, _, too_long), tried = await perform(temporal_client, queue, Plan(steps))

        assert Outcome(text="3000") == long
        assert (
            Outcome(
                error="InvalidRequest",
                text=(
                    "ls 'many': it has 4,000 entries, more than the 3,000 that a workflow "
                    "can process. List it with exec, for example with `ls -f many | head`, or "
                    "list its subdirectories."
                ),
            )
            == too_long
        )
        assert {1} == set(tried)

    def test_the_longest_takes_a_workflow_less_than_it_has(self) -> None:
        """Of the two seconds that Temporal gives it; on a machine that is not busy."""
        entry = m.DirectoryEntry(
            path="/workspace/many/1234",
            kind="file",
            owner="root",
            group="root",
            size=0,
            permissions={"owner": 6, "group": 4, "other": 4, "directory": False},
        )
        sent = json.dumps(m.LsResponse(entries=(entry,) * files.MAX_ENTRIES).dump())
        started = time.thread_time()

        listing = m.LsResponse.model_validate(json.loads(sent))
        entries = [convert.file_entry(each) for each in listing.entries]

        assert time.thread_time() - started < 2
        assert files.MAX_ENTRIES == len(entries)
