"""The dev server of the tests and the demo."""

from __future__ import annotations

import os
import shlex
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox_core.testing import DevServer, dev_server
from sandbox_core.testing.fork_server import fork_server


class Wrapped(DevServer):
    """A server whose executable writes to stderr first, more than a pipe holds."""

    def __init__(self, script: Path, *, then: str) -> None:
        super().__init__()
        script.write_text(
            "#!/bin/sh\n"
            'case "$1 $2" in "server start-dev") '
            "head -c 300000 /dev/zero | tr '\\0' x >&2; echo last words >&2; "
            f"{then};; esac\n"
            f'exec {shlex.quote(self._executable)} "$@"\n'
        )
        script.chmod(0o700)
        self._executable = str(script)


class TestWhatItWrites:
    def test_does_not_hold_it_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dev_server, "_STARTED_WITHIN_S", 20.0)
        with Wrapped(tmp_path / "temporal", then="true") as server:
            assert server.address

    def test_is_in_the_error_if_it_does_not_start(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match=r"did not start on port .*: x+last words$"):
            Wrapped(tmp_path / "temporal", then="exit 3").start()


class TestPorts:
    @pytest.mark.parametrize("taken", ["port", "ui_port"])
    def test_one_that_is_in_use_is_an_error(self, taken: str) -> None:
        """Clients would be served by whoever listens there, and find other workflows."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            server = DevServer(**{"port": 0, "ui_port": 0, taken: port})

            with pytest.raises(RuntimeError, match=f"port {port} is in use.*choose another port"):
                server.start()


class TestItsUser:
    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
    def test_takes_it_along_when_it_is_killed(self, signum: signal.Signals) -> None:
        read, write = os.pipe()
        with os.fdopen(read) as output:
            with os.fdopen(write, "wb") as theirs:
                process = fork_server().start("forked.targets:serve", stdout=theirs)
            port = int(output.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            process.send_signal(signum)
            assert -signum == process.wait()
            with suppress(ConnectionResetError):
                while client.recv(4096):
                    pass  # Until the server is gone.
