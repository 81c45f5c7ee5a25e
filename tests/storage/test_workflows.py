"""Files, outputs and workspaces of any size pass through a workflow without its history."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from support import attempts, running_worker, scheduled_activities, unique
from temporalio.client import (
    Client,
    Plugin,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowHistory,
    WorkflowUpdateStage,
)
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer
from wire.test_data_converters import ReversingCodec, openai_plugin
from workflows.storage import (
    Output,
    Refused,
    Returns,
    RoundTrip,
    Snapshotted,
    content,
    fingerprint,
)

from sandbox_core.storage.object_store import ObjectStore
from sandbox_core.worker import SandboxPlugin

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MB = 1024 * 1024


def size_of(history: WorkflowHistory) -> int:
    """Return the bytes of a history."""
    return sum(event.ByteSize() for event in history.events)


async def connected(
    address: str,
    *plugins: Plugin,
    converter: DataConverter = DataConverter.default,
) -> Client:
    return await Client.connect(address, plugins=plugins, data_converter=converter)


async def round_trip(client: Client, sizes: Sequence[int]) -> WorkflowHistory:
    """Write and read files of these sizes, and return the history."""
    async with running_worker(client, RoundTrip, plugins=[]) as queue:
        handle = await client.start_workflow(
            RoundTrip.run, args=["local", list(sizes)], id=unique("round"), task_queue=queue
        )
        assert [fingerprint(content(size)) for size in sizes] == await handle.result()
        return await handle.fetch_history()


class TestFiles:
    async def test_of_any_size_are_kept_out_of_the_history(
        self, temporal_address: str, store_url: str
    ) -> None:
        client = await connected(temporal_address, SandboxPlugin(storage=store_url))

        history = await round_trip(client, [MB, 2 * MB, 10 * MB])

        assert size_of(history) < 100_000

    @pytest.mark.parametrize(
        "converter",
        [
            pytest.param(DataConverter.default, id="default"),
            pytest.param(pydantic_data_converter, id="pydantic"),
            pytest.param(DataConverter(payload_codec=ReversingCodec()), id="codec"),
        ],
    )
    async def test_go_with_any_data_converter(
        self, temporal_address: str, tmp_path: Path, converter: DataConverter
    ) -> None:
        plugin = SandboxPlugin(storage=str(tmp_path))
        client = await connected(temporal_address, plugin, converter=converter)

        assert size_of(await round_trip(client, [2 * MB])) < 100_000

    @pytest.mark.parametrize("openai_first", [True, False])
    async def test_go_with_the_openai_plugin_in_either_order(
        self, temporal_address: str, tmp_path: Path, openai_first: bool
    ) -> None:
        plugins: list[Plugin] = [openai_plugin(), SandboxPlugin(storage=str(tmp_path))]
        client = await connected(temporal_address, *(plugins if openai_first else plugins[::-1]))

        assert size_of(await round_trip(client, [2 * MB])) < 100_000

    async def test_go_when_only_the_worker_has_the_plugin(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        plugin = SandboxPlugin(storage=str(tmp_path))
        async with running_worker(temporal_client, RoundTrip, plugins=[plugin]) as queue:
            seen = await temporal_client.execute_workflow(
                RoundTrip.run, args=["local", [3 * MB]], id=unique("round"), task_queue=queue
            )

        assert [fingerprint(content(3 * MB))] == seen

    async def test_go_without_any_configuration_on_one_host(
        self, temporal_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What Temporal takes stays where every host can read it."""
        monkeypatch.delenv("SANDBOX_CORE_STORAGE", raising=False)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        async with running_worker(temporal_client, RoundTrip, plugins=[SandboxPlugin()]) as queue:
            seen = await temporal_client.execute_workflow(
                RoundTrip.run, args=["local", [500_000, MB * 3]], id=unique("r"), task_queue=queue
            )

        assert [fingerprint(content(500_000)), fingerprint(content(3 * MB))] == seen
        stored = list((tmp_path / "sandbox-core" / "storage" / "payloads").iterdir())
        assert {True} == {path.stat().st_size > 3 * MB for path in stored}

    async def test_replay_from_the_store(self, temporal_address: str, tmp_path: Path) -> None:
        client = await connected(temporal_address, SandboxPlugin(storage=str(tmp_path)))
        history = await round_trip(client, [2 * MB])
        replayer = Replayer(workflows=[RoundTrip], plugins=[SandboxPlugin(storage=str(tmp_path))])

        await replayer.replay_workflow(history)


