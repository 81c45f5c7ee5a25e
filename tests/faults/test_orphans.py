"""Sandboxes whose workflows are closed are found and deleted, and no others are touched."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from local_backend import LocalProvider
from support import running_worker, unique, until
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    ResetWorkflowExecutionRequest,
)
from temporalio.client import (
    Client,
    WorkflowContinuedAsNewError,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import RetryPolicy
from temporalio.service import RPCError, RPCStatusCode
from workflows.owners import OwnsSandbox

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import LabelledSandbox
from sandbox_core.wire.messages import ReapRequest, ReapResponse
from sandbox_core.worker.reaping.reaper import as_reapable, reap
from sandbox_core.worker.sessions import labels as names
from sandbox_core.worker.sessions.labels import Namespace

Handle = WorkflowHandle[OwnsSandbox, str]


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sandboxes of other tests, whose workflows may also be closed, are elsewhere."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@dataclass
class Owned:
    """A workflow, and the directory of its sandbox."""

    handle: Handle
    root: Path


@dataclass
class Here:
    """One namespace: its workflows, and the reaping of its sandboxes."""

    client: Client
    queue: str

    async def owned(
        self,
        workflow_id: str | None = None,
        *,
        run_timeout: timedelta | None = None,
        retry_policy: RetryPolicy | None = None,
    ) -> Owned:
        """Start a workflow and return it when it has its sandbox."""
        handle = await self.client.start_workflow(
            OwnsSandbox.run,
            args=["local"],
            id=workflow_id or unique("owner"),
            task_queue=self.queue,
            run_timeout=run_timeout,
            retry_policy=retry_policy,
        )
        return Owned(handle, await self.root_of(handle))

    async def root_of(self, handle: Handle) -> Path:
        current = self.client.get_workflow_handle(handle.id)
        state = await current.execute_update(OwnsSandbox.sandbox_state)
        return Path(state["manifest"]["root"])

    async def reap(
        self,
        *,
        delete: bool = True,
        older_than_s: float = 0,
        provider: LocalProvider | None = None,
        deleted_within: timedelta = timedelta(seconds=30),
    ) -> ReapResponse:
        used = provider or LocalProvider()
        reapable = as_reapable(used)
        assert reapable is not None
        return await reap(
            reapable,
            used.create_client(),  # type: ignore[arg-type]  # it takes its own options
            self.client,
            await Namespace.of(self.client),
            ReapRequest(older_than_s=older_than_s, delete=delete),
            deleted_within=deleted_within,
        )

    async def make(self, labels: Mapping[str, str]) -> Path:
        """Make a sandbox with these labels in this namespace."""
        provider = LocalProvider()
        here = await Namespace.of(self.client)
        labelled = {names.NAMESPACE_ID: here.id, names.NAMESPACE: here.name, **labels}
        client = provider.labelled(provider.create_client(), labelled)
        return Path((await client.create()).state.manifest.root)


@pytest.fixture
async def here(temporal_client: Client) -> AsyncIterator[Here]:
    async with running_worker(temporal_client, OwnsSandbox) as queue:
        yield Here(temporal_client, queue)


async def closed(handle: Handle) -> None:
    """Return when the first run is closed."""
    with suppress(WorkflowFailureError, WorkflowContinuedAsNewError):
        await handle.result(follow_runs=False)


async def reset(client: Client, handle: Handle) -> str:
    """Reset a workflow to its last task, and return the new run's id."""
    history = await handle.fetch_history()
    tasks = [
        event.event_id
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    answer = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            workflow_task_finish_event_id=tasks[-1],
            reason="a test",
            request_id=str(uuid.uuid4()),
        )
    )
    return answer.run_id


async def delete_run(client: Client, workflow_id: str, run_id: str) -> None:
    """Delete a run, and return when the server does not know it any more."""
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        )
    )
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)

    async def is_unknown() -> bool:
        try:
            await handle.describe()
        except RPCError as error:
            return error.status is RPCStatusCode.NOT_FOUND
        return False

    await until(is_unknown)


def outcomes(answer: ReapResponse) -> list[tuple[str, str, str]]:
    return [(found.sandbox_id, found.owner, found.outcome) for found in answer.sandboxes]


LIVING = ReapResponse(living=1)


