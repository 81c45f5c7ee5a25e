"""A loopback server in place of a bridge of Cloudflare's sandbox SDK: HTTP, SSE and terminals.

The Agents SDK's client connects to it through ``worker_url``. As with a bridge, a sandbox is only
an id until it is used; then its container starts. Not implemented: sleeping containers, bucket
mounts, separate users, sessions and tunnels.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from aiohttp import WSMsgType, web
from loopback.faults import Handler
from loopback.machine import Machine
from loopback.server import LoopbackServer


class CloudflareLoopback(LoopbackServer):
    """The server."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.api_key = f"s3cr3t-{secrets.token_hex(16)}"
        self._containers: dict[str, Machine] = {}
        self._starting = asyncio.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """The environment that points the provider at this server."""
        return {
            "CLOUDFLARE_SANDBOX_API_KEY": self.api_key,
            "CLOUDFLARE_SANDBOX_WORKER_URL": self.url,
        }

    @property
    def machines(self) -> Mapping[str, Machine]:
        return self._containers

    def routes(self) -> Mapping[str, Handler]:
        sandbox = "/v1/sandbox/{id}"
        return {
            "POST /v1/sandbox": self._make_id,
            "GET /v1/pool/stats": self._stats,
            f"GET {sandbox}/running": self._running,
            f"DELETE {sandbox}": self._delete,
            f"POST {sandbox}/exec": self._exec,
            f"GET {sandbox}/file/{{path:[\\s\\S]*}}": self._read,
            f"PUT {sandbox}/file/{{path:[\\s\\S]*}}": self._write,
            f"POST {sandbox}/persist": self._persist,
            f"POST {sandbox}/hydrate": self._hydrate,
            f"GET {sandbox}/pty": self._terminal,
        }

    def refuse(self, request: web.Request) -> web.StreamResponse | None:
        if request.headers.get("Authorization") == f"Bearer {self.api_key}":
            return None
        return web.json_response({"error": "Unauthorized", "code": "unauthorized"}, status=401)

    async def _container(self, request: web.Request) -> Machine:
        sandbox_id = request.match_info["id"]
        async with self._starting:
            if sandbox_id not in self._containers:
                machine = Machine(self.root / sandbox_id)
                await machine.boot()
                self._containers[sandbox_id] = machine
        await self.until_answering()
        return self._containers[sandbox_id]

    async def _make_id(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": base64.b32encode(secrets.token_bytes(15)).decode().lower()})

    async def _stats(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"warm": 0, "assigned": len(self._containers)})

    async def _running(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"running": request.match_info["id"] in self._containers})

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        machine = self._containers.get(request.match_info["id"])
        if machine is not None:
            await machine.remove()
            self._containers.pop(request.match_info["id"], None)
        return web.Response(status=204)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        machine, body = await self._container(request), await request.json()
        process = await machine.start(*body["argv"], cwd="/workspace")
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})

        async def follow() -> None:
            async for name, data in process.chunks():
                await _send(stream, name, base64.b64encode(data).decode())
            await _send(stream, "exit", json.dumps({"exit_code": await process.wait()}))

        with contextlib.suppress(ConnectionError):  # The process goes on without its reader.
            await stream.prepare(request)
            try:
                await asyncio.wait_for(follow(), body["timeout_ms"] / 1000)
            except asyncio.TimeoutError:
                process.kill()
                await asyncio.sleep(10)  # The client gives up five seconds after the timeout.
        return stream

    async def _read(self, request: web.Request) -> web.StreamResponse:
        path, machine = f"/{request.match_info['path']}", await self._container(request)
        if not path.startswith("/workspace/"):
            return _failed(403, "path must resolve to a location within /workspace")
        try:
            return web.Response(body=await machine.read(path))
        except FileNotFoundError as error:
            return _failed(404, str(error))
        except IsADirectoryError as error:
            return _failed(502, str(error))

    async def _write(self, request: web.Request) -> web.StreamResponse:
        path, machine = f"/{request.match_info['path']}", await self._container(request)
        if not path.startswith("/workspace/"):
            return _failed(403, "path must resolve to a location within /workspace")
        try:
            await machine.write(path, await request.read())
        except OSError as error:
            return _failed(502, str(error))
        return web.json_response({"ok": True})

    async def _persist(self, request: web.Request) -> web.StreamResponse:
        excludes = [name for name in request.query.get("excludes", "").split(",") if name]
        excluding = [f"--exclude=./{name}" for name in excludes]
        machine = await self._container(request)
        made = await machine.run("tar", "cf", "-", *excluding, "-C", "/workspace", ".")
        if made.exit_code:
            return _failed(502, made.stderr.decode())
        return web.Response(body=made.stdout)

    async def _hydrate(self, request: web.Request) -> web.StreamResponse:
        machine, content = await self._container(request), await request.read()
        unpacked = await machine.run("tar", "xf", "-", "-C", "/workspace", stdin=content)
        if unpacked.exit_code:
            return _failed(502, unpacked.stderr.decode())
        return web.json_response({"ok": True})

    async def _terminal(self, request: web.Request) -> web.StreamResponse:
        machine, socket = await self._container(request), web.WebSocketResponse()
        size = int(request.query["rows"]), int(request.query["cols"])
        await socket.prepare(request)
        shell = await machine.start("bash", "--norc", "-i", cwd="/workspace", tty=size)
        await socket.send_json({"type": "ready"})

        async def show() -> None:
            async for _, data in shell.chunks():
                await socket.send_bytes(data)
            await socket.send_json({"type": "exit", "code": await shell.wait()})

        showing = asyncio.create_task(show())
        async for message in socket:
            if message.type is WSMsgType.BINARY and shell.exit_code is None:
                await shell.write(message.data)
        shell.kill()
        showing.cancel()
        return socket


def _failed(status: int, message: str) -> web.Response:
    return web.json_response({"error": message, "code": "loopback"}, status=status)


async def _send(stream: web.StreamResponse, event: str, data: str) -> None:
    await stream.write(f"event: {event}\ndata: {data}\n\n".encode())
