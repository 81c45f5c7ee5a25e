"""For the durable checks: a Temporal server, and workers that are killed and replaced."""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast
from unittest.mock import patch

from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio.client import Client as TemporalClient
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.service import RPCError

from sandbox_core.config import CONFIG_VARIABLE
from sandbox_core.testing.contract.durable_worker import start_worker
from sandbox_core.testing.contract.durable_workflows import HoldSandbox, Order
from sandbox_core.testing.contract.model import NotApplicable, PromiseBroken, told
from sandbox_core.testing.contract.subject import Subject
from sandbox_core.testing.worker_process import WorkerProcess
from sandbox_core.wire.agents_models import dump_options, load_state
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.sessions.labels import WORKFLOW_ID

Handle: TypeAlias = "WorkflowHandle[Any, Any]"

ENDS_S = 120.0
"""How long a workflow may take, in seconds; it normally takes a few."""

LABELS = ("labels", "identity", "destroy")
"""The abilities that counting a workflow's sandboxes needs."""


@dataclass(kw_only=True)
class Fleet:
    """A Temporal server, and workers with the provider, which are killed at the end."""

    subject: Subject
    address: str
    client: TemporalClient
    log: Path
    queue: str = field(default_factory=lambda: f"contract-{uuid.uuid4().hex[:12]}")
    _workers: list[WorkerProcess] = field(default_factory=list)
    _handles: list[Handle] = field(default_factory=list)

    async def start(self, **variables: str) -> WorkerProcess:
        """Start one more worker, and wait until it polls."""
        module = self.subject.module
        if module is None:
            raise NotApplicable("the provider comes from no module, so no worker can import it")
        imports = self.subject.imports_of_client()
        worker = start_worker(self.address, self.queue, module, self.log, variables, imports)
        self._workers.append(worker)
        await asyncio.to_thread(worker.wait_until_ready)
        return worker

    async def replace(self, *, gently: bool = False) -> None:
        """End all workers, and start a new one."""
        for worker in self._workers:
            if gently:
                await asyncio.to_thread(worker.stop)
            else:
                worker.kill()
        await self.start()

    def order(self) -> Order:
        """Return an order for a sandbox of the provider."""
        options = self.subject.backend.options
        return Order(
            provider=self.subject.provider.name,
            options=None if options is None else dump_options(options),
        )

    async def hold(self, order: Order | None = None) -> Handle:
        """Start a workflow that holds a sandbox."""
        handle: Handle = await self.client.start_workflow(
            HoldSandbox.run,
            order or self.order(),
            id=f"contract-{uuid.uuid4().hex}",
            task_queue=self.queue,
        )
        self._handles.append(handle)
        return handle

    async def looking_at(self, handle: Handle) -> SandboxSession:
        """Return a session in this process for a workflow's sandbox."""
        state = load_state(await self.update(handle, HoldSandbox.state))
        client = self.subject.client
        return await self.subject.within(client.resume(state))

    async def update(self, handle: Handle, update: Callable[..., object], *args: object) -> Any:  # noqa: ANN401 - the update's
        """Send a workflow an update, and return the result."""
        asked = handle.execute_update(cast("Any", update), args=list(args))
        try:
            return await asyncio.wait_for(asked, ENDS_S)
        except (RPCError, WorkflowUpdateFailedError):
            await self.expect_not_failed(handle)
            raise

    async def expect_not_failed(self, handle: Handle) -> None:
        """Check that a workflow has not failed, as it does if its sandbox cannot be created.

        Raises:
            PromiseBroken: It has failed; the message contains its error.
        """
        if (await handle.describe()).status != WorkflowExecutionStatus.FAILED:
            return
        try:
            await handle.result()
        except WorkflowFailureError as failed:
            raise PromiseBroken(f"the workflow failed: {told(failed.cause)}") from failed

    async def finish(self, handle: Handle) -> None:
        """Make a workflow delete its sandbox and end."""
        await handle.signal(HoldSandbox.finish)
        await asyncio.wait_for(handle.result(), ENDS_S)

    async def sandboxes_of(self, handle: Handle) -> list[str]:
        """Return the ids of a workflow's sandboxes."""
        found = await self.subject.labelling.find(self.subject.client, {WORKFLOW_ID: handle.id})
        return [sandbox.sandbox_id for sandbox in found]

    async def has_sandboxes(self, handle: Handle, count: int) -> bool:
        """Return whether a workflow has `count` sandboxes.

        Raises:
            PromiseBroken: The workflow has failed.
        """
        await self.expect_not_failed(handle)
        return len(await self.sandboxes_of(handle)) == count

    async def clean_up(self) -> None:
        """End the running workflows, and delete their sandboxes."""
        for handle in self._handles:
            with suppress(RPCError):
                await handle.terminate()
        for worker in self._workers:
            worker.kill()
        if all(map(self.subject.can, LABELS)):
            for handle in self._handles:
                for sandbox_id in await self.sandboxes_of(handle):
                    await self.subject.destroy(sandbox_id)


@asynccontextmanager
async def fleet_of(subject: Subject) -> AsyncIterator[Fleet]:
    """Yield a fleet without a worker; at the end, end everything that it started."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = await _new_fleet(subject, folder)
        try:
            yield fleet
        finally:
            await fleet.clean_up()


async def steady_fleet(subject: Subject) -> Fleet:
    """Return a fleet with one worker, shared by all checks of a subject that do not end it."""
    if subject.steady is None:
        fleet = await _new_fleet(subject, subject.folder_until_end())
        subject.at_end(fleet.clean_up)
        await fleet.start()
        subject.steady = fleet
    return subject.steady


async def _new_fleet(subject: Subject, folder: str) -> Fleet:
    address = await subject.temporal_address()
    return Fleet(
        subject=subject, address=address, client=await connect(address), log=Path(folder) / "log"
    )


async def connect(address: str) -> TemporalClient:
    """Return a client of a server, with the workers' storage for large payloads."""
    with patch.dict(os.environ, {CONFIG_VARIABLE: os.devnull}):  # As for the workers.
        plugin = SandboxPlugin()
    return await TemporalClient.connect(address, plugins=[plugin])


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll `condition`, about the backend or the server, for which there is no event."""

    async def ask() -> None:
        while not await condition():  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(0.1)

    try:
        await asyncio.wait_for(ask(), ENDS_S)
    except asyncio.TimeoutError:
        raise PromiseBroken(f"{what} within {ENDS_S:g} s") from None
