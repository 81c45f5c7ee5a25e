"""A loopback server in place of Modal: its gRPC service, and the router that runs commands.

The unmodified ``modal`` package connects to it through ``MODAL_SERVER_URL``. As with Modal, a
request repeated with its idempotency key gets the first one's answer, and an ended sandbox is known
but never runs again. Not implemented: images, snapshots, mounts, tunnels, limits on time and
resources, users other than root.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream
from loopback.faults import Handler as HttpHandler
from loopback.machine import Machine, Process
from loopback.server import LoopbackServer
from loopback.tls import issue
from modal_proto import api_pb2 as api
from modal_proto import task_command_router_pb2 as router

SUCCESS: Final = api.GenericResult.GENERIC_STATUS_SUCCESS
TERMINATED: Final = api.GenericResult.GENERIC_STATUS_TERMINATED
_JWT: Final = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
    for part in ({"alg": "none"}, {"exp": 2**40}, {})
)
_CHUNK: Final = 512 * 1024

Method = Callable[[Any], Awaitable[Message]]


class Sandbox:
    """A sandbox: its machine, what was asked for, and the commands in it."""

    def __init__(
        self, sandbox_id: str, machine: Machine, request: api.SandboxCreateRequest
    ) -> None:
        self.id, self.machine = sandbox_id, machine
        self.workdir = request.definition.workdir or "/root"
        self.tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        self.created = time.time()
        self.ended = asyncio.Event()
        self.commands: dict[str, Command] = {}

    @property
    def result(self) -> api.GenericResult:
        return api.GenericResult(status=TERMINATED) if self.ended.is_set() else api.GenericResult()


class Command:
    """A command and what it has written; it is read from any offset, and as often as one likes."""

    def __init__(self, process: Process, limit: int | None) -> None:
        self.process = process
        self.output = {"stdout": bytearray(), "stderr": bytearray()}
        self.changed = asyncio.Condition()
        self.closed = False
        self.written = 0
        self._collecting = asyncio.create_task(self._collect())
        self._limiting = None if limit is None else asyncio.create_task(self._end(limit))

    async def _collect(self) -> None:
        async for name, data in self.process.chunks():
            async with self.changed:
                self.output["stdout" if name == "pty" else name] += data
                self.changed.notify_all()
        await self.process.wait()
        async with self.changed:
            self.closed = True
            self.changed.notify_all()

    async def _end(self, limit: int) -> None:
        await asyncio.wait({self._collecting}, timeout=limit)
        if not self.closed:
            self.process.kill()


class ModalLoopback(LoopbackServer):
    """The server."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.token = ("ak-loopback", f"s3cr3t-{secrets.token_hex(16)}")
        self.page_size = 100
        self.sandboxes: dict[str, Sandbox] = {}
        self._secrets: dict[str, dict[str, str]] = {}
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._failing: list[tuple[str, Status | None, str]] = []
        self._router = ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment that points Modal's SDK at this server."""
        token_id, token_secret = self.token
        return {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": token_id,
            "MODAL_TOKEN_SECRET": token_secret,
            "MODAL_CONFIG_PATH": str(self.root / "no-such-file"),
        }

    @property
    def machines(self) -> Mapping[str, Machine]:
        live = [box for box in tuple(self.sandboxes.values()) if not box.ended.is_set()]
        return {box.id: box.machine for box in live}

    def routes(self) -> Mapping[str, HttpHandler]:
        return {}

    def answer_with(
        self, method: str, status: Status | None, message: str = "", times: int = 1
    ) -> None:
        """Have the next calls of a method fail; with None they are done, and then reset."""
        self._failing += [(method, status, message)] * times

    async def _serve(self, ready: Future[int]) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        self._stop_serving = lambda: loop.call_soon_threadsafe(stopping.set)
        context, _ = issue(self.root, "localhost")
        context.set_alpn_protocols(["h2"])
        control, commands = (
            Server([_Service(self._control())]),
            Server([_Service(self._commands())]),
        )
        try:
            await commands.start("127.0.0.1", 0, ssl=context)
            self._router = f"https://127.0.0.1:{_port(commands)}"
            await control.start("127.0.0.1", 0)
            ready.set_result(_port(control))
            await stopping.wait()
        finally:
            for server in (control, commands):
                server.close()
            for box in self.sandboxes.values():
                await box.machine.remove()

    def _control(self) -> dict[str, Handler]:
        methods: dict[str, tuple[Method, type[Message], type[Message]]] = {
            "ClientHello": (self._hello, Empty, api.ClientHelloResponse),
            "SandboxTagsSet": (self._tags_set, api.SandboxTagsSetRequest, Empty),
        }
        for method in (
            self._app_get_or_create,
            self._environment_get_or_create,
            self._image_get_or_create,
            self._image_from_id,
            self._secret_get_or_create,
            self._sandbox_create,
            self._sandbox_wait,
            self._sandbox_list,
            self._sandbox_tags_get,
            self._sandbox_terminate,
            self._sandbox_get_task_id,
            self._task_get_command_router_access,
        ):
            name = _rpc_of(method)
            methods[name] = (
                method,
                getattr(api, f"{name}Request"),
                getattr(api, f"{name}Response"),
            )
        return {
            f"/modal.client.ModalClient/{name}": Handler(
                self._unary(name, method), Cardinality.UNARY_UNARY, asked, answered
            )
            for name, (method, asked, answered) in methods.items()
        }

    def _commands(self) -> dict[str, Handler]:
        handlers = {
            f"/modal.task_command_router.TaskCommandRouter/{_rpc_of(method)}": Handler(
                self._unary(_rpc_of(method), method),
                Cardinality.UNARY_UNARY,
                getattr(router, f"{_rpc_of(method)}Request"),
                getattr(router, f"{_rpc_of(method)}Response"),
            )
            for method in (
                self._task_exec_start,
                self._task_exec_stdin_write,
                self._task_exec_poll,
                self._task_exec_wait,
            )
        }
        handlers["/modal.task_command_router.TaskCommandRouter/TaskExecStdioRead"] = Handler(
            self._task_exec_stdio_read,
            Cardinality.UNARY_STREAM,
            router.TaskExecStdioReadRequest,
            router.TaskExecStdioReadResponse,
        )
        return handlers

    def _unary(self, name: str, method: Method) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def answer(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            assert request is not None
            metadata: Mapping[str, Any] = stream.metadata or {}
            self.requests.append(name)
            given = (metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret"))
            if given != self.token and "authorization" not in metadata:
                raise GRPCError(Status.UNAUTHENTICATED, "the token is not valid")
            fault = next((each for each in self._failing if each[0] == name), None)
            if fault is not None:
                self._failing.remove(fault)
                if fault[1] is not None:
                    raise GRPCError(fault[1], fault[2])
            done = await self._once(str(metadata.get("x-idempotency-key", "")), method, request)
            if fault is not None:
                await stream.cancel()
                return
            await stream.send_message(done)

        return answer

    async def _once(self, key: str, method: Method, request: Message) -> Message:
        if not key:
            return await method(request)
        if key not in self._answers:
            self._answers[key] = asyncio.ensure_future(method(request))
        return await asyncio.shield(self._answers[key])

    # --- The service ----------------------------------------------------------------------------

    async def _hello(self, _: Empty) -> Message:
        return api.ClientHelloResponse()

    async def _app_get_or_create(self, request: api.AppGetOrCreateRequest) -> Message:
        return api.AppGetOrCreateResponse(app_id=f"ap-{request.app_name}")

    async def _environment_get_or_create(self, _: api.EnvironmentGetOrCreateRequest) -> Message:
        settings = api.EnvironmentSettings(image_builder_version="2025.06")
        metadata = api.EnvironmentMetadata(name="main", settings=settings)
        return api.EnvironmentGetOrCreateResponse(environment_id="en-main", metadata=metadata)

    async def _image_get_or_create(self, _: api.ImageGetOrCreateRequest) -> Message:
        result = api.GenericResult(status=SUCCESS)
        return api.ImageGetOrCreateResponse(
            image_id="im-loopback", result=result, metadata=api.ImageMetadata()
        )

    async def _image_from_id(self, request: api.ImageFromIdRequest) -> Message:
        return api.ImageFromIdResponse(image_id=request.image_id, metadata=api.ImageMetadata())

    async def _secret_get_or_create(self, request: api.SecretGetOrCreateRequest) -> Message:
        secret_id = f"st-{secrets.token_hex(8)}"
        self._secrets[secret_id] = dict(request.env_dict)
        return api.SecretGetOrCreateResponse(secret_id=secret_id)

    async def _sandbox_create(self, request: api.SandboxCreateRequest) -> Message:
        sandbox_id = f"sb-{secrets.token_hex(11)}"
        variables: dict[str, str] = {}
        for secret_id in request.definition.secret_ids:
            variables |= self._secrets[secret_id]
        box = Sandbox(sandbox_id, Machine(self.root / sandbox_id, variables), request)
        await box.machine.boot()
        await box.machine.run("mkdir", "-p", "--", box.workdir, cwd="/")
        self.sandboxes[sandbox_id] = box
        await self.until_answering()
        return api.SandboxCreateResponse(sandbox_id=sandbox_id)

    def _box(self, sandbox_id: str) -> Sandbox:
        if sandbox_id not in self.sandboxes:
            raise GRPCError(Status.NOT_FOUND, f"sandbox {sandbox_id} not found")
        return self.sandboxes[sandbox_id]

    async def _sandbox_wait(self, request: api.SandboxWaitRequest) -> Message:
        box = self._box(request.sandbox_id)
        if request.timeout:
            waiting = asyncio.ensure_future(box.ended.wait())
            await asyncio.wait({waiting}, timeout=request.timeout)
            waiting.cancel()
        return api.SandboxWaitResponse(result=box.result)

    async def _sandbox_list(self, request: api.SandboxListRequest) -> Message:
        wanted = {tag.tag_name: tag.tag_value for tag in request.tags}
        found = [
            box
            for box in self.sandboxes.values()
            if not box.ended.is_set()
            and wanted.items() <= box.tags.items()
            and (not request.before_timestamp or box.created < request.before_timestamp)
        ]
        found.sort(key=lambda box: -box.created)
        shown = [api.SandboxInfo(id=box.id, created_at=box.created) for box in found]
        return api.SandboxListResponse(sandboxes=shown[: self.page_size])

    async def _sandbox_tags_get(self, request: api.SandboxTagsGetRequest) -> Message:
        tags = self._box(request.sandbox_id).tags.items()
        return api.SandboxTagsGetResponse(
            tags=[api.SandboxTag(tag_name=name, tag_value=value) for name, value in tags]
        )

    async def _tags_set(self, request: api.SandboxTagsSetRequest) -> Message:
        box = self._box(request.sandbox_id)
        box.tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        return Empty()

    async def _sandbox_terminate(self, request: api.SandboxTerminateRequest) -> Message:
        box = self._box(request.sandbox_id)
        await box.machine.remove()
        box.ended.set()
        return api.SandboxTerminateResponse()

    async def _sandbox_get_task_id(self, request: api.SandboxGetTaskIdRequest) -> Message:
        box = self._box(request.sandbox_id)
        if box.ended.is_set():
            return api.SandboxGetTaskIdResponse(task_result=box.result)
        return api.SandboxGetTaskIdResponse(task_id=f"ta-{box.id}")

    async def _task_get_command_router_access(
        self, _: api.TaskGetCommandRouterAccessRequest
    ) -> Message:
        return api.TaskGetCommandRouterAccessResponse(jwt=_JWT, url=self._router)

    # --- Commands -------------------------------------------------------------------------------

    def _command(self, request: Any) -> Command:  # noqa: ANN401 - any request about a command
        box = self._box(request.task_id.removeprefix("ta-"))
        if box.ended.is_set() or request.exec_id not in box.commands:
            raise GRPCError(Status.NOT_FOUND, "the sandbox has ended")
        return box.commands[request.exec_id]

    async def _task_exec_start(self, request: router.TaskExecStartRequest) -> Message:
        box = self._box(request.task_id.removeprefix("ta-"))
        if box.ended.is_set():
            raise GRPCError(Status.NOT_FOUND, "the sandbox has ended")
        if request.exec_id not in box.commands:
            terminal = request.HasField("pty_info")
            process = await box.machine.start(
                *request.command_args,
                cwd=request.workdir or box.workdir,
                env=dict(request.env),
                tty=(24, 80) if terminal else None,
                stdin=True,
            )
            limit = request.timeout_secs if request.HasField("timeout_secs") else None
            box.commands[request.exec_id] = Command(process, limit)
        return router.TaskExecStartResponse()

    async def _task_exec_stdin_write(self, request: router.TaskExecStdinWriteRequest) -> Message:
        command = self._command(request)
        new = request.data[max(0, command.written - request.offset) :]
        command.written += len(new)
        try:
            if new:
                await command.process.write(new)
        except ConnectionError:
            pass  # It has ended, or does not read.
        if request.eof:
            command.process.close_stdin()
        return router.TaskExecStdinWriteResponse()

    async def _task_exec_poll(self, request: router.TaskExecPollRequest) -> Message:
        command = self._command(request)
        if not command.closed:
            return router.TaskExecPollResponse()
        return router.TaskExecPollResponse(code=command.process.exit_code or 0)

    async def _task_exec_wait(self, request: router.TaskExecWaitRequest) -> Message:
        command = self._command(request)
        async with command.changed:
            await command.changed.wait_for(lambda: command.closed)
        return router.TaskExecWaitResponse(code=command.process.exit_code or 0)

    async def _task_exec_stdio_read(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        assert request is not None
        command = self._command(request)
        errors = request.file_descriptor == router.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDERR
        output, sent = command.output["stderr" if errors else "stdout"], request.offset
        while True:
            async with command.changed:
                await command.changed.wait_for(lambda: command.closed or len(output) > sent)  # noqa: B023
            while sent < len(output):
                data = bytes(output[sent : sent + _CHUNK])
                await stream.send_message(router.TaskExecStdioReadResponse(data=data))
                sent += len(data)
            if command.closed:
                return


class _Service:
    """Some methods, as grpclib takes them."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def __mapping__(self) -> Mapping[str, Handler]:
        return self._handlers


def _rpc_of(method: Method) -> str:
    return "".join(word.title() for word in method.__name__.strip("_").split("_"))


def _port(server: Server) -> int:
    assert isinstance(server._server, asyncio.base_events.Server)
    port: int = server._server.sockets[0].getsockname()[1]
    return port
