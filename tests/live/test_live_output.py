"""What commands write reaches those who follow a workflow while it runs: each byte once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from faults.harness import line_of, workers
from live.following import followed, seen, subscribed, with_plugins, written
from support import bytes_of, running_worker, unique
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.workflow_streams import WorkflowStreamClient
from workflows.live_output import LiveJob, OneLiveSession, RunLive, RunLiveWithStream

from sandbox_core.errors import InvalidRequest
from sandbox_core.live import follow
from sandbox_core.wire.live_output import PUBLISH_SIGNAL, TOPIC, publisher_id
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.commands import live as publishing
from sandbox_core.workflow import LiveOutput


async def start(
    client: Client, queue: str, job: LiveJob, workflow: str = "RunWatched"
) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(
        workflow, job, id=unique("live"), task_queue=queue, result_type=type(None)
    )


async def signals(handle: WorkflowHandle[Any, Any]) -> int:
    return sum(
        event.workflow_execution_signaled_event_attributes.signal_name == PUBLISH_SIGNAL
        for event in (await handle.fetch_history()).events
    )


@pytest.fixture
async def queue(temporal_client: Client, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setenv("TOKEN", "s3cr3t-0123456789")
    plugins = [SandboxPlugin(worker_env=["TOKEN"])]
    workflows = (RunLive, RunLiveWithStream)
    async with running_worker(temporal_client, *workflows, plugins=plugins) as queue:
        yield queue


async def test_output_comes_while_the_command_runs(
    temporal_client: Client, queue: str, tmp_path: Path
) -> None:
    command = "echo out; echo err >&2; while ! test -e go; do sleep 0.01; done; printf end; exit 3"
    handle = await start(temporal_client, queue, LiveJob([command], str(tmp_path)))
    events = []
    async for event in follow(temporal_client, handle.id):
        events.append(event)
        if {b"out", b"err"} == set(written(events).split()):
            (tmp_path / "go").touch()
    await handle.result()

    (whole,) = seen(events)
    assert {"stdout": b"out\nend", "stderr": b"err\n"} == whole.streams
    assert (3, []) == (whole.end, whole.dropped)
    assert command[:50] == whole.command[:50]
    assert seen(events) == seen(await subscribed(temporal_client, handle.id))


@pytest.mark.parametrize("process", [False, True], ids=["exec", "process"])
async def test_a_short_command_costs_no_event(
    temporal_client: Client,
    queue: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    process: bool,
) -> None:
    monkeypatch.setattr(publishing, "FIRST_S", 100)  # On the busiest machine, each is short.
    job = LiveJob(["echo hi; exit 1", "printf '\\377'", "true"], str(tmp_path), process=process)
    handle = await start(temporal_client, queue, job)
    await handle.result()
    stream = "output" if process else "stdout"

    first, second, third = seen(await followed(temporal_client, handle.id))

    # The result of a process is text, in which the SDK replaces what is not UTF-8.
    assert (1 if process else 0) == await signals(handle)
    assert ({stream: b"hi\n"}, 1) == (first.streams, first.end)
    assert {stream: b"\xff"} == second.streams
    assert ({}, 0) == (third.streams, third.end)
    assert [first, second, third] == seen(await subscribed(temporal_client, handle.id))


async def test_without_live_output_the_output_comes_with_the_end(
    temporal_client: Client, queue: str, tmp_path: Path
) -> None:
    job = LiveJob(["echo hi; echo oh >&2; sleep 0.4"], str(tmp_path), live=False)
    handle = await start(temporal_client, queue, job)
    await handle.result()

    (only,) = seen(await followed(temporal_client, handle.id))

    assert {"stdout": b"hi\n", "stderr": b"oh\n"} == only.streams
    assert 0 == await signals(handle)
    assert b"max_bytes" not in bytes_of(await handle.fetch_history()).partition(b"create_key")[2]


async def test_one_session_of_a_client_is_published_and_the_others_are_not(
    temporal_client: Client, tmp_path: Path
) -> None:
    """From when its own setting says so, to when it says otherwise."""
    async with running_worker(temporal_client, OneLiveSession) as queue:
        handle = await temporal_client.start_workflow(
            OneLiveSession.run, str(tmp_path), id=unique("live"), task_queue=queue
        )
        refused = await handle.result()

        begun, process, resumed = seen(await subscribed(temporal_client, handle.id))
        everything = seen(await followed(temporal_client, handle.id))

    assert "live_output is a LiveOutput, not bool." == refused
    assert ("echo begun; sleep 0.5", {"stdout": b"begun\n"}) == (begun.command, begun.streams)
    # It was started before the setting was taken back.
    assert {"output": b"one\ntwo\n"} == process.streams
    assert {"stdout": b"resumed\n"} == resumed.streams
    assert {"echo other; sleep 0.5", "echo before", "echo after"} == {
        each.command for each in everything
    } - {begun.command, process.command, resumed.command}
    assert 0 < await signals(handle)


MANY = "seq 1 20000; echo $$ >pid; until test -e go; do sleep 0.05; done; seq 20001 30000; exit 7"
WHOLE = "".join(f"{n}\n" for n in range(1, 30001)).encode()


async def test_what_is_not_made_like_our_signals_is_no_output(
    temporal_client: Client, queue: str, tmp_path: Path
) -> None:
    """Whoever may signal the workflow may send anything."""
    command = "while ! test -e go; do sleep 0.01; done; echo out"
    job = LiveJob([command], str(tmp_path), live=False)
    handle = await start(temporal_client, queue, job)
    mistakes: list[object] = [[{}], [{"data": "!"}], [{"data": "AAAA"}], "moon", None]
    for number, items in enumerate(mistakes):
        publisher = publisher_id("moon", "stdout")
        signal = {"publisher_id": publisher, "sequence": number, "items": items}
        await handle.signal(PUBLISH_SIGNAL, signal)
    (tmp_path / "go").touch()
    await handle.result()

    (whole,) = seen([event async for event in follow(temporal_client, handle.id)])
    assert ({"stdout": b"out\n"}, 0) == (whole.streams, whole.end)


@pytest.mark.parametrize(
    "process", [False, pytest.param(True, marks=pytest.mark.extended)], ids=["exec", "process"]
)
async def test_each_byte_comes_once_though_the_worker_is_killed(
    temporal_address: str, temporal_client: Client, tmp_path: Path, process: bool
) -> None:
    with workers(temporal_address, unique("live"), RunLive) as fleet:
        first = await fleet.start()
        job = LiveJob([MANY], str(tmp_path), process=process, max_bytes=1024**2)
        handle = await start(temporal_client, fleet.queue, job)
        await line_of(tmp_path / "pid")
        events, published = [], 0
        async for event in follow(temporal_client, handle.id):
            events.append(event)
            published += event.kind == "output"
            if first.is_running() and published:
                first.kill()
                await fleet.start()
                (tmp_path / "go").touch()
        await handle.result()

        (only,) = seen(events)
        assert ({"output" if process else "stdout": WHOLE}, 7) == (only.streams, only.end)
        assert only.pieces > 2
        # Also for those who read the stream itself.
        assert seen(events) == seen(await subscribed(temporal_client, handle.id))


async def test_five_megabytes(
    temporal_client: Client, queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of bytes that are not UTF-8, in a process of which 8 MiB are kept."""
    monkeypatch.setattr(publishing, "LAST_S", 100)  # A busy machine takes long to publish them.
    data = bytes(range(256)) * 20_000
    (tmp_path / "data").write_bytes(data)
    command = "cat data; sleep 0.5"
    job = LiveJob([command], str(tmp_path), process=True, max_bytes=8 * 1024**2)
    handle = await start(temporal_client, queue, job)
    await handle.result()

    # The result, too, is large: it is in the workers' storage.
    reader = with_plugins(temporal_client, SandboxPlugin())
    (only,) = seen(await followed(reader, handle.id))

    assert data == only.streams["output"]
    assert ([], 0) == (only.dropped, only.end)


