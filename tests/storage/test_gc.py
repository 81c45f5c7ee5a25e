"""Unneeded objects are deleted, and no others."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from support import running_worker, unique, until
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest, ResetActivityRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    WorkflowHandle,
)
from temporalio.converter import DataConverter, _extstore
from temporalio.worker import Worker
from wire.test_data_converters import ReversingCodec
from workflows.references import Holder, Waiting, fail_after_heartbeat, large
from workflows.storage import Snapshotted

from sandbox_core.errors import StorageError
from sandbox_core.storage.gc.collect import Folder, Outcome, delete_unneeded, find_unneeded
from sandbox_core.storage.object_store import ObjectStore, StoredObject
from sandbox_core.testing import DevServer
from sandbox_core.worker import SandboxPlugin

WEEK = timedelta(days=7)
Handle = WorkflowHandle[Holder, str]


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a server of its own, where no other test's workflows are."""
    with DevServer() as server:
        yield server.address


@pytest.fixture(params=["directory", "s3"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store that several processes can use."""
    if request.param == "directory":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("s3_url"))


def key_of(value: object) -> str:
    """Return the key under which the driver stores `value` with the default converter."""
    [payload] = DataConverter.default.payload_converter.to_payloads([value])
    digest = hashlib.sha256(payload.SerializeToString(deterministic=True)).hexdigest()
    return f"payloads/{digest}"


async def connected(
    address: str, storage: str, converter: DataConverter = DataConverter.default
) -> Client:
    plugin = SandboxPlugin(storage=storage)
    return await Client.connect(address, plugins=[plugin], data_converter=converter)


async def find(
    address: str,
    storage: str,
    *,
    after: timedelta = timedelta(days=30),
    snapshots_older_than: timedelta | None = None,
) -> tuple[Folder, Folder]:
    """Return what is found when all that is stored has this age."""
    return await find_unneeded(
        ObjectStore(storage),
        [await Client.connect(address)],
        now=datetime.now(timezone.utc) + after,
        older_than=WEEK,
        snapshots_older_than=snapshots_older_than,
    )


async def delete(storage: str, folder: Folder) -> list[Outcome]:
    return [outcome async for outcome in delete_unneeded(ObjectStore(storage), folder)]


def keys(objects: Sequence[StoredObject]) -> set[str]:
    return {stored.key for stored in objects}


async def stored_keys(storage: str, folder: str = "payloads") -> set[str]:
    return {stored.key async for stored in ObjectStore(storage).list(folder)}


async def start(client: Client, queue: str, name: str) -> Handle:
    return await client.start_workflow(
        Holder.run, large(name), id=unique("holder"), task_queue=queue
    )


async def delete_workflow(client: Client, run: WorkflowExecution) -> None:
    """Delete a run of a workflow, and return when the server has done so."""
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=run)
    )
    await until_listed(client, run.run_id, listed=False)


async def until_listed(client: Client, run_id: str | None, *, listed: bool = True) -> None:
    """Return when the server lists a run, or does not any more."""

    async def is_so() -> bool:
        return listed == bool((await client.count_workflows(f"RunId = '{run_id}'")).count)

    await until(is_so)


async def four_workflows(client: Client, queue: str) -> Handle:
    """Leave one workflow completed, one terminated, one deleted and one open; return the last."""
    async with running_worker(client, Holder, plugins=[], task_queue=queue):
        done, ended, gone, still_open = [
            await start(client, queue, name) for name in ("done", "ended", "gone", "open")
        ]
        for handle in (done, gone):
            await handle.signal(Holder.finish)
            await handle.result()
        await ended.terminate()
    for handle in (done, ended, gone, still_open):
        await until_listed(client, handle.first_execution_run_id)
    await delete_workflow(
        client, WorkflowExecution(workflow_id=gone.id, run_id=gone.first_execution_run_id or "")
    )
    return still_open


class TestPayloads:
    async def test_of_what_is_open_or_retained_stay_and_the_open_workflow_goes_on(
        self, address: str, shared_url: str
    ) -> None:
        client, queue = await connected(address, shared_url), unique("queue")
        still_open = await four_workflows(client, queue)

        payloads, _ = await find(address, shared_url)
        outcomes = await delete(shared_url, payloads)

        gone = {key_of(large("gone")), key_of(large("result of gone"))}
        assert gone == {outcome.stored.key for outcome in outcomes}
        assert {"deleted"} == {outcome.result for outcome in outcomes}
        names = ("done", "result of done", "ended", "open")
        assert {key_of(large(name)) for name in names} == await stored_keys(shared_url)
        async with running_worker(client, Holder, plugins=[], task_queue=queue):
            await still_open.signal(Holder.finish)
            assert large("result of open") == await still_open.result()

    async def test_of_a_history_of_several_pages_stay(self, address: str, tmp_path: Path) -> None:
        client, queue = await connected(address, str(tmp_path)), unique("queue")
        handle = await start(client, queue, "long")
        for _ in range(300):
            await handle.signal("nobody handles this")
        async with running_worker(client, Holder, plugins=[], task_queue=queue):
            await handle.signal(Holder.finish)
            await handle.result()
        await until_listed(client, handle.first_execution_run_id)

        payloads, _ = await find(address, str(tmp_path))

        assert [] == payloads.unneeded
        assert {key_of(large(name)) for name in ("long", "result of long")} == keys(payloads.needed)

    async def test_of_a_pending_activitys_heartbeat_and_failure_stay(
        self, address: str, tmp_path: Path
    ) -> None:
        """No event has them yet."""
        client, queue = await connected(address, str(tmp_path)), unique("queue")
        async with Worker(
            client, task_queue=queue, workflows=[Waiting], activities=[fail_after_heartbeat]
        ):
            handle = await client.start_workflow(
                Waiting.run, "it", id=unique("waiting"), task_queue=queue
            )
            await until(lambda: _has_failed(handle))
            await until_listed(client, handle.first_execution_run_id)

            payloads, _ = await find(address, str(tmp_path))
            assert [] == payloads.unneeded
            names = ("heartbeat of it", "failure of it")
            assert {key_of(large(name)) for name in names} == keys(payloads.needed)

            await client.workflow_service.reset_activity(
                ResetActivityRequest(
                    namespace=client.namespace,
                    execution=WorkflowExecution(workflow_id=handle.id),
                    type="fail_after_heartbeat",
                )
            )
            assert "heartbeat of it" == await handle.result()

    async def test_of_a_schedule_stay_with_the_last_result_that_it_hands_on(
        self, address: str, tmp_path: Path
    ) -> None:
        """Also when no run that had them is retained."""
        client, queue = await connected(address, str(tmp_path)), unique("queue")
        schedule = await client.create_schedule(
            "weekly",
            Schedule(
                action=ScheduleActionStartWorkflow(
                    Holder.run, large("scheduled"), id="weekly", task_queue=queue
                ),
                spec=ScheduleSpec(),
            ),
        )
        runs: list[WorkflowExecution] = []
        async with running_worker(client, Holder, plugins=[], task_queue=queue):
            for _ in range(2):
                await schedule.trigger()
                runs.append(await _next_run(client, runs))
                handle = client.get_workflow_handle(runs[-1].workflow_id, run_id=runs[-1].run_id)
                await handle.signal(Holder.finish)
                await handle.result()
        for run in runs:
            await delete_workflow(client, run)

        payloads, _ = await find(address, str(tmp_path))
        await delete(str(tmp_path), payloads)

        names = ("scheduled", "result of scheduled")
        assert {key_of(large(name)) for name in names} == await stored_keys(str(tmp_path))

    async def test_of_a_standalone_activity_stay(self, address: str, tmp_path: Path) -> None:
        client, queue = await connected(address, str(tmp_path)), unique("queue")
        async with Worker(client, task_queue=queue, activities=[repeat]):
            await client.execute_activity(
                repeat,
                large("input"),
                id=unique("activity"),
                task_queue=queue,
                start_to_close_timeout=WEEK,
            )

        payloads, _ = await find(address, str(tmp_path))

        assert [] == payloads.unneeded
        names = ("input", "again: input")
        assert {key_of(large(name)) for name in names} == keys(payloads.needed)

    async def test_that_are_young_stay(self, address: str, tmp_path: Path) -> None:
        client, queue = await connected(address, str(tmp_path)), unique("queue")
        await four_workflows(client, queue)

        payloads, _ = await find(address, str(tmp_path), after=timedelta(days=6))

        assert [] == payloads.unneeded
        gone = {key_of(large("gone")), key_of(large("result of gone"))}
        assert gone == keys(payloads.young)

    async def test_that_a_new_workflow_stores_again_stay(
        self, address: str, tmp_path: Path
    ) -> None:
        """The storage was listed before, and so were the workflows."""
        client, queue = await connected(address, str(tmp_path)), unique("queue")
        await four_workflows(client, queue)
        month_ago = time.time() - 30 * 86_400
        for path in (tmp_path / "payloads").iterdir():
            os.utime(path, (month_ago, month_ago))
        payloads, _ = await find(address, str(tmp_path), after=timedelta())
        result = key_of(large("result of gone"))
        assert {key_of(large("gone")), result} == keys(payloads.unneeded)

        handle = await start(client, queue, "gone")
        outcomes = await delete(str(tmp_path), payloads)

        assert {key_of(large("gone")): "rewritten", result: "deleted"} == {
            outcome.stored.key: outcome.result for outcome in outcomes
        }
        async with running_worker(client, Holder, plugins=[], task_queue=queue):
            await handle.signal(Holder.finish)
            assert large("result of gone") == await handle.result()

    async def test_that_are_gone_already_are_no_error(self, address: str, tmp_path: Path) -> None:
        client, queue = await connected(address, str(tmp_path)), unique("queue")
        await four_workflows(client, queue)
        payloads, _ = await find(address, str(tmp_path))
        await delete(str(tmp_path), payloads)

        assert [] == await delete(str(tmp_path), payloads)

    async def test_go_while_others_are_encoded(self, address: str, tmp_path: Path) -> None:
        """References are not, and stored under the digest of what is."""
        converter = DataConverter(payload_codec=ReversingCodec())
        client, queue = await connected(address, str(tmp_path), converter), unique("queue")
        still_open = await four_workflows(client, queue)

        payloads, _ = await find(address, str(tmp_path))
        await delete(str(tmp_path), payloads)

        assert 2 == len(payloads.unneeded)
        async with running_worker(client, Holder, plugins=[], task_queue=queue):
            await still_open.signal(Holder.finish)
            assert large("result of open") == await still_open.result()

    async def test_whose_references_are_encoded_too_stop_it(
        self, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a later version of Temporal's SDK is to do; this one can when it is told so."""
        monkeypatch.setattr(_extstore, "_ENCODE_STORAGE_REFERENCES", True)
        converter = DataConverter(payload_codec=ReversingCodec())
        client, queue = await connected(address, str(tmp_path), converter), unique("queue")
        handle = await start(client, queue, "open")
        await until_listed(client, handle.first_execution_run_id)

        with pytest.raises(StorageError, match=f"workflow {handle.id} refers .* codec"):
            await find(address, str(tmp_path))

    async def test_that_nothing_at_all_refers_to_stop_it(
        self, address: str, tmp_path: Path
    ) -> None:
        """Then the server or the namespace is most likely a wrong one."""
        await ObjectStore(str(tmp_path)).put(key_of("x"), b"x")

        with pytest.raises(
            StorageError, match="nothing in these namespaces refers to any of its objects"
        ):
            await find(address, str(tmp_path))

    async def test_are_only_the_objects_that_the_driver_names(
        self, address: str, tmp_path: Path
    ) -> None:
        client, queue = await connected(address, str(tmp_path)), unique("queue")
        await four_workflows(client, queue)
        foreign = {"payloads/notes.txt", "payloads/old/" + "0" * 64, "payloads/" + "A" * 64}
        for key in foreign:
            await ObjectStore(str(tmp_path)).put(key, b"")

        payloads, _ = await find(address, str(tmp_path))

        assert foreign == keys(payloads.foreign)
        assert 2 == len(payloads.unneeded)

    async def test_of_less_than_a_day_are_not_asked_for(self, address: str, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="younger than 24 hours are always kept"):
            await find_unneeded(
                ObjectStore(str(tmp_path)),
                [await Client.connect(address)],
                now=datetime.now(timezone.utc),
                older_than=timedelta(hours=23),
                snapshots_older_than=None,
            )


class TestSnapshots:
    @pytest.fixture
    async def snapshots(self, address: str, tmp_path: Path) -> dict[str, str]:
        """The keys of four snapshots, by what refers to them."""
        client, queue = await connected(address, str(tmp_path)), unique("queue")
        store = ObjectStore(str(tmp_path))
        async with running_worker(client, Snapshotted, plugins=[]) as sessions:
            session = await client.start_workflow(
                Snapshotted.run, "local", id=unique("session"), task_queue=sessions
            )
            saved = await session.execute_update(Snapshotted.do, "stop")
            await session.signal(Snapshotted.finish)
            await session.result()
        ids = {
            "a session": saved,
            "a stored payload": str(uuid.uuid4()),
            "nobody": str(uuid.uuid4()),
            "a name": "golden-image",
        }
        for snapshot_id in list(ids.values())[1:]:
            await store.put(f"snapshots/{snapshot_id}", b"workspace")
        holder = await start(client, queue, f"state of {ids['a stored payload']}")
        for handle in (session, holder):
            await until_listed(client, handle.first_execution_run_id)
        return {name: f"snapshots/{snapshot_id}" for name, snapshot_id in ids.items()}

    async def test_all_stay_unless_an_age_is_given(
        self, address: str, tmp_path: Path, snapshots: dict[str, str]
    ) -> None:
        """A state that was saved elsewhere may need them."""
        _, found = await find(address, str(tmp_path))

        assert [] == found.unneeded
        assert snapshots["nobody"] in keys(found.young)

    async def test_that_a_session_or_a_stored_payload_or_a_person_names_stay(
        self, address: str, tmp_path: Path, snapshots: dict[str, str]
    ) -> None:
        _, found = await find(address, str(tmp_path), snapshots_older_than=WEEK)
        outcomes = await delete(str(tmp_path), found)

        assert [snapshots["nobody"]] == [outcome.stored.key for outcome in outcomes]
        assert [snapshots["a name"]] == [stored.key for stored in found.foreign]
        del snapshots["nobody"]
        assert set(snapshots.values()) == await stored_keys(str(tmp_path), "snapshots")

    async def test_that_are_young_stay(
        self, address: str, tmp_path: Path, snapshots: dict[str, str]
    ) -> None:
        _, found = await find(address, str(tmp_path), snapshots_older_than=timedelta(days=31))

        assert [] == found.unneeded
        assert snapshots["nobody"] in keys(found.young)

    async def test_stop_it_if_what_names_them_cannot_be_read(
        self, address: str, tmp_path: Path, snapshots: dict[str, str]
    ) -> None:
        """But payloads can be collected."""
        converter = DataConverter(payload_codec=ReversingCodec())
        client = await connected(address, str(tmp_path), converter)
        handle = await start(client, unique("queue"), "encoded")
        await until_listed(client, handle.first_execution_run_id)

        with pytest.raises(StorageError, match=r"encoding \(unknown\) only your own codec"):
            await find(address, str(tmp_path), snapshots_older_than=WEEK)

        payloads, _ = await find(address, str(tmp_path))
        assert payloads.needed


@activity.defn
async def repeat(text: str) -> str:
    return large(f"again: {text.rstrip('.')}")


async def _has_failed(handle: WorkflowHandle[Waiting, str]) -> bool:
    description = await handle.describe()
    return any(
        pending.HasField("last_failure")
        for pending in description.raw_description.pending_activities
    )


async def _next_run(client: Client, known: Sequence[WorkflowExecution]) -> WorkflowExecution:
    """Return the run that is not known yet, once there is one."""
    found: list[WorkflowExecution] = []

    async def has_started() -> bool:
        async for listed in client.list_workflows("WorkflowType = 'Holder'"):
            run = WorkflowExecution(workflow_id=listed.id, run_id=listed.run_id)
            if run not in known:
                found.append(run)
        return bool(found)

    await until(has_started)
    return found[0]
