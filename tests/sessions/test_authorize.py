"""`SandboxPlugin(authorize=...)`: who may use a sandbox of another workflow's."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest
from support import attempts, running_worker, unique
from temporalio.client import (
    ActivityFailureError,
    Client,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.exceptions import ActivityError, ApplicationError
from workflows.authorized import Intruder, Owner

from sandbox_core.worker import Authorize, SandboxAccess, SandboxPlugin

pytestmark = pytest.mark.any_sdk

_OWNER = "sandbox-core.workflow-id"


@dataclass
class Place:
    """A worker, and a workflow with a sandbox."""

    client: Client
    queue: str
    owner: WorkflowHandle[Owner, None]
    state: dict[str, Any]
    session: dict[str, Any]
    asked: list[SandboxAccess] = field(default_factory=list)

    async def intrude(self, how: str) -> WorkflowHandle[Intruder, str]:
        return await self.client.start_workflow(
            Intruder.run,
            args=[how, self.state, self.session],
            id=unique("intruder"),
            task_queue=self.queue,
        )


@contextlib.asynccontextmanager
async def placed(client: Client, authorize: Authorize) -> AsyncIterator[Place]:
    asked: list[SandboxAccess] = []

    def record(access: SandboxAccess) -> bool | Awaitable[bool]:
        asked.append(access)
        return authorize(access)

    async with running_worker(
        client, Owner, Intruder, plugins=[SandboxPlugin(authorize=record)]
    ) as queue:
        owner = await client.start_workflow(Owner.run, id=unique("owner"), task_queue=queue)
        state = await owner.execute_update(Owner.opened)
        create = (await owner.fetch_history()).events
        made = next(e for e in create if e.HasField("activity_task_scheduled_event_attributes"))
        request = made.activity_task_scheduled_event_attributes.input.payloads[0].data
        session = {**state["session"], "create_key": json.loads(request)["create_key"]}
        yield Place(client, queue, owner, state["state"], session, asked)
        await owner.signal(Owner.end)
        await owner.result()


async def test_the_owner_is_not_asked_about(temporal_client: Client) -> None:
    async with placed(temporal_client, lambda access: False) as place:
        assert "owner\n" == await place.owner.execute_update(Owner.exec, "echo owner")
        assert "owner\n" == await place.owner.execute_update(Owner.exec_elsewhere, "echo owner")
    assert [] == place.asked


@pytest.mark.parametrize("how", ["resume", "guess", "delete", "create key"])
async def test_another_workflow_is_refused_once(temporal_client: Client, how: str) -> None:
    """Whichever way it comes; the sandbox remains its owner's, as it was."""
    async with placed(temporal_client, lambda access: False) as place:
        intruder = await place.intrude(how)
        with pytest.raises(WorkflowFailureError) as failed:
            await intruder.result()
        cause: BaseException | None = failed.value.cause
        if isinstance(cause, ActivityError):
            cause = cause.cause
        assert isinstance(cause, ApplicationError)
        assert "AccessDenied" == cause.type
        assert f"of workflow {place.owner.id!r}: this worker's SandboxPlugin" in cause.message
        assert f"does not allow it to workflow {intruder.id!r} (Intruder)." in cause.message
        assert {1} == set(attempts(await intruder.fetch_history()))
        (access,) = place.asked
        assert (intruder.id, "Intruder", "default", place.owner.id) == (
            access.workflow_id,
            access.workflow_type,
            access.namespace,
            access.labels[_OWNER],
        )
        assert "still\n" == await place.owner.execute_update(Owner.exec, "echo still")
    assert 1 == len(place.asked)


async def test_a_standalone_activity_has_no_workflow(temporal_client: Client) -> None:
    async with placed(temporal_client, lambda access: access.operation != "exec") as place:
        root, queue = place.state["manifest"]["root"], place.session["queue"]

        async def perform(operation: str, request: dict[str, Any]) -> dict[str, Any]:
            answer: dict[str, Any] = await temporal_client.execute_activity(
                f"local-sandbox_{operation}",
                request,
                id=unique("visit"),
                task_queue=queue,
                result_type=dict,
                start_to_close_timeout=timedelta(seconds=30),
            )
            return answer

        inspected = await perform("inspect", {"sandbox_id": root})
        command = {"operation_id": "k", "command": ["true"], "shell": False}
        with pytest.raises(ActivityFailureError) as failed:
            await perform("exec", {"session": inspected["session"], **command})

        assert "to a standalone activity." in str(failed.value.__cause__)
        assert [("inspect", None), ("exec", None)] == [
            (access.operation, access.workflow_id) for access in place.asked
        ]


async def test_what_is_allowed_works(temporal_client: Client) -> None:
    """Once, when it opens the session; `authorize` may be a coroutine function."""

    async def allow(access: SandboxAccess) -> bool:
        return access.workflow_type == "Intruder"

    async with placed(temporal_client, allow) as place:
        assert "intruder\n" == await (await place.intrude("resume")).result()
    assert ["resume_session"] == [access.operation for access in place.asked]


def forgetful(access: SandboxAccess) -> bool:
    """Return nothing."""
    return cast("bool", None)


async def test_anything_but_true_is_a_refusal(temporal_client: Client) -> None:
    async with placed(temporal_client, forgetful) as place:
        with pytest.raises(WorkflowFailureError):
            await (await place.intrude("resume")).result()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="authorize is 'all'; it must be a function"):
        SandboxPlugin(authorize="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="peer_clients"):
        SandboxPlugin(authorize=forgetful, peer_clients={"local": "local"})