class TestClosedWorkflow:
    """However it was closed, what it leaves is deleted."""

    async def test_terminated(self, here: Here) -> None:
        owned = await here.owned()
        await owned.handle.terminate()

        answer = await here.reap()

        assert [(str(owned.root), "terminated", "deleted")] == outcomes(answer)
        assert not owned.root.exists()
        [found] = answer.sandboxes
        assert owned.handle.id == found.workflow_id
        assert owned.handle.first_execution_run_id == found.run_id
        assert ReapResponse() == await here.reap()

    async def test_cancelled(self, here: Here) -> None:
        owned = await here.owned()
        await owned.handle.cancel()
        await closed(owned.handle)

        assert [(str(owned.root), "cancelled", "deleted")] == outcomes(await here.reap())
        assert not owned.root.exists()

    @pytest.mark.parametrize(("told", "state"), [("fail", "failed"), ("stop", "completed")])
    async def test_ended_by_itself_without_deleting(
        self, here: Here, told: str, state: str
    ) -> None:
        owned = await here.owned()
        await owned.handle.signal(OwnsSandbox.tell, told)
        await closed(owned.handle)

        assert [(str(owned.root), state, "deleted")] == outcomes(await here.reap())
        assert not owned.root.exists()

    async def test_timed_out(self, here: Here) -> None:
        owned = await here.owned(run_timeout=timedelta(seconds=2))
        await closed(owned.handle)

        assert [(str(owned.root), "timed out", "deleted")] == outcomes(await here.reap())
        assert not owned.root.exists()

    async def test_not_retained_any_more(self, here: Here) -> None:
        owned = await here.owned()
        await owned.handle.terminate()
        await delete_run(here.client, owned.handle.id, owned.handle.first_execution_run_id or "")

        assert [(str(owned.root), "not found", "deleted")] == outcomes(await here.reap())
        assert not owned.root.exists()

    async def test_whose_id_another_workflow_has_now(self, here: Here) -> None:
        """Also while that one is open; its own sandbox stays."""
        first = await here.owned()
        await first.handle.terminate()
        second = await here.owned(first.handle.id)

        answer = await here.reap()

        assert [(str(first.root), "terminated", "deleted")] == outcomes(answer)
        assert 1 == answer.living
        assert not first.root.exists()
        assert second.root.is_dir()


class TestOpenWorkflow:
    """Its sandbox is never touched, in whichever run it goes on."""

    async def test_in_the_run_that_made_the_sandbox(self, here: Here) -> None:
        owned = await here.owned()

        assert await here.reap() == LIVING
        assert owned.root.is_dir()

    async def test_after_a_reset_until_the_new_run_is_closed(self, here: Here) -> None:
        """The new run has the create in its history, and so the same sandbox."""
        owned = await here.owned()
        run_id = await reset(here.client, owned.handle)
        assert owned.root == await here.root_of(owned.handle)

        assert await here.reap() == LIVING
        assert owned.root.is_dir()

        await here.client.get_workflow_handle(owned.handle.id, run_id=run_id).terminate()
        assert [(str(owned.root), "terminated", "deleted")] == outcomes(await here.reap())
        assert not owned.root.exists()

    async def test_that_was_closed_and_is_reset(self, here: Here) -> None:
        owned = await here.owned()
        await owned.handle.terminate()
        await reset(here.client, owned.handle)

        assert await here.reap() == LIVING
        assert owned.root == await here.root_of(owned.handle)

    @pytest.mark.parametrize("first_run", ["retained", "deleted"])
    async def test_that_was_continued_as_new(self, here: Here, first_run: str) -> None:
        owned = await here.owned()
        await owned.handle.signal(OwnsSandbox.tell, "continue as new")
        await closed(owned.handle)
        assert owned.root == await here.root_of(owned.handle)
        if first_run == "deleted":
            await delete_run(
                here.client, owned.handle.id, owned.handle.first_execution_run_id or ""
            )

        assert await here.reap() == LIVING
        assert owned.root.is_dir()

    async def test_that_waits_for_its_next_attempt(self, here: Here) -> None:
        owned = await here.owned(retry_policy=RetryPolicy(initial_interval=timedelta(hours=1)))
        await owned.handle.signal(OwnsSandbox.tell, "fail")
        await closed(owned.handle)

        assert await here.reap() == LIVING
        assert owned.root.is_dir()

    async def test_that_was_given_the_session_of_a_closed_one(self, here: Here) -> None:
        """It has become the owner."""
        maker = await here.owned()
        state = await maker.handle.execute_update(OwnsSandbox.sandbox_state)
        await maker.handle.terminate()
        heir = await here.client.start_workflow(
            OwnsSandbox.run, args=["local", state], id=unique("heir"), task_queue=here.queue
        )
        assert maker.root == await here.root_of(heir)

        assert await here.reap() == LIVING
        await heir.terminate()
        assert [(str(maker.root), "terminated", "deleted")] == outcomes(await here.reap())


