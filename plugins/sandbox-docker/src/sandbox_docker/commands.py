"""One command in a container, as the engine runs it."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from agents.sandbox.sandboxes.docker import DockerSandboxSession
from docker.models.containers import Container

from sandbox_core.errors import InvalidRequest
from sandbox_docker.streams import FRAME

_CUT: Final = "the connection ended in the middle of a command's output"

_TOO_LONG: Final = re.compile(rb"(?:.*: )?exec (/\S+): argument list too long(?:: unknown)?\s*")
"""The output of the engine's runtime, in the place of a command's that it could not start."""

_NEVER_TOO_LONG: Final = 1024 * 1024
"""The size of a command, in bytes, up to which it is not too long with any usual environment."""


class Command:
    """One command in a container, run in a thread and abandoned from another one.

    Raises:
        InvalidRequest: A word of `cmd` is not valid UTF-8. The engine would replace its bytes, and
            take the names of two files for one.
    """

    def __init__(self, container: Container, *, cmd: Sequence[str], **settings: object) -> None:
        for word in cmd:
            if any("\ud800" <= character <= "\udfff" for character in word):
                raise InvalidRequest(
                    f"{word!r} is not valid UTF-8, which the API of Docker cannot transfer. A "
                    f"shell command can match such a name, as in `mv caf? renamed`."
                )
        self._container = container
        self._settings = {"cmd": cmd, **settings}
        self._abandoned = threading.Event()
        self._raw_socket: Any = None

    def run(self) -> tuple[bytes, bytes, int | None]:
        """Run the command to its end; the exit code is None if it was abandoned."""
        api = self._container.client.api
        exec_id = api.exec_create(self._container.id, **self._settings)["Id"]
        if self._abandoned.is_set():
            return b"", b"", None
        connection = DockerSandboxSession._start_exec_socket(api=api, exec_id=exec_id)
        try:
            self._raw_socket = connection.raw_sock
            if self._abandoned.is_set():
                return b"", b"", None
            self._raw_socket.settimeout(None)  # The command may write nothing for any time.
            response: Any = connection.response
            stdout, stderr = output_of(response.raw._fp.fp)
        except ConnectionResetError:
            if self._abandoned.is_set():
                return b"", b"", None
            raise
        finally:
            connection.close()
        exit_code = None if self._abandoned.is_set() else api.exec_inspect(exec_id)["ExitCode"]
        return stdout, stderr, exit_code

    def abandon(self) -> None:
        """Make `run` return now, whether or not the command has ended."""
        self._abandoned.set()
        if self._raw_socket is not None:
            with suppress(OSError):
                self._raw_socket.shutdown(socket.SHUT_RDWR)


def output_of(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """Read the output of a command to its end.

    docker-py reads the socket below `stream`, and loses the data that arrived with the response's
    headers: the beginning of a fast command's output, or all of it.

    Raises:
        ConnectionResetError: The connection broke, or the command was abandoned.
    """
    output = {1: bytearray(), 2: bytearray()}
    while header := _read(stream, FRAME.size):
        number, size = FRAME.unpack(header)
        piece = _read(stream, size)
        if not piece:
            raise ConnectionResetError(_CUT)
        output[number] += piece
    return bytes(output[1]), bytes(output[2])


def _read(stream: IO[bytes], size: int) -> bytes:
    """Return the next `size` bytes, or none at the end of the stream."""
    data = stream.read(size)
    if data and len(data) < size:
        raise ConnectionResetError(_CUT)
    return data


def is_too_long(command: Sequence[str], output: bytes) -> bool:
    """Return whether the kernel refused a command for its length, so that it never ran.

    The engine's runtime is a process like the command's own by then, and what it writes is the
    output: one line that names the program. A program would write the same only of a namesake.
    """
    said = _TOO_LONG.fullmatch(output)
    return (
        said is not None
        and Path(os.fsdecode(said[1])).name == Path(command[0]).name
        and sum(len(os.fsencode(word)) + 1 for word in command) > _NEVER_TOO_LONG
    )
