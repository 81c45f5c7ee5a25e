"""A loopback stand-in for Daytona: enough of its REST and toolbox API to run the real SDK against.

Daytona is a hosted service, which a test suite can neither reach nor have an account with. This
server takes its place: the unmodified ``daytona`` package, pointed at it with ``DAYTONA_API_URL``,
creates sandboxes that are directories on this machine, and the commands it sends really run, as
the current user. ``daytona_loopback_sandbox`` says how a sandbox's paths map to its directory, and
the limits of that.

In a test::

    with DaytonaLoopback(tmp_path) as server:
        client = DaytonaSandboxClient(api_key=server.api_key, api_url=server.api_url)

From a shell, until SIGTERM or SIGINT; the one line it prints is the environment to use, as JSON::

    python daytona_loopback.py --root DIR

What it does not do:

* Isolate. No container, user, network or resource limit stands between a command and this machine.
* Anything but what the OpenAI Agents SDK's Daytona client needs: other endpoints (snapshots,
  volumes, git, file search, code interpreter, the event gateway) answer 501, and the SDK polls.
* Keep a shell between the commands of a session: each starts afresh in the home directory.
* Stop, archive or delete idle sandboxes; intervals are stored and returned, and never elapse.
* Lag: lists are true, and a sandbox is there or gone at once. A test that wants it otherwise
  clears ``starts_at_once``, or sets a sandbox's ``listed_labels``, ``state``, ``desired_state``.
* Honour the image, snapshot or resources, or sign a preview URL: it is the port on 127.0.0.1.
* Give processes time to stop: they get SIGKILL at once where Daytona begins with SIGTERM.
* Take terminal input lines of more than 4095 bytes; the terminal's shell has no line editing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import re
import secrets
import signal
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import BodyPartReader, WSMsgType, web
from daytona_loopback_errors import ApiError, file_error
from daytona_loopback_sandbox import HOME, Job, Sandbox, SandboxNotStarted, Terminal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ToolboxHandler = Callable[[Sandbox, web.Request], Awaitable[web.StreamResponse]]
Found = TypeVar("Found")

_DEFAULT_EXECUTE_TIMEOUT_S = 360
_KEPT_SETTINGS = ("snapshot", "user", "target", "cpu", "memory", "disk", "autoStopInterval")
_PTY_EXIT_CONTROL = "X-Daytona-Pty-Exit-Control"
_PTY_ENVS = "X-Daytona-Pty-Envs~"


def _find(known: Mapping[str, Found], request: web.Request, kind: str) -> Found:
    found = known.get(request.match_info[kind])
    if found is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"{kind} not found")
    return found


def _find_command(sandbox: Sandbox, request: web.Request) -> Job:
    return _find(_find(sandbox.sessions, request, "session"), request, "command")


class DaytonaLoopback:
    """The server, in a thread and event loop of its own while its context is entered."""

    def __init__(self, root: Path, *, api_key: str | None = None) -> None:
        self.root = root.resolve()
        if not re.fullmatch(r"[\w./@%+=:,-]+", str(self.root)):
            raise ValueError(f"a path that a shell would have to quote cannot be a root: {root}")
        self.api_key = api_key or f"s3cr3t-{secrets.token_hex(16)}"
        self.created = 0
        self.deleted = 0
        self.page_size = 100
        self.starts_at_once = True
        self.creating = threading.Event()
        self._base_url = ""
        self._sandboxes: dict[str, Sandbox] = {}
        self._thread: threading.Thread | None = None
        self._stop_serving: Callable[[], object] | None = None

    @property
    def api_url(self) -> str:
        """The value for ``DAYTONA_API_URL``."""
        return f"{self._base_url}/api"

    @property
    def environment(self) -> dict[str, str]:
        """The environment that points the SDK at this server."""
        return {"DAYTONA_API_URL": self.api_url, "DAYTONA_API_KEY": self.api_key}

    @property
    def sandboxes(self) -> Mapping[str, Sandbox]:
        """The sandboxes that exist, by id."""
        return MappingProxyType(self._sandboxes)

    def __enter__(self):  # type: ignore[no-untyped-def]  # typing.Self is of Python 3.11.
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        self._base_url = f"http://127.0.0.1:{ready.result()}"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stop_serving is not None
        assert self._thread is not None
        self._stop_serving()
        self._thread.join()

    def _run(self, ready: Future[int]) -> None:
        try:
            asyncio.run(self._serve(ready))
        finally:
            ready.cancel()  # Does nothing, unless serving failed before it was ready.

    async def _serve(self, ready: Future[int]) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        self._stop_serving = lambda: loop.call_soon_threadsafe(stopping.set)
        runner = web.AppRunner(self._application(), shutdown_timeout=5)
        try:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            ready.set_result(runner.addresses[0][1])
            await stopping.wait()
            await site.stop()
            for sandbox in tuple(self._sandboxes.values()):
                await sandbox.destroy()
            self._sandboxes.clear()
        finally:
            await runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._answer_errors])
        api: dict[str, Handler] = {
            "POST /sandbox": self._create,
            "GET /sandbox": self._list,
            "GET /sandbox/{id}": self._get,
            "DELETE /sandbox/{id}": self._delete,
            "POST /sandbox/{id}/start": self._start,
            "POST /sandbox/{id}/stop": self._stop,
            "PUT /sandbox/{id}/labels": self._replace_labels,
            "GET /sandbox/{id}/ports/{port}/signed-preview-url": self._preview_url,
        }
        toolbox: dict[str, ToolboxHandler] = {
            "POST /process/execute": self._execute,
            "POST /process/session": self._create_session,
            "DELETE /process/session/{session}": self._delete_session,
            "POST /process/session/{session}/exec": self._exec_in_session,
            "GET /process/session/{session}/command/{command}": self._get_command,
            "GET /process/session/{session}/command/{command}/logs": self._get_logs,
            "GET /process/pty/create-connect": self._create_terminal,
            "DELETE /process/pty/{terminal}": self._delete_terminal,
            "POST /process/pty/{terminal}/resize": self._resize_terminal,
            "GET /process/pty/{terminal}/connect": self._connect_terminal,
            "POST /files/folder": self._create_folder,
            "POST /files/bulk-upload": self._upload,
            "POST /files/bulk-download": self._download,
            "GET /files/download": self._download_one,
        }
        for route, handler in api.items():
            method, path = route.split()
            app.router.add_route(method, f"/api{path}", handler)
        for route, toolbox_handler in toolbox.items():
            method, path = route.split()
            handler = self._in_sandbox(toolbox_handler)
            app.router.add_route(method, f"/toolbox/{{id}}{path}", handler)
        app.router.add_route("*", "/{path:.*}", self._unknown)
        return app

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.headers.get("Authorization") != f"Bearer {self.api_key}":
                raise ApiError(HTTPStatus.UNAUTHORIZED, "Invalid credentials")
            return await handler(request)
        except json.JSONDecodeError as error:
            failure = ApiError(HTTPStatus.BAD_REQUEST, str(error), "INVALID_REQUEST_BODY")
        except ApiError as error:
            failure = error
        return web.json_response(failure.envelope(request), status=failure.status)

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        raise ApiError(HTTPStatus.NOT_IMPLEMENTED, f"no {request.method} here: {request.path}")

    def _in_sandbox(self, handler: ToolboxHandler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            sandbox = self._sandbox(request)
            try:
                if sandbox.state != "started":
                    raise SandboxNotStarted
                return await handler(sandbox, request)
            except SandboxNotStarted:
                raise ApiError(HTTPStatus.BAD_REQUEST, "Is the Sandbox started?") from None
            except OSError as error:
                raise file_error(sandbox, error) from error

        return handle

    def _sandbox(self, request: web.Request) -> Sandbox:
        wanted = request.match_info["id"]
        for sandbox in self._sandboxes.values():
            if wanted in (sandbox.id, sandbox.name):
                return sandbox
        raise ApiError(HTTPStatus.NOT_FOUND, f"Sandbox with ID or name {wanted} not found")

    def _describe(self, sandbox: Sandbox) -> dict[str, object]:
        return {**sandbox.describe(), "toolboxProxyUrl": f"{self._base_url}/toolbox"}

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        sandbox_id = str(uuid.uuid4())
        name = body.get("name") or sandbox_id
        if any(sandbox.name == name for sandbox in self._sandboxes.values()):
            raise ApiError(HTTPStatus.CONFLICT, f"Sandbox with name {name} already exists")
        sandbox = Sandbox(
            id=sandbox_id,
            name=name,
            directory=self.root / sandbox_id,
            labels=body.get("labels") or {},
            env=body.get("env") or {},
            settings={key: body[key] for key in _KEPT_SETTINGS if body.get(key) is not None},
        )
        if not self.starts_at_once:
            sandbox.state = "creating"
        self._sandboxes[sandbox_id] = sandbox
        self.created += 1
        self.creating.set()
        return web.json_response(self._describe(sandbox))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        labels = json.loads(request.query.get("labels") or "{}")
        states = request.query.getall("states", [])
        found = [
            {**self._describe(sandbox), "labels": listed}
            for sandbox in self._sandboxes.values()
            if labels.items() <= (listed := sandbox.listed_labels or sandbox.labels).items()
            and request.query.get("id", sandbox.id) == sandbox.id
            and sandbox.name.startswith(request.query.get("name", ""))
            and (not states or sandbox.state in states)
        ]
        start = int(request.query.get("cursor") or 0)
        end = start + int(request.query.get("limit") or self.page_size)
        cursor = str(end) if end < len(found) else None
        return web.json_response({"items": found[start:end], "nextCursor": cursor})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._describe(self._sandbox(request)))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        sandbox = self._sandboxes.pop(self._sandbox(request).id)
        await sandbox.destroy()
        self.deleted += 1
        return web.json_response(self._describe(sandbox))

    async def _start(self, request: web.Request) -> web.StreamResponse:
        sandbox = self._sandbox(request)
        sandbox.state = "started"
        return web.json_response(self._describe(sandbox))

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        sandbox = self._sandbox(request)
        await sandbox.stop("stopped")
        return web.json_response(self._describe(sandbox))

    async def _replace_labels(self, request: web.Request) -> web.StreamResponse:
        sandbox = self._sandbox(request)
        sandbox.labels = (await request.json())["labels"]
        return web.json_response({"labels": sandbox.labels})

    async def _preview_url(self, request: web.Request) -> web.StreamResponse:
        sandbox, port = self._sandbox(request), int(request.match_info["port"])
        signed = {"token": secrets.token_hex(8), "url": f"http://127.0.0.1:{port}"}
        return web.json_response({"sandboxId": sandbox.id, "port": port, **signed})

    async def _execute(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        job = Job(sandbox, uuid.uuid4().hex, body["command"])
        await sandbox.launch(job, cwd=body.get("cwd"), env=body.get("envs"))
        finished = asyncio.create_task(job.finished.wait())
        await asyncio.wait([finished], timeout=body.get("timeout") or _DEFAULT_EXECUTE_TIMEOUT_S)
        if not finished.done():
            await job.kill()
            message, code = "command execution timeout", "PROCESS_EXECUTION_TIMEOUT"
            raise ApiError(HTTPStatus.REQUEST_TIMEOUT, message, code)
        return web.json_response({"exitCode": job.exit_code, "result": job.output()})

    async def _create_session(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        session_id = (await request.json())["sessionId"]
        if session_id in sandbox.sessions:
            raise ApiError(HTTPStatus.CONFLICT, "session already exists")
        sandbox.sessions[session_id] = {}
        return web.Response(status=HTTPStatus.CREATED)

    async def _delete_session(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        jobs = _find(sandbox.sessions, request, "session").values()
        del sandbox.sessions[request.match_info["session"]]
        for job in jobs:
            await job.kill()
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _exec_in_session(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        job = Job(sandbox, str(uuid.uuid4()), body["command"])
        _find(sandbox.sessions, request, "session")[job.id] = job
        detached = bool(body.get("runAsync") or body.get("async"))
        await sandbox.launch(job, interactive=detached)
        if detached:
            return web.json_response({"cmdId": job.id}, status=HTTPStatus.ACCEPTED)
        await job.finished.wait()
        return web.json_response({"cmdId": job.id, "exitCode": job.exit_code, **job.logs()})

    async def _get_command(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        return web.json_response(_find_command(sandbox, request).describe())

    async def _get_logs(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        job, socket = _find_command(sandbox, request), web.WebSocketResponse()
        if not socket.can_prepare(request).ok:
            return web.json_response(job.logs())
        await socket.prepare(request)

        async def send() -> None:
            async for stream, data in job.follow():
                await socket.send_bytes(stream + data)

        await _converse(socket, send())
        await socket.close()
        return socket

    async def _create_terminal(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        env: dict[str, str] = {}
        for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
            if protocol.strip().startswith(_PTY_ENVS):
                encoded = protocol.strip().removeprefix(_PTY_ENVS)
                env = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        options = request.query
        size = int(options.get("cols", 80)), int(options.get("rows", 24))
        terminal = Terminal(sandbox, options["id"], options.get("cwd", HOME), *size)
        if terminal.id in sandbox.terminals:
            raise ApiError(HTTPStatus.CONFLICT, f"PTY session {terminal.id} already exists")
        sandbox.terminals[terminal.id] = terminal
        try:
            await sandbox.launch(terminal, cwd=terminal.cwd, env=env)
        except (OSError, SandboxNotStarted):
            sandbox.terminals.pop(terminal.id, None)
            raise
        return await self._attach(terminal, request)

    async def _connect_terminal(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        terminal = _find(sandbox.terminals, request, "terminal")
        return await self._attach(terminal, request, start=len(terminal.chunks))

    async def _attach(
        self, terminal: Terminal, request: web.Request, start: int = 0
    ) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(_PTY_EXIT_CONTROL,))
        await socket.prepare(request)
        await socket.send_json({"type": "control", "status": "connected"})

        async def send() -> None:
            async for _, data in terminal.follow(start):
                await socket.send_bytes(data)

        await _converse(socket, send(), terminal.write)
        # Without an exit code it is the client that left; then nobody reads this.
        reason = json.dumps({"exitCode": terminal.exit_code})
        await socket.close(code=1011 if terminal.exit_code else 1000, message=reason.encode())
        return socket

    async def _delete_terminal(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        await _find(sandbox.terminals, request, "terminal").kill()
        sandbox.terminals.pop(request.match_info["terminal"], None)
        return web.json_response({"message": "PTY session deleted"})

    async def _resize_terminal(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        terminal = _find(sandbox.terminals, request, "terminal")
        if terminal.finished.is_set():
            raise ApiError(HTTPStatus.GONE, "PTY session has ended")
        terminal.resize(body["cols"], body["rows"])
        return web.json_response(terminal.describe())

    async def _create_folder(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        path = sandbox.paths.locate(request.query["path"])
        if not path.is_dir():
            path.mkdir(parents=True)
            path.chmod(int(request.query.get("mode") or "755", 8))
        return web.Response(status=HTTPStatus.CREATED)

    async def _upload(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        # Each file is a part "files[n].path" followed by a part "files[n].file".
        path: Path | None = None
        form = await request.multipart()
        while (part := await form.next()) is not None:
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise ApiError(HTTPStatus.BAD_REQUEST, "unexpected part in an upload")
            if part.name.endswith(".path"):
                path = sandbox.paths.locate(await part.text())
            elif path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    while chunk := await part.read_chunk():
                        file.write(chunk)
        return web.Response()

    async def _download_one(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        try:
            content = await asyncio.to_thread(
                sandbox.paths.locate(request.query["path"]).read_bytes
            )
        except OSError as error:
            raise file_error(sandbox, error) from error
        return web.Response(body=content, content_type="application/octet-stream")

    async def _download(self, sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
        boundary = uuid.uuid4().hex
        body = bytearray()
        for name in (await request.json())["paths"]:
            kind, media_type = "file", "application/octet-stream"
            try:
                content = await asyncio.to_thread(sandbox.paths.locate(name).read_bytes)
            except OSError as error:
                kind, media_type = "error", "application/json"
                content = json.dumps(file_error(sandbox, error).envelope(request)).encode()
            body += (
                f"--{boundary}\r\nContent-Type: {media_type}\r\nContent-Disposition: form-data; "
                f"name=\"{kind}\"; filename*=UTF-8''{quote(name, safe='')}\r\n\r\n"
            ).encode()
            body += content + b"\r\n"
        body += f"--{boundary}--\r\n".encode()
        media_type = f"multipart/form-data; boundary={boundary}"
        return web.Response(body=bytes(body), headers={"Content-Type": media_type})


async def _converse(
    socket: web.WebSocketResponse,
    send: Coroutine[Any, Any, None],
    receive: Callable[[str], Awaitable[None]] | None = None,
) -> None:
    """Send until there is no more to send or the client is gone, and pass on what it says."""

    async def listen() -> None:
        async for message in socket:
            if receive is None or message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            with contextlib.suppress(OSError):  # What it is meant for has ended: so will send().
                text = message.type is WSMsgType.TEXT
                await receive(message.data if text else message.data.decode(errors="replace"))

    tasks = [asyncio.create_task(send), asyncio.create_task(listen())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, ConnectionError):
            raise result


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="Serve a loopback stand-in for Daytona.")
    parser.add_argument("--root", type=Path, required=True, help="where sandboxes get directories")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with DaytonaLoopback(arguments.root) as server:
        sys.stdout.write(json.dumps(server.environment) + "\n")
        sys.stdout.flush()
        stop.wait()


if __name__ == "__main__":
    main()