class TestLimits:
    @pytest.fixture
    def plugin(self, tmp_path: Path) -> SandboxPlugin:
        return SandboxPlugin(
            storage=str(tmp_path), max_file_bytes=3_000_000, max_output_bytes=1_000
        )

    async def test_a_larger_file_fails_once_with_path_size_and_limit(
        self, temporal_address: str, plugin: SandboxPlugin
    ) -> None:
        client = await connected(temporal_address, plugin)
        async with running_worker(client, Refused, plugins=[]) as queue:
            handle = await client.start_workflow(
                Refused.run, args=["local", 3_500_000], id=unique("refused"), task_queue=queue
            )
            seen = await handle.result()
            history = await handle.fetch_history()

        limit = "3,000,000 that SandboxPlugin(max_file_bytes=...) allows."
        assert {
            "write": f"PayloadTooLarge write large.bin: 3,500,000 bytes are more than the {limit}",
            "read": "PayloadTooLarge read made.bin: the answer has 3,500,000 bytes, more than the "
            f"{limit}",
        } == seen
        assert {1} == set(attempts(history))
        assert "local-sandbox_write" not in scheduled_activities(history)

    async def test_a_refusal_replays_when_the_limit_has_been_changed(
        self, temporal_address: str, plugin: SandboxPlugin, tmp_path: Path
    ) -> None:
        """In either direction."""
        client = await connected(temporal_address, plugin)
        histories = []
        async with running_worker(client, Refused, plugins=[]) as queue:
            for size in (3_500_000, 1_000_000):
                handle = await client.start_workflow(
                    Refused.run, args=["local", size], id=unique("refused"), task_queue=queue
                )
                await handle.result()
                histories.append(await handle.fetch_history())

        for history, limit in zip(histories, (9_000_000, 200_000), strict=True):
            changed = SandboxPlugin(storage=str(tmp_path), max_file_bytes=limit)
            await Replayer(workflows=[Refused], plugins=[changed]).replay_workflow(history)

    async def test_a_larger_output_keeps_its_head_and_tail(
        self, temporal_address: str, plugin: SandboxPlugin
    ) -> None:
        client = await connected(temporal_address, plugin)
        async with running_worker(client, Output, plugins=[]) as queue:
            stdout, stderr = await client.execute_workflow(
                Output.run,
                args=["local", "echo first; seq 100000; echo last; echo small >&2"],
                id=unique("output"),
                task_queue=queue,
            )

        assert re.fullmatch(
            r"first\n1\n2\n.*\n\[\.\.\. [\d,]+ bytes cut: more than the limit of 1,000 \.\.\.\]\n"
            r".*100000\nlast\n",
            stdout,
            re.DOTALL,
        )
        assert "small\n" == stderr

    async def test_an_output_of_a_megabyte_is_kept_whole_by_default(
        self, temporal_address: str, tmp_path: Path
    ) -> None:
        client = await connected(temporal_address, SandboxPlugin(storage=str(tmp_path)))
        async with running_worker(client, Output, plugins=[]) as queue:
            stdout, _ = await client.execute_workflow(
                Output.run,
                args=["local", "yes | head -c 1048576"],
                id=unique("output"),
                task_queue=queue,
            )

        assert "y\n" * (MB // 2) == stdout

    async def test_stdout_and_stderr_are_each_cut_to_a_megabyte_by_default(
        self, temporal_address: str, tmp_path: Path
    ) -> None:
        client = await connected(temporal_address, SandboxPlugin(storage=str(tmp_path)))
        async with running_worker(client, Output, plugins=[]) as queue:
            outputs = await client.execute_workflow(
                Output.run,
                args=["local", "yes | head -c 5000000; yes | head -c 5000000 >&2"],
                id=unique("output"),
                task_queue=queue,
            )

        for output in outputs:
            assert "[... 3,951,424 bytes cut: more than the limit of 1,048,576 ...]" in output


class TestUnreachable:
    async def test_fails_soon_and_says_why(
        self, temporal_address: str, unreachable_url: str
    ) -> None:
        """A write and a read each end, and the workflow goes on."""
        client = await connected(
            temporal_address,
            SandboxPlugin(storage=unreachable_url, storage_patience=timedelta(0)),
        )
        began = time.monotonic()
        async with running_worker(client, Refused, plugins=[]) as queue:
            handle = await client.start_workflow(
                Refused.run, args=["local", MB], id=unique("unreachable"), task_queue=queue
            )
            seen = await handle.result()
            history = await handle.fetch_history()

        assert time.monotonic() - began < 60
        assert {"write", "read"} == set(seen)
        for what, answer in seen.items():
            assert "storage s3://bucket/prefix: cannot " in answer, what
            assert "Check that the store is reachable from this host" in answer, what
            assert "s3cr3t" not in answer
        assert seen["write"].startswith("StorageError write large.bin: ")
        assert seen["read"].startswith("StorageError ")
        assert max(attempts(history)) <= 5

    async def test_a_refusal_replays_when_the_store_is_back(
        self, temporal_address: str, unreachable_url: str, tmp_path: Path
    ) -> None:
        client = await connected(
            temporal_address,
            SandboxPlugin(storage=unreachable_url, storage_patience=timedelta(0)),
        )
        async with running_worker(client, Refused, plugins=[]) as queue:
            handle = await client.start_workflow(
                Refused.run, args=["local", MB], id=unique("unreachable"), task_queue=queue
            )
            await handle.result()
            history = await handle.fetch_history()
        replayer = Replayer(workflows=[Refused], plugins=[SandboxPlugin(storage=str(tmp_path))])

        await replayer.replay_workflow(history)

    async def test_ends_a_workflow_that_needs_its_snapshots(
        self, temporal_address: str, unreachable_url: str
    ) -> None:
        client = await connected(temporal_address, SandboxPlugin(storage=unreachable_url))
        async with running_worker(client, Snapshotted, plugins=[]) as queue:
            handle = await client.start_workflow(
                Snapshotted.run, "local", id=unique("unreachable"), task_queue=queue
            )
            error = await _failure(handle)
            history = await handle.fetch_history()

        assert "StorageError" == error.type
        assert "storage s3://bucket/prefix: cannot look up snapshots/" in error.message
        assert max(attempts(history)) == 5

    async def test_ends_a_workflow_whose_snapshot_cannot_be_written(
        self, temporal_address: str, tmp_path: Path
    ) -> None:
        url = str(tmp_path / "store")
        client = await connected(temporal_address, SandboxPlugin(storage=url))
        async with running_worker(client, Snapshotted, plugins=[]) as queue:
            handle = await client.start_workflow(
                Snapshotted.run, "local", id=unique("unreachable"), task_queue=queue
            )
            await handle.execute_update(Snapshotted.do, "true")
            shutil.rmtree(url)
            (tmp_path / "store").touch()
            await handle.start_update(
                Snapshotted.do, "stop", wait_for_stage=WorkflowUpdateStage.ACCEPTED
            )
            error = await _failure(handle)

        assert "WorkspaceStopError" == error.type
        assert f"failed to stop session: storage file://{url}: cannot write" in error.message


async def _failure(handle: WorkflowHandle[Snapshotted, None]) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, ApplicationError)
    return failed.value.cause


