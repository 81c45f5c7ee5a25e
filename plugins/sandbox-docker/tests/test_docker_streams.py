"""Streams to processes in containers, and commands that go over one."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.errors import ExecTransportError
from docker.transport import UnixHTTPAdapter
from docker_boxes import Contained
from docker_engine import DockerEngine
from processes.driving import Box, command, second_attempt, seen
from test_docker_conditions import RAN

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.worker.commands import relay
from sandbox_core.worker.commands.helper import close_helpers
from sandbox_core.worker.sdk_session import backend_session
from sandbox_docker import sandbox_client_provider
from sandbox_docker.streams import ExecStream

pytest_plugins = ["docker_boxes", "docker_fixtures"]

pytestmark = [pytest.mark.any_sdk, pytest.mark.xdist_group("docker")]

WAITING = "echo run >> runs; until [ -e go ]; do sleep 0.05; done; echo out; exit 3"


@pytest.fixture
def calls(box: Box, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The verbs of the helper that were asked through `exec`."""
    made: list[str] = []
    inner: Any = backend_session(box.session)
    real = inner.exec

    async def exec_(*words: str, **settings: object) -> object:
        if "sandbox-helper" in words[0] and words[1] != "prune":
            made.append(words[1])
        return await real(*words, **settings)

    monkeypatch.setattr(inner, "exec", exec_)
    return made


def processes(box: Contained) -> dict[str, list[int]]:
    """The processes in the container: their numbers on this host, by their commands."""
    found: dict[str, list[int]] = {}
    for row in box.container.top()["Processes"]:
        found.setdefault(row[-1], []).append(int(row[1]))
    return found


def relay_of(box: Contained) -> int:
    """The number of the relay: it is the process of ours whose parent is not in the container."""
    rows = box.container.top()["Processes"]
    inside = {row[1] for row in rows}
    (found,) = [int(row[1]) for row in rows if row[-1] == "sbx" and row[2] not in inside]
    return found


def wait_for_end_of_stdin(number: int) -> None:
    """Wait until the pipe that a process has as its stdin has no writer, even if it is paused."""
    with Path(f"/proc/{number}/fd/0").open("rb") as stdin:
        hung_up = select.poll()
        hung_up.register(stdin, 0)
        assert hung_up.poll(20_000), "the engine has not closed the stdin of a process"


def wait_for_end(box: Contained, name: str, number: int) -> None:
    """Wait until a process of the container has ended."""
    deadline = time.monotonic() + 20
    while number in processes(box).get(name, []):
        assert time.monotonic() < deadline, f"{name} still runs"
        time.sleep(0.05)  # Nothing tells of the end of a process of another namespace.


