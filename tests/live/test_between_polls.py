"""What a process writes reaches those who follow its workflow while nobody polls it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from faults.harness import completed, line_of, workers
from live.following import seen, subscribed, written
from support import bytes_of, running_worker, scheduled_activities, unique
from temporalio.client import Client, WorkflowHandle
from workflows.live_output import PollsLater

from sandbox_core.live import LiveEvent, follow
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.commands import between_polls

STEPS = "for n in 1 2; do until test -e $n; do sleep 0.01; done; echo $n; done; "


@pytest.fixture
async def queue(temporal_client: Client, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setenv("TOKEN", "s3cr3t-0123456789")
    plugins = [SandboxPlugin(worker_env=["TOKEN"])]
    async with running_worker(temporal_client, PollsLater, plugins=plugins) as queue:
        yield queue


async def start(
    client: Client, queue: str, command: str, root: Path, *secrets: str
) -> WorkflowHandle[PollsLater, None]:
    return await client.start_workflow(
        PollsLater.run,
        args=[command, str(root), list(secrets)],
        id=unique("later"),
        task_queue=queue,
    )


async def polls(handle: WorkflowHandle[Any, Any]) -> int:
    names = scheduled_activities(await handle.fetch_history())
    return sum(name.endswith("pty_write_stdin") for name in names)


@pytest.mark.parametrize("then", ["poll", "terminate"])
async def test_output_comes_while_nobody_polls(
    temporal_client: Client, queue: str, tmp_path: Path, then: str
) -> None:
    last = "exit 3" if then == "poll" else "sleep 60"
    handle = await start(temporal_client, queue, f"echo begun; {STEPS} {last}", tmp_path)
    events: list[LiveEvent] = []
    steps = iter(("1", "2"))
    async for event in follow(temporal_client, handle.id):
        events.append(event)
        if event.kind == "output":
            assert 0 == await polls(handle)
            if step := next(steps, None):
                (tmp_path / step).touch()
            else:
                await handle.signal(PollsLater.go, then)

    (only,) = seen(events)
    assert {"output": b"begun\n1\n2\n"} == only.streams
    assert (3, 3 if then == "poll" else "terminated") == (only.pieces, only.end)
    assert [only] == seen(await subscribed(temporal_client, handle.id))
    assert not any(between_polls._published.values())


async def test_a_secret_is_redacted_between_polls(
    temporal_client: Client, queue: str, tmp_path: Path
) -> None:
    command = f"until test -e 0; do sleep 0.01; done; echo $TOKEN; {STEPS}"
    handle = await start(temporal_client, queue, command, tmp_path, "TOKEN")
    await completed(handle, "local-sandbox_pty_exec_start")
    (tmp_path / "0").touch()
    events: list[LiveEvent] = []
    async for event in follow(temporal_client, handle.id):
        events.append(event)
        if b"***\n" == written(events):
            (tmp_path / "1").touch()
            (tmp_path / "2").touch()
            await handle.signal(PollsLater.go, "poll")

    assert b"***\n1\n2\n" == written(events)
    assert b"s3cr3t-" not in bytes_of(await handle.fetch_history())


@pytest.mark.extended
async def test_each_byte_comes_once_though_the_worker_is_killed_between_polls(
    temporal_address: str, temporal_client: Client, tmp_path: Path
) -> None:
    command = f"seq 1 2000; echo $$ >pid; {STEPS} seq 2001 3000; exit 7"
    with workers(temporal_address, unique("later"), PollsLater) as fleet:
        first = await fleet.start()
        handle = await start(temporal_client, fleet.queue, command, tmp_path)
        await line_of(tmp_path / "pid")
        events: list[LiveEvent] = []
        async for event in follow(temporal_client, handle.id):
            events.append(event)
            shown = written(events)
            if shown.endswith(b"\n2000\n"):
                (tmp_path / "1").touch()
            if shown.endswith(b"\n1\n") and first.is_running():
                first.kill()
                (tmp_path / "2").touch()
                await fleet.start()
                await handle.signal(PollsLater.go, "poll")
        await handle.result()

        (only,) = seen(events)
        assert seen(events) == seen(await subscribed(temporal_client, handle.id))

    lines = [*range(1, 2001), 1, 2, *range(2001, 3001)]
    assert "".join(f"{n}\n" for n in lines).encode() == only.streams["output"]
    assert 7 == only.end


@pytest.mark.extended
async def test_a_process_that_never_stops_writing_costs_few_events(
    temporal_client: Client, queue: str, tmp_path: Path
) -> None:
    command = "until test -e 1; do echo line; sleep 0.02; done"
    handle = await start(temporal_client, queue, command, tmp_path)
    pieces, began = 0, 0.0
    async for event in follow(temporal_client, handle.id):
        if event.kind == "output":
            pieces += 1
            began = began or time.monotonic()
        if pieces == 8:
            break
    took, events = time.monotonic() - began, len((await handle.fetch_history()).events)
    await handle.signal(PollsLater.go, "terminate")
    await handle.result()

    assert took >= 6
    # Each piece is a signal and a workflow task; the rest is the start of the process.
    assert events <= 4 * (pieces + 1) + 20
