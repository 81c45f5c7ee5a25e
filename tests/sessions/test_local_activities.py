"""Short commands as local activities: fewer events, and each command still runs once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from faults.harness import ended, line_of, running, workers
from support import running_worker, scheduled_activities, unique, until
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Replayer, Worker
from temporalio.workflow import ActivityConfig
from workflows.local_activities import Branches, RunLocally

from sandbox_core.cli.history import operations_of
from sandbox_core.errors import InvalidRequest
from sandbox_core.live import CommandEnded, CommandOutput, CommandStarted, follow
from sandbox_core.wire.messages import ExecResponse
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.commands import abandoned
from sandbox_core.worker.metrics import ProviderMetrics
from sandbox_core.worker.observation import Observation, observed
from sandbox_core.workflow import session_commands, temporal_sandbox_client
from sandbox_core.workflow.local_activities import may_be_repeated

Handle = WorkflowHandle[RunLocally, list[list[str]]]


@pytest.fixture(autouse=True)
def _only_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")  # Workers are there sooner.


@pytest.fixture
def all_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no command is a local activity for too long."""
    monkeypatch.setattr(session_commands, "WITHIN_S", 100)


async def start(client: Client, queue: str, task: Branches) -> Handle:
    return await client.start_workflow(
        RunLocally.run,
        task,
        id=unique("local"),
        task_queue=queue,
        task_timeout=timedelta(seconds=3),  # After which a dead worker's task is attempted again.
    )


def commands_of(history: WorkflowHistory) -> tuple[int, int]:
    """Return how many activities ran commands, and how many local activities."""
    local = [
        event
        for event in history.events
        if event.marker_recorded_event_attributes.marker_name == "core_local_activity"
    ]
    return scheduled_activities(history).count("local-sandbox_exec"), len(local)


def contains(path: Path, line: str) -> bool:
    return path.exists() and line in path.read_text().splitlines()


async def run_of(
    client: Client, task: Branches, *, cached: int = 1000
) -> tuple[list[list[str]], tuple[int, int]]:
    async with running_worker(client, RunLocally, max_cached_workflows=cached) as queue:
        handle = await start(client, queue, task)
        seen = await handle.result()
    return seen, commands_of(await handle.fetch_history())