class TestForeignSandbox:
    """It is not even listed."""

    async def test_without_our_labels(self, here: Here) -> None:
        plain = LocalProvider().create_client()
        made = [await client.create() for client in (plain, plain.labelled({"team": "other"}))]
        roots = [Path(session.state.manifest.root) for session in made]

        assert ReapResponse() == await here.reap()
        assert [True, True] == [root.is_dir() for root in roots]

    async def test_of_a_namespace_of_the_same_name_elsewhere(self, here: Here) -> None:
        root = await here.make(
            {
                names.NAMESPACE_ID: str(uuid.uuid4()),
                names.WORKFLOW_ID: unique("elsewhere"),
                names.RUN_ID: str(uuid.uuid4()),
            }
        )

        assert ReapResponse() == await here.reap()
        assert root.is_dir()

    async def test_that_a_backend_returns_all_the_same(self, here: Here) -> None:
        """A filter that does not filter does no harm."""

        class Unfiltered(LocalProvider):
            async def find(
                self, client: UnixLocalSandboxClient, labels: Mapping[str, str]
            ) -> Sequence[LabelledSandbox]:
                return await super().find(client, {})

        root = await here.make({names.NAMESPACE_ID: str(uuid.uuid4())})

        assert ReapResponse() == await here.reap(provider=Unfiltered())
        assert root.is_dir()

    async def test_that_a_backend_says_to_have_our_labels(self, here: Here) -> None:
        """A find that answers with what it was asked is not believed, and nothing is deleted."""

        class Echo(LocalProvider):
            async def find(
                self, client: UnixLocalSandboxClient, labels: Mapping[str, str]
            ) -> Sequence[LabelledSandbox]:
                found = await super().find(client, {})
                return [replace(each, labels={**each.labels, **labels}) for each in found]

        root = await here.make(
            {
                names.NAMESPACE_ID: str(uuid.uuid4()),
                names.WORKFLOW_ID: unique("elsewhere"),
                names.RUN_ID: str(uuid.uuid4()),
            }
        )

        with pytest.raises(InvalidRequest, match="'local' finds sandboxes with labels that no"):
            await here.reap(provider=Echo())
        assert root.is_dir()


class TestDoubt:
    """What cannot be told is kept, and said."""

    async def _kept(self, here: Here, labels: Mapping[str, str]) -> tuple[str, str]:
        root = await here.make(labels)
        [found] = (await here.reap()).sandboxes
        assert root.is_dir()
        return found.outcome, found.reason

    async def test_whether_an_open_run_is_a_later_one_of_a_run_that_is_gone(
        self, here: Here
    ) -> None:
        owned = await here.owned()
        gone = str(uuid.uuid4())
        labels = {names.WORKFLOW_ID: owned.handle.id, names.RUN_ID: gone}

        outcome, reason = await self._kept(here, labels)

        assert "kept" == outcome
        assert (
            f"the server has no run {gone} of its workflow any more, and whether the open run "
            f"{owned.handle.first_execution_run_id} is a later one of the same workflow cannot be "
            f"told"
        ) == reason
        assert owned.root.is_dir()

    async def test_a_sandbox_whose_labels_name_no_workflow(self, here: Here) -> None:
        assert ("kept", "its labels do not name its workflow") == await self._kept(here, {})

    async def test_a_question_that_the_server_does_not_answer(self, here: Here) -> None:
        """That is not "not found"."""
        labels = {names.WORKFLOW_ID: "w", names.RUN_ID: "not a run id"}

        outcome, reason = await self._kept(here, labels)

        assert "failed" == outcome
        assert "its workflow cannot be told: INVALID_ARGUMENT: Invalid RunId." == reason

    async def test_an_orphan_of_unknown_age_unless_any_age_will_do(self, here: Here) -> None:
        class Timeless(LocalProvider):
            async def find(
                self, client: UnixLocalSandboxClient, labels: Mapping[str, str]
            ) -> Sequence[LabelledSandbox]:
                return [
                    LabelledSandbox(sandbox_id=found.sandbox_id, labels=found.labels)
                    for found in await super().find(client, labels)
                ]

        root = await here.make({names.WORKFLOW_ID: unique("gone"), names.RUN_ID: str(uuid.uuid4())})

        [found] = (await here.reap(provider=Timeless(), older_than_s=1)).sandboxes
        assert "kept" == found.outcome
        assert root.is_dir()

        [found] = (await here.reap(provider=Timeless())).sandboxes
        assert "deleted" == found.outcome
        assert not root.exists()

    async def test_a_time_without_a_zone_is_no_time(self, here: Here) -> None:
        """It does not stop the others."""

        class Naive(LocalProvider):
            async def find(
                self, client: UnixLocalSandboxClient, labels: Mapping[str, str]
            ) -> Sequence[LabelledSandbox]:
                naive = datetime(2026, 1, 1)
                return [replace(each, created=naive) for each in await super().find(client, labels)]

        root = await here.make({names.WORKFLOW_ID: unique("gone"), names.RUN_ID: str(uuid.uuid4())})

        [kept] = (await here.reap(provider=Naive(), older_than_s=1)).sandboxes
        assert ("kept", None) == (kept.outcome, kept.age_s)
        assert root.is_dir()


