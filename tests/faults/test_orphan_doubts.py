"""A doubtful sandbox is not an orphan, and a failed deletion is reported."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from faults.orphans import Here, outcomes, reset
from local_backend import LocalProvider
from support import unique

from sandbox_core.providers import LabelledSandbox
from sandbox_core.wire.messages import ReapResponse
from sandbox_core.worker.sessions import labels as names

pytest_plugins = ["faults.orphans"]


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
            f"the server no longer has run {gone} of its workflow, so it is unknown whether the "
            f"open run {owned.handle.first_execution_run_id} is a later one of the same workflow"
        ) == reason
        assert owned.root.is_dir()

    async def test_a_sandbox_whose_labels_name_no_workflow(self, here: Here) -> None:
        assert ("kept", "its labels do not name its workflow") == await self._kept(here, {})

    async def test_a_question_that_the_server_does_not_answer(self, here: Here) -> None:
        """That is not "not found"."""
        labels = {names.WORKFLOW_ID: "w", names.RUN_ID: "not a run id"}

        outcome, reason = await self._kept(here, labels)

        assert "failed" == outcome
        assert "the state of its workflow is unknown: INVALID_ARGUMENT: Invalid RunId." == reason

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

        answer = await here.reap(provider=Stubborn(), deleted_within=timedelta(seconds=2))

        seen = {Path(found.sandbox_id): (found.outcome, found.reason) for found in answer.sandboxes}
        assert {
            stuck.root: ("failed", "PermissionError: may not"),
            slow.root: ("failed", "TimeoutError: it took longer than 2 s"),
            other.root: ("deleted", ""),
        } == seen
        assert [True, True, False] == [owned.root.exists() for owned in (stuck, slow, other)]

    async def test_is_verified_by_another_find(self, here: Here) -> None:
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
