"""Sandboxes of closed workflows, and no others, are found and deleted."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from faults.orphans import LIVING, Here, closed, delete_run, outcomes, reset
from local_backend import LocalProvider
from support import unique
from temporalio.common import RetryPolicy
from workflows.owners import OwnsSandbox

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import LabelledSandbox
from sandbox_core.wire.messages import ReapResponse
from sandbox_core.worker.sessions import labels as names

pytest_plugins = ["faults.orphans"]


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
    async def test_completed_without_deleting(self, here: Here, told: str, state: str) -> None:
        owned = await here.owned()
        await owned.handle.signal(OwnsSandbox.tell, told)
        await closed(owned.handle)

        assert [(str(owned.root), state, "deleted")] == outcomes(await here.reap())
        assert not owned.root.exists()

    async def test_timed_out(self, here: Here) -> None:
        owned = await here.owned(run_timeout=timedelta(seconds=4))
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

    async def test_that_a_backend_returns_anyway(self, here: Here) -> None:
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
