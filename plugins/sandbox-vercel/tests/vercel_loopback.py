"""A loopback server in place of Vercel's sandbox API: commands, their logs, files and snapshots.

The unmodified ``vercel`` package has no setting for another address. In the environment it finds a
proxy to this server, which replaces ``api.vercel.com``, and a certificate. Not implemented: ending
sandboxes at their timeout, users, runtimes, ports, and network policies.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from loopback.faults import Handler
from loopback.machine import Machine, Process, copy_disk
from loopback.server import LoopbackServer

HOME = "/vercel/sandbox"


class VercelSandbox:
    """A sandbox: its machine, and the commands that were run in it."""

    def __init__(self, sandbox_id: str, machine: Machine) -> None:
        self.id = sandbox_id
        self.machine = machine
        self.created_ms = int(time.time() * 1000)
        self.status = "running"
        self.commands: dict[str, Command] = {}

    def describe(self) -> dict[str, object]:
        """Return it as the API shows it."""
        shown = {
            "id": self.id,
            "memory": 2048,
            "vcpus": 1,
            "region": "iad1",
            "runtime": "node22",
            "timeout": 270_000,
            "status": self.status,
            "requestedAt": self.created_ms,
            "createdAt": self.created_ms,
            "updatedAt": self.created_ms,
            "cwd": HOME,
        }
        return {"sandbox": shown, "routes": []}


class Command:
    """A command, and the lines of its log."""

    def __init__(self, sandbox: VercelSandbox, body: Mapping[str, Any], process: Process) -> None:
        self.id = f"cmd_{secrets.token_hex(8)}"
        self.process = process
        self.lines: list[bytes] = []
        self.ended = asyncio.Event()
        self._shown = {
            "id": self.id,
            "name": body["command"],
            "args": body["args"],
            "cwd": body.get("cwd") or HOME,
            "sandboxId": sandbox.id,
            "startedAt": int(time.time() * 1000),
        }
        self._collecting = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        async for stream, data in self.process.chunks():
            line = {"stream": stream, "data": data.decode(errors="replace")}
            self.lines.append(json.dumps(line).encode() + b"\n")
        await self.process.wait()
        self.ended.set()

    def describe(self) -> dict[str, object]:
        """Return it as the API shows it."""
        return {"command": {**self._shown, "exitCode": self.process.exit_code}}


class VercelLoopback(LoopbackServer):
    """The server."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, host="api.vercel.com")
        self.token = f"s3cr3t-{secrets.token_hex(16)}"
        self.sandboxes: dict[str, VercelSandbox] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The environment that leads the SDK to this server."""
        return {
            "VERCEL_TOKEN": self.token,
            "VERCEL_PROJECT_ID": "prj_loopback",
            "VERCEL_TEAM_ID": "team_loopback",
            **self.proxied,
        }

    @property
    def machines(self) -> Mapping[str, Machine]:
        known = tuple(self.sandboxes.values())
        return {sandbox.id: sandbox.machine for sandbox in known if sandbox.status == "running"}

    def routes(self) -> Mapping[str, Handler]:
        sandbox = "/v1/sandboxes/{id}"
        return {
            "POST /v1/sandboxes": self._create,
            "GET /v1/sandboxes": self._list,
            f"GET {sandbox}": self._get,
            f"POST {sandbox}/stop": self._stop,
            f"POST {sandbox}/snapshot": self._snapshot,
            f"POST {sandbox}/cmd": self._run_command,
            f"GET {sandbox}/cmd/{{command}}": self._get_command,
            f"GET {sandbox}/cmd/{{command}}/logs": self._logs,
            f"POST {sandbox}/fs/mkdir": self._make_dir,
            f"POST {sandbox}/fs/read": self._read,
            f"POST {sandbox}/fs/write": self._write,
        }

    def refuse(self, request: web.Request) -> web.StreamResponse | None:
        if request.headers.get("Authorization", "").lower() == f"bearer {self.token}":
            return None
        return _failed(401, "unauthorized")

    def _sandbox(self, request: web.Request) -> VercelSandbox:
        sandbox = self.sandboxes.get(request.match_info["id"])
        if sandbox is None:
            raise web.HTTPNotFound(text=json.dumps({"error": {"code": "not_found"}}))
        return sandbox

    def _running(self, request: web.Request) -> VercelSandbox:
        sandbox = self._sandbox(request)
        if sandbox.status != "running":
            raise web.HTTPGone(text=json.dumps({"error": {"code": "sandbox_stopped"}}))
        return sandbox

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        sandbox_id = f"sbx_{secrets.token_hex(8)}"
        directory, source = self.root / sandbox_id, body.get("source") or {}
        if source.get("type") == "snapshot":
            saved = self.root / source["snapshotId"]
            await copy_disk(saved, directory)
        machine = Machine(directory, {"HOME": HOME, **(body.get("env") or {})})
        await machine.boot()
        # Tests of every provider look into /workspace.
        script = 'rmdir /workspace; mkdir -p "$0"; [ -L /workspace ] || ln -sT "${0#/}" /workspace'
        await machine.run("sh", "-c", script, HOME)
        self.sandboxes[sandbox_id] = sandbox = VercelSandbox(sandbox_id, machine)
        await self.until_answering()
        return web.json_response(sandbox.describe())

    async def _list(self, request: web.Request) -> web.StreamResponse:
        found = [sandbox.describe()["sandbox"] for sandbox in self.sandboxes.values()]
        return web.json_response({"sandboxes": found, "pagination": {"count": len(found)}})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._sandbox(request).describe())

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        sandbox = self._sandbox(request)
        await sandbox.machine.remove()
        sandbox.status = "stopped"
        return web.json_response(sandbox.describe())

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        sandbox, snapshot_id = self._running(request), f"snap_{secrets.token_hex(8)}"
        source = sandbox.machine.directory
        await copy_disk(source, self.root / snapshot_id)
        await sandbox.machine.remove()
        sandbox.status = "stopped"  # A snapshot ends its sandbox.
        snapshot = {
            "id": snapshot_id,
            "sourceSandboxId": sandbox.id,
            "region": "iad1",
            "status": "created",
            "sizeBytes": 0,
            "createdAt": sandbox.created_ms,
            "updatedAt": sandbox.created_ms,
        }
        return web.json_response({"snapshot": snapshot, **sandbox.describe()})

    async def _run_command(self, request: web.Request) -> web.StreamResponse:
        sandbox, body = self._running(request), await request.json()
        process = await sandbox.machine.start(
            *(body["command"], *body["args"]), cwd=body.get("cwd") or HOME, env=body.get("env")
        )
        command = Command(sandbox, body, process)
        sandbox.commands[command.id] = command
        return web.json_response(command.describe())

    def _command(self, request: web.Request) -> Command:
        return self._running(request).commands[request.match_info["command"]]

    async def _get_command(self, request: web.Request) -> web.StreamResponse:
        command = self._command(request)
        if request.query.get("wait") == "true":
            await command.ended.wait()
        return web.json_response(command.describe())

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        command = self._command(request)
        await command.ended.wait()
        stream = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await stream.prepare(request)
        for line in command.lines:
            await stream.write(line)
        await stream.write_eof()
        return stream

    async def _make_dir(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        made = await self._running(request).machine.run("mkdir", "-p", "--", body["path"])
        return web.json_response({}) if made.exit_code == 0 else _failed(400, "mkdir failed")

    async def _read(self, request: web.Request) -> web.StreamResponse:
        path = (await request.json())["path"]
        try:
            return web.Response(body=await self._running(request).machine.read(path))
        except FileNotFoundError as error:
            return _failed(404, str(error))
        except IsADirectoryError as error:
            return _failed(400, str(error))

    async def _write(self, request: web.Request) -> web.StreamResponse:
        machine, content = self._running(request).machine, await request.read()
        folder = request.headers["x-cwd"]
        unpacked = await machine.run("tar", "xzf", "-", "-C", folder, stdin=content)
        if unpacked.exit_code:
            return _failed(400, unpacked.stderr.decode())
        return web.json_response({})


def _failed(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"code": "loopback", "message": message}}, status=status)