@asynccontextmanager
async def _new_worker(address: str, queue: str, url: str) -> AsyncIterator[Client]:
    client = await connected(address, SandboxPlugin(storage=url))
    async with running_worker(client, Snapshotted, plugins=[], task_queue=queue):
        yield client


class TestSnapshots:
    async def test_move_a_workspace_to_another_worker_and_not_through_the_history(
        self, temporal_address: str, store_url: str
    ) -> None:
        queue, workflow_id = unique("queue"), unique("snapshot")
        async with _new_worker(temporal_address, queue, store_url) as client:
            handle = await client.start_workflow(
                Snapshotted.run, "local", id=workflow_id, task_queue=queue
            )
            do = Snapshotted.do
            before = await handle.execute_update(
                do, "head -c 5242880 /dev/urandom > big.bin; echo hi > small.txt; sha256sum *"
            )
            snapshot = await handle.execute_update(do, "stop")
            workspace = await handle.query(Snapshotted.workspace)
        shutil.rmtree(workspace)
        async with _new_worker(temporal_address, queue, store_url) as client:
            handle = client.get_workflow_handle_for(Snapshotted.run, workflow_id)
            after = await handle.execute_update(do, "sha256sum *")
            await handle.signal(Snapshotted.finish)
            await handle.result()
            history = await handle.fetch_history()

        assert before == after
        assert 2 == len(after.splitlines())
        assert size_of(history) < 100_000
        store = ObjectStore(store_url)
        saved = [(found.key, found.size > 5 * MB) async for found in store.list("snapshots")]
        assert [(f"snapshots/{snapshot}", True)] == saved
        assert [] == [found.key async for found in store.list("payloads")]