@pytest.mark.parametrize("process", [False, True], ids=["exec", "process"])
async def test_a_command_publishes_no_more_than_it_may(
    temporal_client: Client, queue: str, tmp_path: Path, process: bool
) -> None:
    job = LiveJob(["seq 1 5000; sleep 0.5; seq 1 5000"], str(tmp_path), process, max_bytes=10_000)
    handle = await start(temporal_client, queue, job)
    await handle.result()
    stream = "output" if process else "stdout"

    (only,) = seen(await followed(temporal_client, handle.id))

    assert 10_000 == len(only.streams[stream])
    assert ([(stream, 10_000, None)], 0) == (only.dropped, only.end)
    assert seen(await subscribed(temporal_client, handle.id)) == [only]


@pytest.mark.parametrize("process", [False, True], ids=["exec", "process"])
async def test_a_secret_in_two_pieces_is_redacted(
    temporal_client: Client, queue: str, tmp_path: Path, process: bool
) -> None:
    # In a file: the history has the command.
    (tmp_path / "script").write_text(
        "go() { until [ -e $1 ]; do sleep 0.01; done; }\n"
        "printf 'token s3cr3t-01'; go 1; printf '23456789 and s3cr'; go 2; "
        "printf 'ecy'; go 3; printf ' s3cr3t-0123456789.'"
    )
    job = LiveJob(["sh script"], str(tmp_path), process, secrets=["TOKEN"])
    handle = await start(temporal_client, queue, job)
    # The last piece of each was held back: it may be the beginning of the secret.
    steps = {b"token ": "1", b"token *** and ": "2", b"token *** and s3crecy": "3"}
    events = []
    async for event in follow(temporal_client, handle.id):
        events.append(event)
        if step := steps.get(written(events)):
            (tmp_path / step).touch()
    await handle.result()

    (only,) = seen(events, exact=False)

    assert only.pieces > 3
    assert [b"token *** and s3crecy ***."] == list(only.streams.values())
    assert b"s3cr3t-" not in bytes_of(await handle.fetch_history())


