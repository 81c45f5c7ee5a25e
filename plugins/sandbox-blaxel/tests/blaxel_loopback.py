"""A loopback server in place of Blaxel: its control plane, and the API in each sandbox.

The unmodified ``blaxel`` package has no setting for the control plane's address. In the
environment it finds a proxy to this server, which replaces ``api.blaxel.ai``, and a certificate.
Not implemented: standby, previews, drives, volumes, snapshots and streaming logs.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web
from loopback.faults import Handler
from loopback.machine import Machine
from loopback.server import LoopbackServer

API_KEY = "s3cr3t-blaxel-loopback"
"""The same for all servers: Blaxel's SDK reads it once for a process."""


class BlaxelSandbox:
    """A sandbox: its machine, and what was asked for."""

    def __init__(self, machine: Machine, body: dict[str, Any], url: str) -> None:
        self.machine = machine
        self.body = body
        self.status = "DEPLOYED"
        body["metadata"]["url"] = url
        body["metadata"]["createdAt"] = datetime.now(timezone.utc).isoformat()

    def describe(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {**self.body, "status": self.status}


class BlaxelLoopback(LoopbackServer):
    """The server."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, host="api.blaxel.ai")
        self.page_size = 200
        self.sandboxes: dict[str, BlaxelSandbox] = {}
        self._uploads: dict[str, tuple[str, dict[int, bytes]]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The environment that leads the SDK to this server."""
        return {
            "BL_API_KEY": API_KEY,
            "BL_WORKSPACE": "loopback",
            "BL_REGION": "us-pdx-1",
            "DO_NOT_TRACK": "1",
            "NO_PROXY": "127.0.0.1",
            **self.proxied,
        }

    @property
    def machines(self) -> Mapping[str, Machine]:
        known = tuple(self.sandboxes.items())
        return {name: sandbox.machine for name, sandbox in known if sandbox.status == "DEPLOYED"}

    def routes(self) -> Mapping[str, Handler]:
        inside = "/inside/{name}"
        return {
            "POST /v0/sandboxes": self._create,
            "GET /v0/sandboxes": self._list,
            "GET /v0/sandboxes/{name}": self._get,
            "PUT /v0/sandboxes/{name}": self._update,
            "DELETE /v0/sandboxes/{name}": self._delete,
            f"POST {inside}/process": self._run_process,
            f"GET {inside}/filesystem/{{path:[\\s\\S]*}}": self._read,
            f"PUT {inside}/filesystem/{{path:[\\s\\S]*}}": self._write,
            f"POST {inside}/filesystem-multipart/initiate/{{path:[\\s\\S]*}}": self._begin_upload,
            f"PUT {inside}/filesystem-multipart/{{upload}}/part": self._upload_part,
            f"POST {inside}/filesystem-multipart/{{upload}}/complete": self._end_upload,
            f"GET {inside}/terminal/ws": self._terminal,
        }

    def refuse(self, request: web.Request) -> web.StreamResponse | None:
        given = request.headers.get("X-Blaxel-Authorization", "")
        if f"Bearer {API_KEY}" == given or request.query.get("token") == API_KEY:
            return None
        return _failed(401, "unauthorized")

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = body["metadata"].get("name") or secrets.token_hex(6)
        there = self.sandboxes.get(name)
        if there is not None and there.status == "DEPLOYED":
            if request.query.get("createIfNotExist") == "true":
                return web.json_response(there.describe())
            return _failed(409, f"sandbox {name} exists")
        envs = body["spec"].get("runtime", {}).get("envs") or ()
        machine = Machine(self.root / f"{name}-{secrets.token_hex(4)}")
        machine.env = {env["name"]: env["value"] for env in envs}
        await machine.boot()
        sandbox = BlaxelSandbox(machine, body, f"{self.url}/inside/{name}")
        self.sandboxes[name] = sandbox
        await self.until_answering()
        return web.json_response(sandbox.describe())

    async def _list(self, request: web.Request) -> web.StreamResponse:
        known = [box for box in self.sandboxes.values() if box.status == "DEPLOYED"]
        start = int(request.query.get("cursor") or 0)
        end = start + min(int(request.query.get("limit", 50)), self.page_size)
        more = end < len(known)
        meta = {"hasMore": more, "nextCursor": str(end) if more else "", "total": len(known)}
        return web.json_response({"data": [b.describe() for b in known[start:end]], "meta": meta})

    def _sandbox(self, request: web.Request) -> BlaxelSandbox:
        sandbox = self.sandboxes.get(request.match_info["name"])
        if sandbox is None:
            error = {"code": 404, "error": "NOT_FOUND", "message": "sandbox not found"}
            raise web.HTTPNotFound(text=json.dumps(error), content_type="application/json")
        return sandbox

    def _machine(self, request: web.Request) -> Machine:
        sandbox = self._sandbox(request)
        if sandbox.status != "DEPLOYED":
            raise web.HTTPNotFound(text='{"error": "workload is not there"}')
        return sandbox.machine

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._sandbox(request).describe())

    async def _update(self, request: web.Request) -> web.StreamResponse:
        sandbox, body = self._sandbox(request), await request.json()
        sandbox.body["metadata"]["labels"] = body["metadata"].get("labels") or {}
        return web.json_response(sandbox.describe())

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        sandbox = self._sandbox(request)
        await sandbox.machine.remove()
        sandbox.status = "TERMINATED"
        return web.json_response(sandbox.describe())

    async def _run_process(self, request: web.Request) -> web.StreamResponse:
        machine, body = self._machine(request), await request.json()
        cwd = body.get("workingDir") or "/"
        process = await machine.start("sh", "-c", body["command"], cwd=cwd)
        output = {"stdout": b"", "stderr": b""}
        async for name, data in process.chunks():
            output[name] += data
        code = await process.wait()
        shown = {name: data.decode(errors="replace") for name, data in output.items()}
        ended = {
            "command": body["command"],
            "exitCode": code,
            "pid": str(process.pid),
            "name": str(process.pid),
            "status": "completed" if code == 0 else "failed",
            "workingDir": cwd,
            "startedAt": "",
            "completedAt": "",
            "logs": shown["stdout"] + shown["stderr"],
            **shown,
        }
        return web.json_response(ended)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        machine, path = self._machine(request), _path(request)
        if (await machine.run("test", "-d", path)).exit_code == 0:
            return web.json_response(
                {"path": path, "name": path, "files": [], "subdirectories": []}
            )
        try:
            return web.Response(body=await machine.read(path))
        except (FileNotFoundError, IsADirectoryError) as error:
            return _failed(404, str(error))

    async def _write(self, request: web.Request) -> web.StreamResponse:
        machine, path = self._machine(request), _path(request)
        if request.content_type == "application/json":
            made = await machine.run("mkdir", "-p", "--", path)
            if made.exit_code:
                return _failed(422, made.stderr.decode())
            return web.json_response({"message": "made", "path": path})
        return await _written(machine, path, await _file_in(request))

    async def _begin_upload(self, request: web.Request) -> web.StreamResponse:
        upload_id = secrets.token_hex(8)
        self._uploads[upload_id] = (_path(request), {})
        return web.json_response({"uploadId": upload_id, "path": _path(request)})

    async def _upload_part(self, request: web.Request) -> web.StreamResponse:
        _, parts = self._uploads[request.match_info["upload"]]
        number = int(request.query["partNumber"])
        parts[number] = await _file_in(request)
        return web.json_response({"partNumber": number, "etag": str(number)})

    async def _end_upload(self, request: web.Request) -> web.StreamResponse:
        path, parts = self._uploads.pop(request.match_info["upload"])
        content = b"".join(parts[number] for number in sorted(parts))
        return await _written(self._machine(request), path, content)

    async def _terminal(self, request: web.Request) -> web.StreamResponse:
        machine, socket = self._machine(request), web.WebSocketResponse()
        size = int(request.query["rows"]), int(request.query["cols"])
        cwd = request.query["workingDir"]
        await socket.prepare(request)
        shell = await machine.start("bash", "--norc", "-i", cwd=cwd, tty=size)

        async def show() -> None:
            async for _, data in shell.chunks():
                await socket.send_json({"type": "output", "data": data.decode(errors="replace")})

        showing = asyncio.create_task(show())
        async for message in socket:
            if message.type is WSMsgType.TEXT and shell.exit_code is None:
                await shell.write(json.loads(message.data)["data"].encode())
        shell.kill()
        showing.cancel()
        return socket


def _path(request: web.Request) -> str:
    return f"/{request.match_info['path'].lstrip('/')}"


async def _file_in(request: web.Request) -> bytes:
    part = (await request.post())["file"]
    assert isinstance(part, web.FileField)
    return part.file.read()


async def _written(machine: Machine, path: str, content: bytes) -> web.Response:
    try:
        await machine.write(path, content)
    except OSError as error:
        return _failed(422, str(error))
    return web.json_response({"message": "written", "path": path})


def _failed(status: int, message: str) -> web.Response:
    return web.json_response({"code": status, "error": message, "message": message}, status=status)