class TestOwnValues:
    """What belongs to a workflow, and not to its sandboxes."""

    @pytest.mark.parametrize("size", [200_000, 1_900_000])
    async def test_is_read_by_a_client_without_the_plugin(
        self, temporal_address: str, temporal_client: Client, tmp_path: Path, size: int
    ) -> None:
        """Whatever Temporal takes: a result, an update's, a query's."""
        client = await connected(temporal_address, SandboxPlugin(storage=str(tmp_path)))
        async with running_worker(client, Returns, plugins=[]) as queue:
            handle = await temporal_client.start_workflow(
                Returns.run, size, id=unique("own"), task_queue=queue
            )
            small = min(size, 900_000)
            updated = await handle.execute_update(Returns.update, small)
            seen = await handle.result()
            queried = await handle.query(Returns.query, small)

        assert [small, size, small] == [len(updated), len(seen), len(queried)]
        assert not (tmp_path / "payloads").exists()

    async def test_is_stored_where_temporal_would_refuse_it(
        self, temporal_address: str, tmp_path: Path
    ) -> None:
        client = await connected(temporal_address, SandboxPlugin(storage=str(tmp_path)))
        async with running_worker(client, Returns, plugins=[]) as queue:
            handle = await client.start_workflow(
                Returns.run, 3 * MB, id=unique("own"), task_queue=queue
            )
            seen = await handle.result()

        assert 3 * MB == len(seen)
        assert 1 == len(list((tmp_path / "payloads").iterdir()))

    @pytest.mark.parametrize("threshold", [1_000, 600_000])
    async def test_is_apart_from_what_sandboxes_are_given_and_answer(
        self, temporal_address: str, tmp_path: Path, threshold: int
    ) -> None:
        """Of which so much goes to the storage as the plugin says."""
        plugin = SandboxPlugin(storage=str(tmp_path), storage_threshold=threshold)
        client = await connected(temporal_address, plugin)

        await round_trip(client, [100_000, 500_000])

        stored = list((tmp_path / "payloads").glob("*")) if threshold == 1_000 else []
        assert (threshold == 1_000) == bool(stored) == (tmp_path / "payloads").exists()

    @pytest.mark.parametrize("threshold", [-1, 2 * MB])
    def test_has_a_threshold_within_what_temporal_takes(self, threshold: int) -> None:
        with pytest.raises(ValueError, match="storage_threshold is"):
            SandboxPlugin(storage_threshold=threshold)
