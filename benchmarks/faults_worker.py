"""A worker of `faults.py`, with the given fault: SIDE ADDRESS TASK_QUEUE FAULT.

It prints "loaded", starts when it is told to, and prints "ready" when the server knows it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from agents import ModelProvider, Usage
from agents.items import ModelResponse
from agents.models.interface import Model
from agents.sandbox import Manifest
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from agents.testing import ScriptedModel, assistant_message, function_call
from faults_workflows import Agent, Session
from openai.types.responses import ResponseCustomToolCall, ResponseOutputItem
from peer_workflows import MINUTE, OURS, PEER
from temporalio import openai_agents as peer
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, Plugin
from temporalio.worker import Worker

from sandbox_core.worker import SandboxPlugin
from sandbox_local import LocalProvider
from sandbox_local.client import LabellingLocalSandboxClient

SLOW_CREATE_S, RESUME_S = 8.0, 0.2

PATCH = "*** Begin Patch\n*** Update File: missing.txt\n@@\n-hello\n+goodbye\n*** End Patch"
SCRIPTS: dict[str, ResponseOutputItem] = {
    "apply_patch": ResponseCustomToolCall(
        type="custom_tool_call", call_id="call", name="apply_patch", input=PATCH
    ),
    "view_image": function_call("view_image", {"path": "missing.png"}, call_id="call"),
    "exec_command": function_call(
        "exec_command", {"cmd": "sleep 5", "yield_time_ms": 1000}, call_id="call"
    ),
}


class Backend(UnixLocalSandboxClient):
    """The SDK's client with the fault that it is given, if it is given one.

    Each resume is noted, and takes a while, as one across a network does.
    """

    def __init__(self, fault: str, folder: Path) -> None:
        super().__init__(inherit_host_environment=False)  # As sandbox-core's provider makes it.
        self._fault = fault
        self._folder = folder

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: UnixLocalSandboxClientOptions | None = None,
    ) -> SandboxSession:
        made = await super().create(snapshot=snapshot, manifest=manifest, options=options)
        if self._fault == "kill after create":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault == "slow create" and not (self._folder / "created").exists():
            (self._folder / "created").touch()
            try:
                await asyncio.sleep(SLOW_CREATE_S)
            finally:
                (self._folder / "answered").touch()
        return made

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        with (self._folder / "resumes").open("a") as resumes:
            resumes.write("resume\n")
        await asyncio.sleep(RESUME_S)
        return await super().resume(state)

    def _wrap_session(
        self, inner: BaseSandboxSession, *, instrumentation: Instrumentation | None = None
    ) -> SandboxSession:
        session = super()._wrap_session(inner, instrumentation=instrumentation)
        if self._fault == "no pty":
            session._inner.supports_pty = lambda: False  # type: ignore[method-assign]  # this one has none
        return session


class LabellingBackend(Backend, LabellingLocalSandboxClient):
    """The same with labels, which sandbox-core's provider adds."""


class Local(LocalProvider):
    """The provider of sandbox-core, with the fault."""

    def __init__(self, fault: str, folder: Path) -> None:
        self._backend = LabellingBackend(fault, folder)

    def create_client(self) -> LabellingBackend:
        return self._backend


class Scripted(ModelProvider):
    """Provides models that call one tool, and are done when they have its answer."""

    def get_model(self, model_name: str | None) -> Model:
        return _CallsOnce(SCRIPTS[model_name or ""])


class _CallsOnce(ScriptedModel):
    def __init__(self, call: ResponseOutputItem) -> None:
        super().__init__([])
        self._call = call

    async def get_response(self, *_: Any, **call: Any) -> ModelResponse:  # noqa: ANN401 - the SDK's signature
        told = call["input"][-1]
        said = assistant_message("Done.") if "output" in told else self._call
        return ModelResponse(output=[said], usage=Usage(), response_id=None)


async def serve(side: str, address: str, task_queue: str, fault: str) -> None:
    """Be a worker of one side until this is killed."""
    print("loaded", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    folder = Path.cwd()
    agents = peer.OpenAIAgentsPlugin(
        model_params=peer.ModelActivityParameters(start_to_close_timeout=MINUTE),
        model_provider=Scripted(),
        sandbox_clients=[peer.SandboxClientProvider("local", Backend(fault, folder))]
        if side == PEER
        else [],
    )
    plugins: list[Plugin] = [agents]
    if side == OURS:
        plugins.append(SandboxPlugin(providers=[Local(fault, folder)]))
    client = await Client.connect(address, plugins=plugins)
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[Agent, Session],
        disable_eager_activity_execution=fault == "no eager dispatch",
        # The workflows of a killed worker go to another one at once.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=0.5),
    ):
        await _polls(client, task_queue)
        print("ready", flush=True)
        await asyncio.Event().wait()


async def _polls(client: Client, task_queue: str) -> None:
    """Return when the server knows this process as a worker of the task queue."""
    asked = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    while True:
        described = await client.workflow_service.describe_task_queue(asked)
        if client.identity in {poller.identity for poller in described.pollers}:
            return
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
