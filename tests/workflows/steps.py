"""A workflow that uses a session as directed, step by step."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from agents.editor import ApplyPatchOperation
from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import RemoteSnapshotSpec
from agents.sandbox.types import ExecResult
from temporalio import workflow
from temporalio.workflow import ActivityConfig

from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.workflow import temporal_sandbox_client


@dataclass
class Step:
    """One call of a session: its method, and its arguments as JSON has them.

    Attributes:
        method: The method's name.
        args: Its arguments; a command, or the path to begin with.
        data: The content that it takes, if it takes any.
        options: Its keyword arguments.
    """

    method: str
    args: list[str] = field(default_factory=list)
    data: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """What became of a step: what it returned, as text, or the error that it raised."""

    text: str = ""
    error: str = ""

    def __bool__(self) -> bool:
        return not self.error


@dataclass
class Plan:
    """The steps, and the session for them.

    Attributes:
        files: How many small files its manifest has.
        saved: Whether a stop writes its workspace to the storage.
    """

    steps: list[Step]
    provider: str = "local"
    files: int = 0
    saved: bool = False
    heartbeat_s: float = 30
    start_to_close_s: float = 60


@workflow.defn
class Perform:
    """Makes a session, takes the steps in it, deletes it, and reports what became of each."""

    @workflow.run
    async def run(self, plan: Plan) -> list[Outcome]:
        client = temporal_sandbox_client(
            plan.provider,
            ActivityConfig(
                start_to_close_timeout=timedelta(seconds=plan.start_to_close_s),
                heartbeat_timeout=timedelta(seconds=plan.heartbeat_s),
            ),
        )
        names = (f"file-{number:05}.txt" for number in range(plan.files))
        manifest = Manifest(entries={name: File(content=name.encode()) for name in names})
        snapshot = RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)
        session = await client.create(manifest=manifest, snapshot=snapshot if plan.saved else None)
        try:
            async with session:
                return [await take(session, step) for step in plan.steps]
        finally:
            await client.delete(session)


@workflow.defn
class GoesOnAfterDelete:
    """Deletes a session of which it has two handles, takes steps in both, and deletes it again."""

    @workflow.run
    async def run(self, plan: Plan) -> list[Outcome]:
        client = temporal_sandbox_client(plan.provider)
        session = await client.create(manifest=Manifest(entries={"file": File(content=b"text")}))
        await session.start()
        other = await client.resume(session.state)
        await client.delete(session)
        outcomes = [await take(each, step) for step in plan.steps for each in (session, other)]
        for each in (session, other):
            await client.delete(each)
            await each.aclose()
        return outcomes


async def take(session: SandboxSession, step: Step) -> Outcome:
    """Take a step and report what became of it."""
    args: list[Any] = [*step.args]
    if step.method in ("read", "write"):
        args[0] = Path(args[0])
    if step.method == "apply_patch":
        args = [ApplyPatchOperation(type="update_file", path=args[0], diff=step.data)]
    elif step.data is not None:
        args.append(io.BytesIO(step.data.encode("latin-1")))
    try:
        answer = await getattr(session, step.method)(*args, **step.options)
    except Exception as error:  # noqa: BLE001 - it is what is asked for
        return Outcome(text=str(error), error=type(error).__name__)
    if isinstance(answer, io.IOBase):
        answer = answer.read()
    if isinstance(answer, ExecResult):
        answer = answer.stdout + answer.stderr
    if isinstance(answer, list):
        answer = len(answer)
    return Outcome(text=answer.decode("latin-1") if isinstance(answer, bytes) else str(answer))
