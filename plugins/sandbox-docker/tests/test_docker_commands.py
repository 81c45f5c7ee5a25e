"""Commands in containers under the helper, compared with the engine's own call."""

from __future__ import annotations

import http.client
import io
import socket
import struct
import time
from collections.abc import AsyncIterator

import pytest
from agents.sandbox import Manifest
from agents.sandbox.manifest import Environment
from docker_engine import DockerEngine
from processes import test_length
from processes.bare import ENVIRONMENT, compare
from processes.driving import Box, command, of_any_backend

from sandbox_core.errors import InvalidRequest
from sandbox_core.worker.commands.length import LONGEST_COMMAND
from sandbox_docker import sandbox_client_provider
from sandbox_docker.commands import output_of

pytest_plugins = ["docker_fixtures"]

pytestmark = [pytest.mark.extended, pytest.mark.xdist_group("docker")]


TestLength = of_any_backend(test_length.TestOfAnyBackend)


@pytest.fixture
async def box(engine: DockerEngine) -> AsyncIterator[Box]:
    provider = sandbox_client_provider()
    client = provider.create_client()
    try:
        session = await client.create(
            manifest=Manifest(environment=Environment(value=dict(ENVIRONMENT))),
            options=provider.default_options(),
        )
        await session.start()
        yield Box(provider, session)
        await client.delete(session)
    finally:
        client.close()


async def test_a_command_is_as_the_engine_has_it(box: Box) -> None:
    differences = await compare(box, "docker")

    wrong = [str(row) for row in differences if row.reason is None]
    assert not wrong, "\n".join(wrong)


async def test_a_command_that_is_too_long_for_the_helper_runs_without_it(box: Box) -> None:
    result = await box.run(command("printf", ".%.0s", *["w" * 100_000] * 18, shell=False))

    assert b"." * 18 == result.stdout


async def test_a_command_that_the_kernel_refuses_for_its_length_has_not_run(box: Box) -> None:
    """The environment counts too. The engine reports it as the output of a command that failed."""
    words = ["w" * 100_000] * 20
    words.append("w" * (LONGEST_COMMAND - sum(len(word) + 1 for word in words) - len("true") - 2))

    with pytest.raises(InvalidRequest, match=r"too long for its sandbox.*Nothing was run"):
        await box.run(command("true", *words, shell=False))


async def test_what_a_command_says_about_another_is_its_output(box: Box) -> None:
    said = "exec /usr/bin/true: argument list too long"

    result = await box.run(
        command("sh", "-c", f"echo {said}; exit 1", *["w" * 100_000] * 19, shell=False)
    )

    assert (1, f"{said}\n".encode()) == (result.exit_code, result.stdout)


def test_output_that_was_cut_by_a_reset_is_no_output() -> None:
    frame = b"\x01\0\0\0\0\0\0\x04"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        client.makefile("rb") as received,
    ):
        engine, _ = server.accept()
        engine.sendall(frame + b"out\n" + frame)
        received.peek(1)  # A reset takes along what was not read.
        engine.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        engine.close()

        with pytest.raises(ConnectionResetError):
            output_of(received)


@pytest.mark.parametrize("rest", [b"\x01\0\0", b"\x01\0\0\0\0\0\0\x04", b"\x01\0\0\0\0\0\0\x04ou"])
def test_output_that_ends_in_the_middle_of_a_piece_is_no_output(rest: bytes) -> None:
    piece = b"\x02\0\0\0\0\0\0\x04err\n"

    assert output_of(io.BytesIO(piece)) == (b"", b"err\n")
    with pytest.raises(ConnectionResetError):
        output_of(io.BytesIO(piece + rest))


async def test_output_that_comes_along_with_the_engines_headers_is_not_lost(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command has often ended before a busy worker reads what the engine says of its start."""
    begin = http.client.HTTPResponse.begin

    def begin_late(response: http.client.HTTPResponse) -> None:
        time.sleep(0.5)  # Nothing tells when the output is there as well.
        begin(response)

    monkeypatch.setattr(http.client.HTTPResponse, "begin", begin_late)

    result = await box.plain("echo out; head -c 100000 /dev/zero >&2; exit 3")

    assert (b"out\n", 100_000, 3) == (result.stdout, len(result.stderr), result.exit_code)
