"""The worker processes of `peer.py`: SIDE ADDRESS TASK_QUEUE RUNS.

RUNS is what the worker runs: "workflows", "activities", or "both".
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agents import ModelProvider
from agents.items import ModelResponse
from agents.models.interface import Model
from agents.sandbox.sandboxes import unix_local
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseCustomToolCall, ResponseOutputItem
from peer_workflows import (
    MINUTE,
    OURS,
    PEER,
    SKILLS,
    Agent,
    Commands,
    Files,
    Hold,
    Many,
    Noops,
    Workspace,
    noop,
)
from temporalio import openai_agents as peer
from temporalio.client import Client, Plugin
from temporalio.worker import Worker

from sandbox_core.worker import SandboxPlugin

WORKFLOW_TYPES = [Agent, Commands, Files, Hold, Many, Noops, Workspace]

WORKFLOWS, ACTIVITIES, BOTH = "workflows", "activities", "both"

PATCH = "*** Begin Patch\n*** Update File: a.txt\n@@\n-hello\n+goodbye\n*** End Patch"
SHOW = {"cmd": " && ".join(f"cat .agents/{skill}/SKILL.md" for skill in SKILLS)}

# What the model says, one item a turn; it ends with a message.
SCRIPTS: dict[str, list[ResponseOutputItem]] = {
    "patch": [
        ResponseCustomToolCall(
            type="custom_tool_call", call_id="patch", name="apply_patch", input=PATCH
        )
    ],
    "skills": [function_call("exec_command", SHOW, call_id="show")],
    "lazy skills": [
        *(function_call("load_skill", {"skill_name": s}, call_id=s) for s in SKILLS),
        function_call("exec_command", SHOW, call_id="show"),
    ],
}


_PR_SET_CHILD_SUBREAPER = 36


class ScriptedModels(ModelProvider):
    """Provides a model for the next turn of the script of that name."""

    def __init__(self) -> None:
        done = assistant_message("Done.")
        self._turns = {name: itertools.cycle([*said, done]) for name, said in SCRIPTS.items()}

    def get_model(self, model_name: str | None) -> Model:
        return _Says([[next(self._turns[model_name or ""])]])


class _Says(ScriptedModel):
    """A scripted model that keeps no record: what Temporal has decoded cannot be copied."""

    async def get_response(self, **call: Any) -> ModelResponse:  # type: ignore[override]  # noqa: ANN401 - by name only
        return await super().get_response(**{**call, "input": ""})


class WorkerProcess:
    """A worker of one side, in `folder`; a new one takes its place when it is stuck."""

    def __init__(
        self,
        side: str,
        address: str,
        folder: Path,
        *,
        runs: str = BOTH,
        task_queue: str = "",
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.task_queue = task_queue or f"{side}-{uuid.uuid4().hex[:8]}"
        self.peak_bytes = 0
        self._command = [sys.executable, __file__, side, address, self.task_queue, runs]
        self._environment = environment
        self.folder = folder

    async def start(self) -> None:
        """Start the process and return once it works; if it ends instead, raise what it wrote."""
        log = self.folder / f"{self.task_queue}.log"
        own = {
            "SANDBOX_CORE_PROVIDERS": "local",
            "SANDBOX_CORE_STORAGE": str(self.folder / "storage"),
            "TMPDIR": str(self.folder),
        }
        with log.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self.folder,
                env={**os.environ, **own, **self._environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self._process.stdout is not None
        if await self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the worker did not start: {log.read_text()}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def stop(self, patience: float = 10.0) -> None:
        """End the process, which drains first for as long as `patience`; note its peak memory."""
        assert self._process.stdin is not None
        self.peak_bytes = max(self.peak_bytes, _peak_bytes(self._process.pid))
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), patience)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")  # On Linux only.
    peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text() if status.exists() else "")
    return int(peak[1]) * 1024 if peak else 0


async def serve(side: str, address: str, task_queue: str, runs: str) -> None:
    """Be a worker of one side until standard input ends."""
    # What detaches itself is this process's to reap, so that its CPU is counted here.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # As the provider `local` of sandbox-core makes it.
    backend = unix_local.UnixLocalSandboxClient(inherit_host_environment=False)
    runs_activities = runs != WORKFLOWS
    agents = peer.OpenAIAgentsPlugin(
        model_params=peer.ModelActivityParameters(start_to_close_timeout=MINUTE),
        model_provider=ScriptedModels(),
        sandbox_clients=[peer.SandboxClientProvider("local", backend)] if side == PEER else [],
        register_activities=runs_activities,
    )
    plugins: list[Plugin] = [agents]
    if side == OURS:
        plugins.append(SandboxPlugin(local_sources=["skills"], register_activities=runs_activities))
    client = await Client.connect(address, plugins=plugins)
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[]
        if runs == ACTIVITIES
        else [Agent, Commands, Files, Hold, Many, Noops, Workspace],
        activities=[noop] if runs_activities else [],
    ):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
