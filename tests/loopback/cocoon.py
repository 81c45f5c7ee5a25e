"""A loopback node of Cocoon's: its HTTP interface and its agent's frames, with machines.

The agent speaks lines of JSON, with bytes as base64, on a connection upgraded from HTTP, one
request after another. Only requests of the adapter for the Agents SDK are implemented. Where
Cocoon's documentation is silent, the adapter's assumptions hold: writing creates folders, and
commands run in /workspace by default.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from loopback.machine import Machine, Process

Frame = dict[str, Any]
_CHUNK = 256 * 1024


class _Refused(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Node:
    """The node while its context is entered."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._machines: dict[str, tuple[str, Machine]] = {}
        self.address = ""

    def __enter__(self) -> Node:
        ready: Future[str] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        self.address = ready.result(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _serve(self, ready: Future[str]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=2**24)
        ready.set_result(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await self._stopping.wait()
        server.close()
        for _, machine in self._machines.values():
            await machine.remove()

    # --- HTTP -----------------------------------------------------------------------------------

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers = {}
                while header := (await reader.readline()).decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                token = headers.get("authorization", "").removeprefix("Bearer ")
                if path.endswith("/agent"):
                    machine = self._machine(path.split("/")[3], token)
                    if machine is not None:
                        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                        await _Agent(machine, reader, writer).serve()
                        return
                    status, answer = 404, {"error": "no such sandbox"}
                else:
                    status, answer = await self._answer(method, path, token, body)
                text = json.dumps(answer).encode()
                writer.write(f"HTTP/1.1 {status} -\r\nContent-Length: {len(text)}\r\n\r\n".encode())
                writer.write(text)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _machine(self, sandbox_id: str, token: str) -> Machine | None:
        expected, machine = self._machines.get(sandbox_id, ("", None))
        return machine if token == expected else None

    async def _answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Frame]:
        if path == "/v1/claim":
            sandbox_id, token = f"sb-{uuid.uuid4().hex}", uuid.uuid4().hex
            made = Machine(self._root / sandbox_id)
            await made.boot()
            self._machines[sandbox_id] = (token, made)
            return 200, {"id": sandbox_id, "token": token, "owner_addr": self.address}
        if path == "/v1/sandboxes":
            return 200, {"sandboxes": [{"id": each} for each in self._machines]}
        if path.endswith("/release"):
            sandbox_id = path.split("/")[3]
            machine = self._machine(sandbox_id, token)
            if machine is None:
                return 404, {"error": "no such sandbox"}
            del self._machines[sandbox_id]
            await machine.remove()
            return 200, {}
        return (200, {}) if path == "/v1/info" else (404, {"error": f"no {method} {path}"})


class _Agent:
    """The agent in a machine, on one connection."""

    def __init__(
        self, machine: Machine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._machine, self._reader, self._writer = machine, reader, writer

    async def serve(self) -> None:
        """Answer one request after the other until the connection ends."""
        answers: dict[str, Callable[[Frame], Awaitable[None]]] = {
            "info": self._info,
            "exec": self._exec,
            "fs_read": self._read,
            "fs_write": self._write,
            "fs_stat": self._stat,
            "fs_mkdir": self._mkdir,
            "fs_push": self._push,
            "fs_pull": self._pull,
        }
        while (request := await self._next()) is not None:
            answer = answers.get(request["op"])
            try:
                if answer is None:
                    raise _Refused("unimplemented", request["op"])
                await answer(request)
            except _Refused as error:
                await self._send(type="error", kind=error.kind, message=str(error))

    async def _next(self) -> Frame | None:
        line = await self._reader.readline()
        frame: Frame | None = json.loads(line) if line else None
        return frame

    async def _send(self, **frame: object) -> None:
        encoded = {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in frame.items()
        }
        self._writer.write(json.dumps(encoded, separators=(",", ":")).encode() + b"\n")
        await self._writer.drain()

    async def _send_all(self, content: bytes) -> None:
        for start in range(0, len(content), _CHUNK):
            await self._send(type="data", data=content[start : start + _CHUNK])
        await self._send(type="done")

    async def _received(self) -> AsyncIterator[bytes]:
        while (frame := await self._next()) is not None and frame["op"] != "data_end":
            yield base64.b64decode(frame["data"])

    async def _info(self, _: Frame) -> None:
        await self._send(type="info", proto=2)

    async def _exec(self, request: Frame) -> None:
        process = await self._machine.start(
            *request["argv"], cwd=request.get("cwd", "/workspace"), env=request.get("env")
        )
        await self._send(type="started", pid=process.pid)
        await self._next()  # Its stdin, which is at its end.
        # A connection that the caller cuts ends the command.
        cut = asyncio.create_task(self._reader.read(1))
        output = asyncio.create_task(self._output(process))
        await asyncio.wait({cut, output}, return_when=asyncio.FIRST_COMPLETED)
        if not output.done():
            process.kill()
            output.cancel()
            raise ConnectionResetError
        cut.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await cut
        await self._send(type="exit", code=await process.wait())

    async def _output(self, process: Process) -> None:
        async for name, data in process.chunks():
            for start in range(0, len(data), _CHUNK):
                await self._send(type=name, data=data[start : start + _CHUNK])

    async def _run(self, *argv: str, stdin: bytes | None = None) -> bytes:
        ran = await self._machine.run(*argv, stdin=stdin)
        if ran.exit_code:
            message = ran.stderr.decode(errors="replace")
            missing = "No such file" in message
            raise _Refused("not_found" if missing else "internal", message)
        return ran.stdout

    async def _read(self, request: Frame) -> None:
        await self._send_all(await self._run("cat", "--", request["path"]))

    async def _write(self, request: Frame) -> None:
        content = b"".join([part async for part in self._received()])
        script = 'mkdir -p -- "${1%/*}" && cat > "$1.part" && mv -- "$1.part" "$1"'
        await self._run("sh", "-c", script, "sh", request["path"], stdin=content)
        await self._send(type="done")

    async def _stat(self, request: Frame) -> None:
        await self._run("stat", "--", request["path"])
        await self._send(type="stat", info={})

    async def _mkdir(self, request: Frame) -> None:
        parents = ("-p",) if request.get("parents") else ()
        await self._run("mkdir", *parents, "--", request["path"])
        await self._send(type="done")

    async def _push(self, request: Frame) -> None:
        content = b"".join([part async for part in self._received()])
        await self._run("tar", "-xp", "-C", request["dest"], stdin=content)
        await self._send(type="done")

    async def _pull(self, request: Frame) -> None:
        folder, _, name = request["path"].rstrip("/").rpartition("/")
        await self._send_all(await self._run("tar", "-c", "-C", folder or "/", "--", name))