class TestCommands:
    """What is not short, or cannot be recognized when it is asked for again, is an activity."""

    @pytest.mark.usefixtures("all_are_short")
    async def test_short_ones_are_local_but_for_each_fiftieth(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """Each sends those before it; the first one shows that there is a helper."""
        commands = [f"echo {n} | tee -a counter" for n in range(120)]

        seen, (activities, local) = await run_of(
            temporal_client, Branches(root=str(tmp_path), commands=[commands])
        )

        assert [[f"{n}\n" for n in range(120)]] == seen
        assert [*map(str, range(120))] == (tmp_path / "counter").read_text().split()
        assert (3, 118) == (activities, local)

    @pytest.mark.parametrize("cached", [1000, 0], ids=["in the cache", "always replayed"])
    async def test_a_long_one_is_awaited_by_an_activity(
        self, temporal_client: Client, tmp_path: Path, cached: int
    ) -> None:
        commands = ["echo run >> counter; sleep 2; echo done", "echo next"]

        seen, kinds = await run_of(
            temporal_client, Branches(root=str(tmp_path), commands=[commands]), cached=cached
        )

        assert [["done\n", "next\n"]] == seen
        assert "run\n" == (tmp_path / "counter").read_text()
        assert (2, 2) == kinds

    @pytest.mark.usefixtures("all_are_short")
    async def test_a_long_output_is_an_activitys(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """The results of one workflow task are sent in one message."""
        commands = ["echo run >> counter; seq 1 20000"]

        seen, kinds = await run_of(
            temporal_client, Branches(root=str(tmp_path), commands=[commands])
        )

        assert "".join(f"{n}\n" for n in range(1, 20001)) == seen[0][0]
        assert "run\n" == (tmp_path / "counter").read_text()
        assert (2, 1) == kinds

    @pytest.mark.usefixtures("all_are_short")
    async def test_a_long_request_is_an_activitys(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """Its error repeats it, and those of one workflow task are sent in one message too."""
        commands = ["sleep 60 # " + "x" * 10_000, "echo next"]

        seen, kinds = await run_of(
            temporal_client, Branches(root=str(tmp_path), commands=[commands], timeout=0.1)
        )

        assert [["ExecTimeoutError", "next\n"]] == seen
        assert (2, 1) == kinds

    @pytest.mark.usefixtures("all_are_short")
    async def test_a_timeout_is_the_commands(self, temporal_client: Client, tmp_path: Path) -> None:
        seen, kinds = await run_of(
            temporal_client,
            Branches(root=str(tmp_path), commands=[["sleep 60", "echo next"]], timeout=0.3),
        )

        assert [["ExecTimeoutError", "next\n"]] == seen
        assert (1, 2) == kinds

    async def test_one_that_is_given_up_is_ended(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        task = Branches(
            root=str(tmp_path),
            commands=[["echo $$ > pid; sleep 60", "echo next"]],
        )
        async with running_worker(temporal_client, RunLocally) as queue:
            handle = await start(temporal_client, queue, task)
            await line_of(tmp_path / "pid")
            await handle.signal(RunLocally.give_up)
            seen = await handle.result()

        assert [["ActivityError", "next\n"]] == seen  # Temporal's, for a cancelled one.
        assert not running(int((tmp_path / "pid").read_text()))

    async def test_one_of_a_terminated_workflow_is_ended(
        self, temporal_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The activity that would await its end, and send heartbeats, is never scheduled."""
        monkeypatch.setattr(abandoned, "FOLLOWS_S", 0.3)  # No other activity can follow here.
        task = Branches(root=str(tmp_path), commands=[["echo $$ > pid; sleep 60"]])
        async with running_worker(temporal_client, RunLocally) as queue:
            handle = await start(temporal_client, queue, task)
            pid = int(await line_of(tmp_path / "pid"))
            await handle.terminate()
            await asyncio.wait_for(ended(pid), timeout=30)

    async def test_without_the_helper_all_are_activities(
        self, temporal_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A repetition would run the command again."""
        monkeypatch.setenv("SANDBOX_CORE_HELPER", "off")
        commands = ["echo a", "echo b"]

        seen, kinds = await run_of(
            temporal_client, Branches(root=str(tmp_path), commands=[commands])
        )

        assert [["a\n", "b\n"]] == seen
        assert (3, 0) == kinds

    @pytest.mark.parametrize("cached", [1000, 0], ids=["in the cache", "always replayed"])
    async def test_where_the_provider_is_not_offered_all_are_activities(
        self, temporal_client: Client, tmp_path: Path, cached: int
    ) -> None:
        """An error would be a tool's answer to the model, which decides by it."""
        queue = unique("split")
        runs_workflows = Worker(
            temporal_client,
            task_queue=queue,
            workflows=[RunLocally],
            plugins=[SandboxPlugin(register_activities=False)],
            max_cached_workflows=cached,
        )
        runs_activities = Worker(temporal_client, task_queue=queue, plugins=[SandboxPlugin()])
        async with runs_workflows, runs_activities:
            task = Branches(root=str(tmp_path), commands=[["echo a", "echo b"], ["echo c"]])
            handle = await start(temporal_client, queue, task)
            seen = await handle.result()
        history = await handle.fetch_history()
        with_provider = Replayer(workflows=[RunLocally], plugins=[SandboxPlugin()])
        await with_provider.replay_workflow(history)

        assert [["a\n", "b\n"], ["c\n"]] == seen
        assert (4, 0) == commands_of(history)


class TestHistory:
    """What reads histories finds these commands too."""

    @pytest.fixture
    async def handle(self, temporal_client: Client, tmp_path: Path) -> Handle:
        commands = ["echo short", "sleep 60", "seq 1 20000"]
        async with running_worker(temporal_client, RunLocally) as queue:
            task = Branches(root=str(tmp_path), commands=[commands], timeout=0.5)
            handle = await start(temporal_client, queue, task)
            await handle.result()
        return handle

    async def test_audit_has_each_once(self, temporal_client: Client, handle: Handle) -> None:
        client = temporal_client
        found = [
            each
            async for each in operations_of(client, client.get_workflow_handle(handle.id))
            if each.operation == "exec"
        ]

        assert [
            ("true", "ok", 0),
            ("echo short", "ok", 0),
            ("sleep 60", "exec_timeout", None),
            ("seq 1 20000", "ok", 0),
        ] == [(each.what, each.outcome, each.exit_code) for each in found]
        assert found[0].session_id == found[1].session_id is not None
        assert found[0].worker == found[1].worker
        assert None not in {each.operation_id for each in found if each.outcome == "ok"}
        assert all(each.took_s is not None and each.took_s >= 0 for each in found)
        assert found[2].took_s is not None
        assert 0.4 < found[2].took_s < 30

    async def test_followers_see_each_once(self, temporal_client: Client, handle: Handle) -> None:
        begun: list[str] = []
        ended: list[tuple[int | None, bool]] = []
        output = b""
        async for event in follow(temporal_client, handle.id):
            match event:
                case CommandStarted():
                    begun.append(event.command)
                case CommandOutput():
                    output += event.data
                case CommandEnded():
                    ended.append((event.exit_code, event.error is not None))

        assert ["true", "echo short", "sleep 60", "seq 1 20000"] == begun
        assert [(0, False), (0, False), (None, True), (0, False)] == ended
        assert b"short\n" + b"".join(b"%d\n" % n for n in range(1, 20001)) == output


class TestKilledWorker:
    async def test_unrecorded_commands_run_once(
        self, temporal_client: Client, temporal_address: str, tmp_path: Path
    ) -> None:
        """Another attempt asks for all of them again, and their results come in another order."""
        slow = ["sleep 0.4; echo a1 >> counter", "echo a2 >> counter"]
        wait = "echo $$ > pid; until [ -e go ]; do sleep 0.01; done; echo b"
        quick = [*(f"echo b{n} >> counter" for n in range(5)), wait]
        queue = unique("killed")
        with workers(temporal_address, queue, RunLocally) as fleet:
            first = await fleet.start()
            task = Branches(root=str(tmp_path), commands=[slow, quick])
            handle = await start(temporal_client, queue, task)
            pid = int(await line_of(tmp_path / "pid"))
            await until(partial(asyncio.to_thread, contains, tmp_path / "counter", "a2"))
            assert running(pid)
            first.kill()
            (tmp_path / "go").touch()
            await fleet.start()
            seen = await handle.result()

        assert [["", ""], [*[""] * 5, "b\n"]] == seen
        counted = Counter((tmp_path / "counter").read_text().split())
        assert {"a1": 1, "a2": 1, **{f"b{n}": 1 for n in range(5)}} == counted

    async def test_none_runs_again_where_the_helper_does_not_run(
        self, temporal_client: Client, temporal_address: str, tmp_path: Path
    ) -> None:
        """The other worker cannot tell which commands ran before, and says so of each."""
        queue = unique("unhelped")
        with workers(temporal_address, queue, RunLocally) as fleet:
            first = await fleet.start()
            # The last one ends the worker itself, at once: nothing is recorded by then.
            commands = [*(f"echo {n} >> counter" for n in range(3)), f"kill -9 {first.pid}"]
            task = Branches(root=str(tmp_path), commands=[commands])
            handle = await start(temporal_client, queue, task)
            await asyncio.to_thread(first.wait)
            await fleet.start(variables={"SANDBOX_CORE_HELPER": "off"})
            seen = await handle.result()

        assert [["OutcomeUnknown"] * 4] == seen
        assert ["0", "1", "2"] == (tmp_path / "counter").read_text().split()


class TestFailure:
    @pytest.mark.parametrize(
        ("policy", "repeated"),
        [
            (RetryPolicy(), True),
            (RetryPolicy(maximum_attempts=2), True),
            (RetryPolicy(maximum_attempts=1), False),
            (RetryPolicy(non_retryable_error_types=["exec_transport_error"]), False),
        ],
        ids=["default", "two attempts", "one attempt", "this type not"],
    )
    def test_is_repeated_as_the_policy_says(self, policy: RetryPolicy, repeated: bool) -> None:
        """The activity that asks again is the second attempt."""
        failure = ApplicationError("no answer", type="exec_transport_error")

        assert may_be_repeated(failure, ActivityConfig(retry_policy=policy)) is repeated


class TestObservation:
    @pytest.mark.parametrize(
        ("response", "outcome", "exit_code"),
        [
            (ExecResponse(unfinished="started"), "unfinished", None),
            (ExecResponse(exit_code=3), "ok", 3),
        ],
        ids=["unfinished", "ended"],
    )
    def test_one_that_has_not_ended_is_no_success(
        self, response: ExecResponse, outcome: str, exit_code: int | None
    ) -> None:
        def attempt() -> Observation:
            with observed(ProviderMetrics(), "local", "exec", b"") as seen:
                seen.response = response
            return seen

        seen: Observation = ActivityEnvironment().run(attempt)

        assert (outcome, exit_code) == (seen.outcome, seen.exit_code)


class TestClient:
    @pytest.mark.parametrize(
        ("config", "wanted", "error"),
        [
            (None, "yes", "local_activities is a bool, not str."),
            (ActivityConfig(task_queue="others"), True, "exclude each other"),
        ],
        ids=["not a bool", "another task queue"],
    )
    def test_refuses(self, config: ActivityConfig | None, wanted: bool, error: str) -> None:
        with pytest.raises(InvalidRequest, match=error):
            temporal_sandbox_client("local", config, local_activities=wanted)