async def test_a_cancelled_command_shows_what_it_wrote(
    temporal_client: Client, queue: str, tmp_path: Path
) -> None:
    job = LiveJob(["echo begun; sleep 60"], str(tmp_path))
    handle = await start(temporal_client, queue, job)
    events = []
    async for event in follow(temporal_client, handle.id):
        events.append(event)
        if event.kind == "output":
            await handle.cancel()

    (only,) = seen(events)
    assert ({"stdout": b"begun\n"}, "cancelled") == (only.streams, only.end)


async def test_a_command_that_times_out_shows_what_it_wrote(
    temporal_client: Client, queue: str, tmp_path: Path
) -> None:
    job = LiveJob(["echo begun; sleep 60"], str(tmp_path), timeout=1)
    handle = await start(temporal_client, queue, job)
    await handle.result()

    (only,) = seen(await followed(temporal_client, handle.id))

    assert {"stdout": b"begun\n"} == only.streams
    assert "command timed out" in str(only.end)


async def test_the_workflow_s_own_stream_is_used(
    temporal_client: Client, queue: str, tmp_path: Path
) -> None:
    job = LiveJob(["echo hi; until test -e go; do sleep 0.01; done"], str(tmp_path))
    handle = await start(temporal_client, queue, job, "RunLiveWithStream")
    async for event in follow(temporal_client, handle.id):
        if event.kind == "output":
            (tmp_path / "go").touch()
    await handle.result()

    stream = WorkflowStreamClient.create(temporal_client, handle.id)
    topics = [item.topic async for item in stream.subscribe()]

    assert ["own", TOPIC, TOPIC, TOPIC] == topics
    (only,) = seen(await followed(temporal_client, handle.id))
    assert ({"stdout": b"hi\n"}, 0) == (only.streams, only.end)


@pytest.mark.parametrize("process", [False, True], ids=["exec", "process"])
async def test_commands_of_one_workflow_at_once_are_told_apart(
    temporal_client: Client, queue: str, tmp_path: Path, process: bool
) -> None:
    commands = [f"echo {n}; sleep 0.5; echo {n}" for n in range(2)]
    job = LiveJob(commands, str(tmp_path), process, at_once=True)
    handle = await start(temporal_client, queue, job)
    await handle.result()

    both = seen(await followed(temporal_client, handle.id))

    stream = "output" if process else "stdout"
    shown = {each.command: (each.streams, each.end) for each in both}
    assert shown == {
        command: ({stream: f"{n}\n{n}\n".encode()}, 0) for n, command in enumerate(commands)
    }


@pytest.mark.parametrize("max_bytes", [0, -1, True, 1.5, "64k", None])
def test_a_limit_that_is_no_number_of_bytes_is_refused(max_bytes: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidRequest, match="max_bytes of LiveOutput must be a number of bytes"):
        LiveOutput(max_bytes=max_bytes)
