"""A loopback server in place of E2B: its REST API, and envd's files and processes (Connect JSON).

The unmodified ``e2b`` package connects to it through ``E2B_API_URL`` and ``E2B_SANDBOX_URL``. Not
implemented: timeouts, memory across a pause (processes end), users other than root, templates, code
interpreters, volumes, git, metrics and watching.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import struct
import urllib.parse
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from aiohttp import web
from loopback.faults import Handler
from loopback.machine import Machine, Process
from loopback.server import LoopbackServer

_ENVD_VERSION = "0.5.8"
_END_OF_STREAM = 2
_CODES = {401: "unauthenticated", 404: "not_found", 400: "invalid_argument", 409: "already_exists"}


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class E2BSandbox:
    """A sandbox: its machine, what was asked for, and the processes that envd has started."""

    def __init__(self, sandbox_id: str, machine: Machine, body: Mapping[str, Any]) -> None:
        self.id = sandbox_id
        self.machine = machine
        self.metadata: dict[str, str] = body.get("metadata") or {}
        self.template = body.get("templateID")
        self.started = datetime.now(timezone.utc)
        self.state = "running"
        self.token = secrets.token_hex(8)
        self.processes: dict[int, Process] = {}

    def describe(self) -> dict[str, object]:
        """Return it as the API shows it."""
        return {
            "sandboxID": self.id,
            "templateID": self.template,
            "clientID": "loopback",
            "envdVersion": _ENVD_VERSION,
            "envdAccessToken": self.token,
            "metadata": self.metadata,
            "state": self.state,
            "startedAt": self.started.isoformat(),
            "endAt": (self.started + timedelta(minutes=5)).isoformat(),
            "cpuCount": 1,
            "memoryMB": 512,
            "diskSizeMB": 1024,
        }


class E2BLoopback(LoopbackServer):
    """The server."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.api_key = f"e2b_{secrets.token_hex(20)}"
        self.page_size = 100
        self.sandboxes: dict[str, E2BSandbox] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The environment that points the SDK at this server."""
        return {
            "E2B_API_KEY": self.api_key,
            "E2B_API_URL": self.url,
            "E2B_SANDBOX_URL": self.url,
        }

    @property
    def machines(self) -> Mapping[str, Machine]:
        return {sandbox.id: sandbox.machine for sandbox in self.sandboxes.values()}

    def routes(self) -> Mapping[str, Handler]:
        envd = {
            "GET /health": self._health,
            "GET /files": self._read,
            "POST /files": self._write,
            "POST /filesystem.Filesystem/MakeDir": self._make_dir,
            "POST /filesystem.Filesystem/Remove": self._remove,
            "POST /process.Process/Start": self._start,
            "POST /process.Process/SendInput": self._send_input,
            "POST /process.Process/SendSignal": self._send_signal,
        }
        return {
            "POST /sandboxes": self._create,
            "GET /v2/sandboxes": self._list,
            "GET /sandboxes/{id}": self._get,
            "DELETE /sandboxes/{id}": self._kill,
            "POST /sandboxes/{id}/connect": self._connect,
            "POST /sandboxes/{id}/pause": self._pause,
            **{route: self._answering(handler) for route, handler in envd.items()},
        }

    def refuse(self, request: web.Request) -> web.StreamResponse | None:
        if "E2b-Sandbox-Id" in request.headers:
            sandbox = self.sandboxes.get(request.headers["E2b-Sandbox-Id"])
            if sandbox is None or sandbox.state != "running":
                return web.json_response({"message": "The sandbox was not found"}, status=502)
            right = request.headers.get("X-Access-Token") == sandbox.token
        else:
            right = request.headers.get("X-API-KEY") == self.api_key
        return None if right else web.json_response({"message": "unauthorized"}, status=401)

    def _answering(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except _Refused as refused:
                body = {"code": _CODES.get(refused.status, "unknown"), "message": str(refused)}
                return web.json_response(body, status=refused.status)

        return handle

    def _sandbox(self, request: web.Request) -> E2BSandbox:
        sandbox = self.sandboxes.get(request.match_info["id"])
        if sandbox is None:
            raise web.HTTPNotFound(text='{"code": 404, "message": "sandbox not found"}')
        return sandbox

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        sandbox_id = secrets.token_hex(10)
        env = {"HOME": "/home/user", **(body.get("envVars") or {})}
        machine = Machine(self.root / sandbox_id, env)
        await machine.boot()
        await machine.run("mkdir", "-p", "/home/user")
        self.sandboxes[sandbox_id] = sandbox = E2BSandbox(sandbox_id, machine, body)
        await self.until_answering()
        return web.json_response(sandbox.describe(), status=201)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        asked = urllib.parse.parse_qsl(request.query.get("metadata", ""), keep_blank_values=True)
        wanted = {urllib.parse.unquote(k): urllib.parse.unquote(v) for k, v in asked}
        found = [
            sandbox.describe()
            for sandbox in self.sandboxes.values()
            if wanted.items() <= sandbox.metadata.items()
        ]
        start = int(request.query.get("nextToken", 0))
        end = start + int(request.query.get("limit", self.page_size))
        headers = {"x-next-token": str(end)} if end < len(found) else {}
        return web.json_response(found[start:end], headers=headers)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._sandbox(request).describe())

    async def _kill(self, request: web.Request) -> web.StreamResponse:
        sandbox = self._sandbox(request)
        await sandbox.machine.remove()
        self.sandboxes.pop(sandbox.id, None)
        return web.Response(status=204)

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        sandbox = self._sandbox(request)
        if sandbox.state == "paused":
            await sandbox.machine.boot()
            sandbox.state = "running"
        return web.json_response(sandbox.describe(), status=201)

    async def _pause(self, request: web.Request) -> web.StreamResponse:
        sandbox = self._sandbox(request)
        await sandbox.machine.halt()
        sandbox.state = "paused"
        return web.Response(status=204)

    def _of_envd(self, request: web.Request) -> E2BSandbox:
        return self.sandboxes[request.headers["E2b-Sandbox-Id"]]

    async def _health(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        try:
            content = await self._of_envd(request).machine.read(_absolute(request.query["path"]))
        except FileNotFoundError as error:
            raise _Refused(404, str(error)) from error
        except IsADirectoryError as error:
            raise _Refused(400, str(error)) from error
        return web.Response(body=content)

    async def _write(self, request: web.Request) -> web.StreamResponse:
        path, form = _absolute(request.query["path"]), await request.post()
        (part,) = (field for field in form.values() if isinstance(field, web.FileField))
        content = part.file.read()
        try:
            await self._of_envd(request).machine.write(path, content)
        except OSError as error:
            raise _Refused(400, str(error)) from error
        name = path.rpartition("/")[2]
        return web.json_response([{"path": path, "name": name, "type": "file"}])

    async def _make_dir(self, request: web.Request) -> web.StreamResponse:
        path = _absolute((await request.json())["path"])
        machine = self._of_envd(request).machine
        if (await machine.run("test", "-d", path)).exit_code == 0:
            raise _Refused(409, f"directory {path} exists already")
        made = await machine.run("mkdir", "-p", "--", path)
        if made.exit_code:
            raise _Refused(400, made.stderr.decode())
        return web.json_response({"entry": {"name": path.rpartition("/")[2], "path": path}})

    async def _remove(self, request: web.Request) -> web.StreamResponse:
        path = _absolute((await request.json())["path"])
        await self._of_envd(request).machine.run("rm", "-rf", "--", path)
        return web.json_response({})

    async def _start(self, request: web.Request) -> web.StreamResponse:
        sandbox = self._of_envd(request)
        # Everything runs as root, but not for a user whom there is not.
        user = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic "))
        name = user.decode().partition(":")[0] or "root"
        if (await sandbox.machine.run("id", "--", name)).exit_code:
            raise _Refused(401, f"invalid username: '{name}'")
        body = json.loads((await request.read())[5:])
        asked, size = body["process"], body.get("pty", {}).get("size")
        cwd = asked.get("cwd") or "/home/user"
        stream = web.StreamResponse(headers={"Content-Type": "application/connect+json"})
        if (await sandbox.machine.run("test", "-d", cwd)).exit_code:
            message = f"cwd '{cwd}' does not exist"
            await stream.prepare(request)
            await _end(stream, {"error": {"code": "invalid_argument", "message": message}})
            return stream
        process = await sandbox.machine.start(
            *(asked["cmd"], *asked.get("args", [])),
            cwd=cwd,
            env=asked.get("envs"),
            tty=(size["rows"], size["cols"]) if size else None,
            stdin=body.get("stdin", False),
        )
        sandbox.processes[process.pid] = process
        with contextlib.suppress(ConnectionError):  # The process goes on without its reader.
            limit = int(request.headers.get("connect-timeout-ms", "0")) / 1000 or None
            await stream.prepare(request)
            await _send(stream, {"start": {"pid": process.pid}})
            try:
                await asyncio.wait_for(_follow(stream, process), limit)
                await _end(stream, {})
            except asyncio.TimeoutError:
                process.kill()
                message = "the command took too long"
                await _end(stream, {"error": {"code": "deadline_exceeded", "message": message}})
        return stream

    def _process(self, request: web.Request, body: Mapping[str, Mapping[str, int]]) -> Process:
        process = self._of_envd(request).processes.get(int(body["process"]["pid"]))
        if process is None or process.exit_code is not None:
            raise _Refused(404, "process not found")
        return process

    async def _send_input(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        data = body["input"].get("pty") or body["input"].get("stdin") or ""
        await self._process(request, body).write(base64.b64decode(data))
        return web.json_response({})

    async def _send_signal(self, request: web.Request) -> web.StreamResponse:
        self._process(request, await request.json()).kill()
        return web.json_response({})


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/home/user/{path}"


async def _follow(stream: web.StreamResponse, process: Process) -> None:
    async for name, data in process.chunks():
        await _send(stream, {"data": {name: base64.b64encode(data).decode()}})
    code = await process.wait()
    await _send(stream, {"end": {"exitCode": code, "exited": True, "status": f"exit {code}"}})


async def _send(stream: web.StreamResponse, event: Mapping[str, object]) -> None:
    data = json.dumps({"event": event}).encode()
    await stream.write(struct.pack(">BI", 0, len(data)) + data)


async def _end(stream: web.StreamResponse, trailer: Mapping[str, object]) -> None:
    data = json.dumps(trailer).encode()
    await stream.write(struct.pack(">BI", _END_OF_STREAM, len(data)) + data)
    await stream.write_eof()