class TestDeletion:
    async def test_a_dry_run_deletes_nothing(self, here: Here) -> None:
        owned = await here.owned()
        await owned.handle.terminate()

        answer = await here.reap(delete=False)

        assert [(str(owned.root), "terminated", "orphan")] == outcomes(answer)
        assert owned.root.is_dir()

    async def test_waits_for_the_age_that_is_asked_for(self, here: Here) -> None:
        """It counts from the close of the workflow: a delete may be under way."""
        owned = await here.owned()
        await owned.handle.terminate()

        assert ReapResponse(recent=1) == await here.reap(older_than_s=600)
        assert owned.root.is_dir()

    async def test_one_that_fails_does_not_stop_the_others(self, here: Here) -> None:
        class Stubborn(LocalProvider):
            async def destroy(self, client: UnixLocalSandboxClient, sandbox_id: str) -> None:
                if sandbox_id == str(stuck.root):
                    raise PermissionError("may not")
                if sandbox_id == str(slow.root):
                    await asyncio.Event().wait()
                await super().destroy(client, sandbox_id)

        stuck, slow, other = [await here.owned() for _ in range(3)]
        for owned in (stuck, slow, other):
            await owned.handle.terminate()

        answer = await here.reap(provider=Stubborn(), deleted_within=timedelta(seconds=0.2))

        seen = {Path(found.sandbox_id): (found.outcome, found.reason) for found in answer.sandboxes}
        assert {
            stuck.root: ("failed", "PermissionError: may not"),
            slow.root: ("failed", "TimeoutError: it took longer than 0.2 s"),
            other.root: ("deleted", ""),
        } == seen
        assert [True, True, False] == [owned.root.exists() for owned in (stuck, slow, other)]

    async def test_is_not_believed_but_looked_for(self, here: Here) -> None:
        """A destroy that returns has not always deleted."""

        class Idle(LocalProvider):
            async def destroy(self, client: UnixLocalSandboxClient, sandbox_id: str) -> None:
                return

        owned = await here.owned()
        await owned.handle.terminate()

        answer = await here.reap(provider=Idle(), deleted_within=timedelta(seconds=0.2))

        [found] = answer.sandboxes
        assert (
            "failed",
            "RuntimeError: it was destroyed but still exists after 0.2 s",
        ) == (found.outcome, found.reason)
        assert owned.root.is_dir()

    async def test_spares_what_got_another_owner_meanwhile(self, here: Here) -> None:
        heir = await here.owned()

        class HandsOver(LocalProvider):
            async def find(
                self, client: UnixLocalSandboxClient, labels: Mapping[str, str]
            ) -> Sequence[LabelledSandbox]:
                found = await super().find(client, labels)
                owner = {
                    names.WORKFLOW_ID: heir.handle.id,
                    names.RUN_ID: heir.handle.first_execution_run_id or "",
                }
                if found:
                    await self.relabel(self.create_client(), str(owned.root), owner)
                return found

        owned = await here.owned()
        await owned.handle.terminate()

        [found] = (await here.reap(provider=HandsOver())).sandboxes

        assert ("kept", "it is gone or has a new owner") == (found.outcome, found.reason)
        assert owned.root.is_dir()

    async def test_spares_what_was_reset_meanwhile(self, here: Here) -> None:
        class Resets(LocalProvider):
            async def find(
                self, client: UnixLocalSandboxClient, labels: Mapping[str, str]
            ) -> Sequence[LabelledSandbox]:
                if names.RUN_ID in labels:  # Asked again, right before the deletion.
                    await reset(here.client, owned.handle)
                return await super().find(client, labels)

        owned = await here.owned()
        await owned.handle.terminate()

        [found] = (await here.reap(provider=Resets())).sandboxes

        assert ("kept", "its workflow is open again") == (found.outcome, found.reason)
        assert owned.root.is_dir()
