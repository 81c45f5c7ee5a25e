"""A loopback server in place of Runloop: its devboxes, executions, files and disk snapshots.

The unmodified ``runloop_api_client`` connects to it through ``RUNLOOP_BASE_URL``. A request
repeated with its ``x-request-id`` gets the first one's answer, as Runloop's SDK assumes. Not
implemented: users other than root, blueprints, tunnels, secrets, idle times, and shells.
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

HOME = "/home/user"

_SHOWN_LINES = 100
_GONE = ("failure", "shutdown")


class Devbox:
    """A devbox: its machine, what was asked for, and what runs in it."""

    def __init__(self, devbox_id: str, machine: Machine, body: Mapping[str, Any]) -> None:
        self.id = devbox_id
        self.machine = machine
        self.metadata: dict[str, str] = body.get("metadata") or {}
        self.created_ms = int(time.time() * 1000)
        self.status = "running"
        self.executions: dict[str, Execution] = {}

    def describe(self) -> dict[str, object]:
        """Return it as the API shows it."""
        return {
            "id": self.id,
            "status": self.status,
            "metadata": self.metadata,
            "create_time_ms": self.created_ms,
            "capabilities": [],
            "launch_parameters": {},
            "state_transitions": [],
        }


class Execution:
    """A command and what it has printed."""

    def __init__(self, execution_id: str, devbox: Devbox, process: Process) -> None:
        self.id, self._devbox, self.process = execution_id, devbox, process
        self.output = {"stdout": "", "stderr": ""}
        self.ended = asyncio.Event()
        self._collecting = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        collected = {"stdout": b"", "stderr": b""}
        async for name, data in self.process.chunks():
            collected[name] += data
        await self.process.wait()
        self.output = {name: data.decode(errors="replace") for name, data in collected.items()}
        self.ended.set()

    def describe(self) -> dict[str, object]:
        """Return it as the API shows it: with the last lines of its output."""
        shown: dict[str, object] = {"devbox_id": self._devbox.id, "execution_id": self.id}
        if not self.ended.is_set():
            return {**shown, "status": "running"}
        for name, text in self.output.items():
            lines = text.splitlines(keepends=True)
            shown[name] = "".join(lines[-_SHOWN_LINES:])
            shown[f"{name}_truncated"] = len(lines) > _SHOWN_LINES
        return {**shown, "status": "completed", "exit_status": self.process.exit_code}


class RunloopLoopback(LoopbackServer):
    """The server."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.api_key = f"s3cr3t-{secrets.token_hex(16)}"
        self.page_size = 1000
        self.devboxes: dict[str, Devbox] = {}
        self._answers: dict[str, asyncio.Future[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The environment that points the SDK at this server."""
        return {"RUNLOOP_API_KEY": self.api_key, "RUNLOOP_BASE_URL": self.url}

    @property
    def machines(self) -> Mapping[str, Machine]:
        boxes = tuple(self.devboxes.values())
        return {box.id: box.machine for box in boxes if box.status not in _GONE}

    def routes(self) -> Mapping[str, Handler]:
        box, execution = "/v1/devboxes/{id}", "/v1/devboxes/{id}/executions/{execution}"
        return {
            "POST /v1/devboxes/create_and_await_running": self._once(self._create),
            "GET /v1/devboxes": self._list,
            "GET /v1/devboxes/disk_snapshots/{id}/status": self._snapshot_status,
            f"GET {box}": self._get,
            f"POST {box}": self._update,
            f"POST {box}/shutdown": self._shutdown,
            f"POST {box}/suspend": self._suspend,
            f"POST {box}/resume": self._resume,
            f"POST {box}/wait_for_status": self._get,
            f"POST {box}/snapshot_disk_async": self._once(self._snapshot),
            f"POST {box}/execute_async": self._once(self._execute),
            f"POST {execution}/wait_for_status": self._await_execution,
            f"GET {execution}/stream_stdout_updates": self._stream,
            f"GET {execution}/stream_stderr_updates": self._stream,
            f"POST {box}/download_file": self._download,
            f"POST {box}/upload_file": self._upload,
        }

    def refuse(self, request: web.Request) -> web.StreamResponse | None:
        if request.headers.get("Authorization") == f"Bearer {self.api_key}":
            return None
        return _failed(401, "Unauthorized")

    def _once(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            key = request.headers.get("x-request-id") or secrets.token_hex(8)
            if key in self._answers:
                body = await self._answers[key]
            else:
                self._answers[key] = asyncio.get_running_loop().create_future()
                answer = await handler(request)
                assert isinstance(answer, web.Response)
                assert isinstance(answer.body, bytes)
                body = answer.body
                self._answers[key].set_result(body)
            return web.Response(body=body, content_type="application/json")

        return handle

    def _devbox(self, request: web.Request) -> Devbox:
        box = self.devboxes.get(request.match_info["id"])
        if box is None:
            raise web.HTTPNotFound(text=json.dumps({"message": "devbox not found"}))
        return box

    def _running(self, request: web.Request) -> Devbox:
        box = self._devbox(request)
        if box.status != "running":
            raise web.HTTPBadRequest(text=json.dumps({"message": f"devbox is {box.status}"}))
        return box

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        devbox_id = f"dbx_{secrets.token_hex(8)}"
        directory = self.root / devbox_id
        if body.get("snapshot_id"):
            saved = self.root / body["snapshot_id"]
            await copy_disk(saved, directory)
        env = {"HOME": HOME, **(body.get("environment_variables") or {})}
        machine = Machine(directory, env)
        await machine.boot()
        # Tests of every provider look into /workspace.
        script = 'mkdir -p "$0"; [ -L /workspace ] || ln -sT home/user /workspace'
        await machine.run("sh", "-c", f"rmdir /workspace; {script}", HOME)
        self.devboxes[devbox_id] = box = Devbox(devbox_id, machine, body)
        await self.until_answering()
        return web.json_response(box.describe())

    async def _list(self, request: web.Request) -> web.StreamResponse:
        boxes = [box for box in self.devboxes.values() if _is_asked_for(box, request)]
        after = request.query.get("starting_after")
        ids = [box.id for box in boxes]
        start = ids.index(after) + 1 if after in ids else 0
        end = start + min(int(request.query.get("limit", 20)), self.page_size)
        page = [box.describe() for box in boxes[start:end]]
        return web.json_response({"devboxes": page, "has_more": end < len(boxes)})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._devbox(request).describe())

    async def _update(self, request: web.Request) -> web.StreamResponse:
        box, body = self._devbox(request), await request.json()
        box.metadata = body.get("metadata", box.metadata)
        return web.json_response(box.describe())

    async def _shutdown(self, request: web.Request) -> web.StreamResponse:
        box = self._devbox(request)
        await box.machine.remove()
        box.status = "shutdown"
        return web.json_response(box.describe())

    async def _suspend(self, request: web.Request) -> web.StreamResponse:
        box = self._running(request)
        await box.machine.halt()
        box.status = "suspended"
        return web.json_response(box.describe())

    async def _resume(self, request: web.Request) -> web.StreamResponse:
        box = self._devbox(request)
        await box.machine.boot()
        box.status = "running"
        return web.json_response(box.describe())

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        snapshot_id = f"snp_{secrets.token_hex(8)}"
        source = self._running(request).machine.directory
        # What is mounted in the devbox's own namespace is empty here.
        await copy_disk(source, self.root / snapshot_id)
        view = {"id": snapshot_id, "create_time_ms": 0, "metadata": {}, "source_devbox_id": ""}
        return web.json_response(view)

    async def _snapshot_status(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "complete"})

    async def _execute(self, request: web.Request) -> web.StreamResponse:
        box, body = self._running(request), await request.json()
        process = await box.machine.start("bash", "-c", body["command"], cwd=HOME)
        execution = Execution(f"exec_{secrets.token_hex(8)}", box, process)
        box.executions[execution.id] = execution
        return web.json_response(execution.describe())

    def _execution(self, request: web.Request) -> Execution:
        return self._running(request).executions[request.match_info["execution"]]

    async def _await_execution(self, request: web.Request) -> web.StreamResponse:
        execution, body = self._execution(request), await request.json()
        try:
            await asyncio.wait_for(execution.ended.wait(), body["timeout_seconds"])
        except asyncio.TimeoutError:
            return _failed(408, "not yet")
        return web.json_response(execution.describe())

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        output = self._execution(request).output[request.path.split("_")[-2]]
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for start in range(0, len(output), 10_000):
            chunk = json.dumps({"output": output[start : start + 10_000], "offset": start})
            await stream.write(f"data: {chunk}\n\n".encode())
        await stream.write_eof()
        return stream

    async def _download(self, request: web.Request) -> web.StreamResponse:
        path = (await request.json())["path"]
        try:
            return web.Response(body=await self._running(request).machine.read(path))
        except FileNotFoundError as error:
            return _failed(404, str(error))
        except IsADirectoryError as error:
            return _failed(400, str(error))

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        path, part = form["path"], form["file"]
        assert isinstance(path, str)
        content = part.file.read() if isinstance(part, web.FileField) else str(part).encode()
        try:
            await self._running(request).machine.write(path, content)
        except OSError as error:
            return _failed(400, str(error))
        return web.json_response({})


def _is_asked_for(box: Devbox, request: web.Request) -> bool:
    return box.status == request.query.get("status", box.status)


def _failed(status: int, message: str) -> web.Response:
    return web.json_response({"code": str(status), "message": message}, status=status)