class TestCommands:
    async def test_go_over_one_stream(self, box: Contained, calls: list[str]) -> None:
        assert RAN == seen(await box.exec("echo out; exit 3"))
        asked = [asyncio.create_task(box.exec(f"sleep 0.5; echo {n}")) for n in range(50)]

        assert [b"%d\n" % n for n in range(50)] == [(await each).stdout for each in asked]
        assert [] == calls
        assert relay_of(box)

    async def test_output_of_any_size_is_whole(self, box: Contained, calls: list[str]) -> None:
        script = "head -c 5000000 /dev/zero | tr '\\0' x"
        words = [("arg", word) for word in ("sh", "-c", script)]
        answer = await box.ask("run", ("key", "k"), ("wait", 9000), ("out_max", 5_000_000), *words)

        assert b"x" * 5_000_000 == answer.fields["out"]
        assert [] == calls

    async def test_the_relay_is_killed_in_the_middle(
        self, box: Contained, calls: list[str]
    ) -> None:
        asked = asyncio.create_task(box.exec(WAITING))
        await box.exec("until [ -e runs ]; do sleep 0.05; done")
        os.kill(relay_of(box), signal.SIGKILL)
        await box.text("touch go")

        assert RAN == seen(await asked)
        assert "run\n" == await box.text("cat runs")
        assert ["run"] == calls
        assert RAN == seen(await box.exec("echo out; exit 3"))
        assert ["run"] == calls

    async def test_a_request_that_a_paused_container_got_is_not_carried_out_later(
        self, box: Contained, calls: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The engine refuses another call; the last attempt says that the outcome is unknown."""
        monkeypatch.setattr(relay, "FRESH_S", 600)
        asked = asyncio.create_task(box.exec(WAITING))
        await box.exec("until [ -e runs ]; do sleep 0.05; done")
        await box.exec("true")  # It follows the first, which has been passed on, then.
        number = relay_of(box)
        box.container.pause()
        lost = command("echo again >> runs")
        with pytest.raises(ExecTransportError, match="paused"):
            await box.run(lost)
        with pytest.raises(OutcomeUnknown, match=r"may or may not have run.*paused"):
            await second_attempt("unanswered").run(box.run, lost)
        assert not asked.done()
        await asyncio.to_thread(wait_for_end_of_stdin, number)
        box.container.unpause()
        await box.text("touch go")

        assert RAN == seen(await asked)
        assert "run\n" == await box.text("cat runs")
        await box.run(lost)
        assert "run\nagain\n" == await box.text("cat runs")

    async def test_closing_the_session_leaves_no_relay(self, box: Contained) -> None:
        await box.exec("true")
        number = relay_of(box)
        await close_helpers(box.session)

        await asyncio.to_thread(wait_for_end, box, "sbx", number)


_OPEN = """
import asyncio, sys
from docker import DockerClient
from sandbox_docker.streams import open_stream

async def main():
    container = DockerClient(base_url=sys.argv[1]).containers.get(sys.argv[2])
    stream = await open_stream(container, ["cat"], workdir=None, user=None)
    await stream.send(b"ready\\n")
    print((await stream.receive()).decode(), end="", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_process_ends_with_the_worker_that_is_killed(
    box: Contained, engine: DockerEngine
) -> None:
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _OPEN, engine.host, str(box.container.id)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert worker.stdout is not None
    assert b"ready\n" == await worker.stdout.readline()
    (number,) = processes(box)["cat"]
    worker.kill()
    await worker.wait()

    await asyncio.to_thread(wait_for_end, box, "cat", number)


async def test_an_engine_that_is_being_restarted_is_asked_again(
    box: Contained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may keep its containers running meanwhile."""
    session: Any = backend_session(box.session)
    nowhere = {"http+docker://": UnixHTTPAdapter("http+unix:///nowhere.sock")}
    # A real restart would end the other containers of the engine that the tests share.
    with monkeypatch.context() as gone:
        gone.setattr(session._container.client.api, "adapters", nowhere)
        with pytest.raises(ExecTransportError, match="No such file") as raised:
            await session.exec("true")
    assert raised.value.retryable


async def test_an_engine_that_is_reached_otherwise_has_no_streams(
    box: Contained, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = backend_session(box.session)._container.client.api  # type: ignore[attr-defined]
    monkeypatch.setattr(api, "base_url", "https://localhost:2376")
    with pytest.raises(NotImplementedError, match="Unix socket"):
        await sandbox_client_provider().open_stream(
            backend_session(box.session), ["cat"], user=None
        )


class TestStream:
    """What the engine sends, in whatever pieces."""

    @pytest.mark.parametrize("size", [1, 7, 8, 9, 1000])
    async def test_stdout_is_told_from_stderr(self, size: int) -> None:
        came = b"\1\0\0\0\0\0\0\4out\n\2\0\0\0\0\0\0\4err\n\1\0\0\0\0\0\0\1!"
        stream = ExecStream()
        for start in range(0, len(came), size):
            stream.data_received(came[start : start + size])
        stream.connection_lost(None)

        assert b"out\n!" == await stream.receive()
        assert b"" == await stream.receive()

    async def test_a_lost_connection_takes_nothing(self) -> None:
        stream = ExecStream()
        await stream.aclose()

        with pytest.raises(ConnectionResetError):
            await stream.send(b"x")
