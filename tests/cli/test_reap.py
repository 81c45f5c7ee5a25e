"""`sandbox-core reap`, run as a user runs it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
from cli.site import STUBBORN, UNABLE, Site, words
from support import scheduled_activities, unique, until
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import WorkerDeploymentVersion
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker, WorkerDeploymentConfig
from workflows.owners import OwnsSandbox, Versioned

from sandbox_core.providers import discover
from sandbox_core.reap_workflow import REAP_WORKFLOW, ReapWorkflow, VersionedReapWorkflow
from sandbox_core.worker import SandboxPlugin


class TestReap:
    async def test_a_dry_run_shows_what_it_would_delete_and_deletes_nothing(
        self, site: Site
    ) -> None:
        workflow_id, root = await site.orphan()
        living, kept = await site.owned()

        result = await site.reap("--older-than", "0s")

        assert 0 == result.returncode, result.stderr
        header, line, total, advice = [words(line) for line in result.stdout.splitlines()]
        assert "PROVIDER SANDBOX WORKFLOW RUN OWNER AGE OUTCOME" == header
        assert re.fullmatch(
            rf"local {root} {workflow_id} \S+ terminated \d+s ago \d+s would be deleted", line
        )
        assert "Sandboxes at local: 1 orphaned, 1 of open workflows" == total
        assert "Nothing was deleted. Use --delete to delete the orphans." == advice
        assert [True, True] == [root.is_dir(), kept.is_dir()]
        assert living.id not in result.stdout

    async def test_deletes_when_it_is_told_to(self, site: Site) -> None:
        _, root = await site.orphan()
        _, kept = await site.owned()

        result = await site.reap("--older-than", "0s", "--delete")

        assert 0 == result.returncode, result.stderr
        assert words(result.stdout).endswith(
            "deleted Sandboxes at local: 1 deleted, 1 of open workflows"
        )
        assert [False, True] == [root.exists(), kept.is_dir()]

    async def test_leaves_ten_minutes_to_a_delete_that_may_be_under_way(self, site: Site) -> None:
        _, root = await site.orphan()

        result = await site.reap("--delete")

        assert 0 == result.returncode
        assert "Sandboxes at local: 1 of workflows closed less than 10m ago" == words(result.stdout)
        assert root.is_dir()

    async def test_names_what_it_could_not_delete_and_exits_with_1(self, site: Site) -> None:
        site.install("stubborn", STUBBORN)
        _, root = await site.orphan()

        result = await site.reap("--older-than", "0s", "--delete", "--provider", "stubborn")

        assert 1 == result.returncode
        reason = f"PermissionError: {root}: not allowed"
        assert f"could not be deleted: {reason} Sandboxes at stubborn" in words(result.stdout)
        assert (f"error: stubborn sandboxes that could not be deleted: {root} ({reason})") == words(
            result.stderr
        )
        assert root.is_dir()

    async def test_asks_the_others_if_a_provider_cannot_be_asked(self, site: Site) -> None:
        """And exits with 1."""
        site.install("broken", "import acme_vendor_sdk")
        _, root = await site.orphan()

        result = await site.reap("--older-than", "0s", "--delete")

        assert 1 == result.returncode
        assert not root.exists()
        assert "Sandboxes at local: 1 deleted" in result.stdout
        assert (
            "error: broken could not be asked: provider 'broken' (acme-broken 1.0, module "
            "acme_broken) cannot be imported: ModuleNotFoundError: No module named "
            "'acme_vendor_sdk'."
        ) in words(result.stderr)

    async def test_prints_json_for_programs(self, site: Site) -> None:
        workflow_id, root = await site.orphan()
        await site.owned()

        result = await site.reap("--older-than", "0s", "--json")

        assert 0 == result.returncode
        report = json.loads(result.stdout)
        [found] = report.pop("sandboxes")
        assert {"living": 1, "recent": 0, "errors": {}} == report
        assert 0 <= found.pop("closed_s") <= found.pop("age_s")
        assert found.pop("run_id")
        assert {
            "provider": "local",
            "sandbox_id": str(root),
            "workflow_id": workflow_id,
            "owner": "terminated",
            "outcome": "orphan",
            "reason": "",
        } == found

    async def test_does_not_see_what_belongs_to_another_namespace(self, site: Site) -> None:
        _, root = await site.orphan()

        result = await site.reap("--older-than", "0s", "--delete", "--namespace", "temporal-system")

        assert 0 == result.returncode, result.stderr
        assert "Sandboxes at local: none" == words(result.stdout)
        assert root.is_dir()


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--older-than", "soon"],
                "Invalid value for --older-than: 'soon' is not a duration: write a whole number "
                "and s, m, h, d or w, such as 10m.",
            ),
            (["--every", "1s"], "Invalid value for --every: 1s is too short; use at least 1m"),
            (["--every", "1m", "--json"], "Invalid value for --json: not allowed with --every"),
            (
                ["--task-queue", "agents"],
                "Invalid value for --task-queue: only allowed with --every",
            ),
        ],
    )
    async def test_is_one_clear_error(self, site: Site, arguments: list[str], message: str) -> None:
        result = await site.reap(*arguments)

        assert 2 == result.returncode
        assert message in words(result.stderr)

    @pytest.mark.parametrize("every", [[], ["--every", "10m"]], ids=["now", "scheduled"])
    async def test_a_provider_that_cannot_be_reaped(self, site: Site, every: list[str]) -> None:
        site.install("unable", UNABLE)

        result = await site.reap("--provider", "unable", *every)

        assert 1 == result.returncode
        assert (
            "error: provider 'unable' cannot label sandboxes, change their labels and destroy them "
            "by their id, so its orphans cannot be determined. Those that can be "
            "reaped: local."
        ) == words(result.stderr)

    @pytest.mark.parametrize("every", [[], ["--every", "10m"]], ids=["now", "scheduled"])
    async def test_a_provider_that_is_not_installed(self, site: Site, every: list[str]) -> None:
        result = await site.reap("--provider", "moon", *every)

        assert 1 == result.returncode
        assert (
            "error: provider 'moon' is not installed here, or turned off. Those that can be "
            "reaped: local. Install it: see the documentation of its author"
        ) == words(result.stderr)

    async def test_no_provider_that_can_be_reaped(self, site: Site) -> None:
        all_of_them = ",".join({each.name for each in discover()})
        result = await site.reap(SANDBOX_CORE_DISABLED_PROVIDERS=all_of_them)

        assert 1 == result.returncode
        assert "Installed: none." in words(result.stderr)

    @pytest.mark.parametrize("every", [[], ["--every", "10m"]], ids=["now", "scheduled"])
    async def test_a_server_that_does_not_answer(self, site: Site, every: list[str]) -> None:
        result = await site.reap("--address", "127.0.0.1:1", *every)

        assert 1 == result.returncode
        assert "error: cannot connect to Temporal at 127.0.0.1:1: " in result.stderr

    @pytest.mark.parametrize("every", [[], ["--every", "10m"]], ids=["now", "scheduled"])
    async def test_a_namespace_that_does_not_exist(self, site: Site, every: list[str]) -> None:
        result = await site.reap("--namespace", "nowhere", *every)

        assert 1 == result.returncode
        assert "namespace nowhere: NOT_FOUND: Namespace nowhere is not found" in result.stderr


async def triggered(
    client: Client, schedule: ScheduleHandle
) -> WorkflowHandle[ReapWorkflow, object]:
    """Trigger a schedule, and return the workflow that it starts."""
    await schedule.trigger()

    async def has_started() -> bool:
        return bool((await schedule.describe()).info.recent_actions)

    await until(has_started)
    started = (await schedule.describe()).info.recent_actions[-1].action
    assert isinstance(started, ScheduleActionExecutionStartWorkflow)
    return client.get_workflow_handle(started.workflow_id)


class TestSchedule:
    """`sandbox-core reap --every`: the workers of a queue do it."""

    @pytest.fixture
    async def schedule(self, site: Site) -> AsyncIterator[ScheduleHandle]:
        handle = site.client.get_schedule_handle(f"sandbox-core-reap-{site.queue}")
        yield handle
        await handle.delete()

    async def _schedule(self, site: Site, *arguments: str) -> str:
        result = await site.reap("--every", "10m", "--task-queue", site.queue, *arguments)
        assert 0 == result.returncode, result.stderr
        return result.stdout

    async def test_reaps_when_its_time_has_come(self, site: Site, schedule: ScheduleHandle) -> None:
        """The workflow's result says what was done, and its history replays."""
        shown = await self._schedule(site, "--older-than", "0s", "--delete")
        workflow_id, root = await site.orphan()
        _, kept = await site.owned()

        handle = await triggered(site.client, schedule)
        result = json.loads(json.dumps(await handle.result()))

        [found] = result["answers"]["local"]["sandboxes"]
        assert [workflow_id, "terminated", "deleted"] == [
            found[key] for key in ("workflow_id", "owner", "outcome")
        ]
        assert 1 == result["answers"]["local"]["living"]
        assert [False, True] == [root.exists(), kept.is_dir()]
        assert f"Schedule {schedule.id} created: every 10m a worker of task queue " in shown
        assert f"temporal schedule delete --schedule-id {schedule.id} --namespace default" in shown
        history = await handle.fetch_history()
        assert ["local-sandbox_reap"] == scheduled_activities(history)
        await Replayer(workflows=[OwnsSandbox], plugins=[SandboxPlugin()]).replay_workflow(history)

    async def test_without_delete_it_only_reports(
        self, site: Site, schedule: ScheduleHandle
    ) -> None:
        """The queue may also be that of the settings."""
        scheduled = await site.reap(
            "--every", "10m", "--older-than", "0s", SANDBOX_CORE_WORKER_TASK_QUEUE=site.queue
        )
        assert 0 == scheduled.returncode, scheduled.stderr
        _, root = await site.orphan()

        handle = await triggered(site.client, schedule)
        result = json.loads(json.dumps(await handle.result()))

        [found] = result["answers"]["local"]["sandboxes"]
        assert [str(root), "orphan"] == [found["sandbox_id"], found["outcome"]]
        assert root.is_dir()

    async def test_is_changed_and_not_doubled_by_another_call(
        self, site: Site, schedule: ScheduleHandle
    ) -> None:
        """One that was paused stays so."""
        await self._schedule(site)
        await schedule.pause()

        result = await site.reap(
            "--every", "2h", "--task-queue", site.queue, "--older-than", "7d", "--delete"
        )

        assert 0 == result.returncode, result.stderr
        assert f"Schedule {schedule.id} updated: every 2h" in result.stdout
        assert "It is paused." in result.stdout
        described = (await schedule.describe()).schedule
        assert described.state.paused
        assert [7200.0] == [each.every.total_seconds() for each in described.spec.intervals]
        assert ScheduleOverlapPolicy.SKIP == described.policy.overlap
        action = described.action
        assert isinstance(action, ScheduleActionStartWorkflow)
        assert [REAP_WORKFLOW, site.queue] == [action.workflow, action.task_queue]
        [payload] = await site.client.data_converter.decode(action.args)
        assert {
            "providers": ["local"],
            "reap": {"older_than_s": 604800.0, "delete": True},
        } == payload

    async def test_fails_naming_what_could_not_be_done_after_doing_the_rest(
        self, site: Site, schedule: ScheduleHandle
    ) -> None:
        """The command has a provider that the worker does not have."""
        site.install("stubborn", STUBBORN)
        await self._schedule(site, "--older-than", "0s", "--delete")
        _, root = await site.orphan()

        handle = await triggered(site.client, schedule)
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()

        assert isinstance(failed.value.cause, ApplicationError)
        assert "OrphansLeft" == failed.value.cause.type
        assert (
            f"stubborn could not be asked: the worker of task queue {site.queue!r} that was asked "
            f"does not have it"
        ) == failed.value.cause.message
        assert not root.exists()


class TestWorker:
    """Which workers know the workflow that the schedule starts."""

    def _workflows(self, client: Client, *workflows: type, plugin: SandboxPlugin) -> list[type]:
        worker = Worker(client, task_queue=unique("queue"), workflows=workflows, plugins=[plugin])
        return list(worker.config(active_config=True).get("workflows", ()))

    async def test_those_that_run_workflows(self, temporal_client: Client) -> None:
        plugin = SandboxPlugin(register_activities=False)

        assert [OwnsSandbox, ReapWorkflow] == self._workflows(
            temporal_client, OwnsSandbox, plugin=plugin
        )

    async def test_not_those_that_run_activities_only(self, temporal_client: Client) -> None:
        """It would take the workflow tasks of the queue, and know none of the workflows."""
        assert [] == self._workflows(temporal_client, plugin=SandboxPlugin())

    async def test_an_application_may_register_it_itself(self, temporal_client: Client) -> None:
        assert [ReapWorkflow, OwnsSandbox] == self._workflows(
            temporal_client, ReapWorkflow, OwnsSandbox, plugin=SandboxPlugin()
        )

    async def test_those_with_versions_too(self, temporal_client: Client) -> None:
        """There every workflow has to say how it behaves, and elsewhere none may."""
        version = WorkerDeploymentVersion(deployment_name=unique("agents"), build_id="1")
        worker = Worker(
            temporal_client,
            task_queue=unique("queue"),
            workflows=[Versioned],
            plugins=[SandboxPlugin()],
            deployment_config=WorkerDeploymentConfig(version=version, use_worker_versioning=True),
        )

        workflows = worker.config(active_config=True).get("workflows")
        assert [Versioned, VersionedReapWorkflow] == workflows
