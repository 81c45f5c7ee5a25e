"""`sandbox-core audit`, run as an operator runs it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli.command import run_sandbox
from support import running_worker, unique
from temporalio.client import Client
from wire.workflows import WholeSession
from workflows.audited import Audited

from sandbox_core.worker import SandboxPlugin


@dataclass
class Site:
    """A server, a worker, and the storage of its own."""

    address: str
    client: Client
    task_queue: str
    storage: str

    async def run(self, workflow: type, *arguments: object) -> str:
        workflow_id = unique("audit")
        await self.client.execute_workflow(
            workflow.__name__,
            args=arguments,
            id=workflow_id,
            task_queue=self.task_queue,
        )
        return workflow_id

    async def audit(self, *arguments: str) -> list[dict[str, Any]]:
        shown = await self.show(*arguments, "--json")
        operations: list[dict[str, Any]] = json.loads(shown)
        return operations

    async def show(self, *arguments: str, code: int = 0) -> str:
        given = {"SANDBOX_CORE_STORAGE": self.storage, "TEMPORAL_ADDRESS": self.address}
        result = await asyncio.to_thread(run_sandbox, "audit", *arguments, **given)
        assert result.returncode == code, result.stderr
        return result.stdout if code == 0 else result.stderr


@pytest.fixture
async def site(
    temporal_address: str, temporal_client: Client, tmp_path: Path
) -> AsyncIterator[Site]:
    storage = str(tmp_path / "storage")
    plugin = SandboxPlugin(storage=storage, storage_threshold=1000)
    async with running_worker(temporal_client, WholeSession, Audited, plugins=[plugin]) as queue:
        yield Site(temporal_address, temporal_client, queue, storage)


async def test_each_operation_has_its_outcome_and_what_it_took(site: Site) -> None:
    operations = await site.audit(await site.run(WholeSession))

    assert {each["provider"] for each in operations} == {"local"}
    assert {each["attempts"] for each in operations} == {1}
    assert [each["operation"] for each in operations][:2] == ["create_session", "start"]
    (command,) = [each for each in operations if each["operation"] == "exec"]
    assert (command["outcome"], command["exit_code"], command["error"]) == ("ok", 3, None)
    assert "exit 3" in command["what"]
    (missing,) = [each for each in operations if each["outcome"] not in ("ok", "pending")]
    assert (missing["operation"], missing["what"]) == ("read", "missing.txt")
    assert missing["outcome"] == "workspace_read_not_found"
    assert len({each["session_id"] for each in operations}) == 1
    for each in operations:
        assert each["took_s"] >= 0
        assert each["waited_s"] >= 0
        assert each["worker"]


async def test_a_result_in_the_storage_counts_with_its_size_and_exit_code(site: Site) -> None:
    workflow_id = await site.run(Audited, "head -c 50000 /dev/zero; exit 7")

    (command,) = [e for e in await site.audit(workflow_id) if e["operation"] == "exec"]
    (unread,) = [
        each
        for each in await site.audit(workflow_id, "--storage", f"{site.storage}-other")
        if each["operation"] == "exec"
    ]

    assert (command["outcome"], command["exit_code"]) == ("ok", 7)
    assert command["output_bytes"] > 50_000
    assert (unread["outcome"], unread["exit_code"]) == ("ok", None)
    assert unread["output_bytes"] == command["output_bytes"]


async def test_a_command_that_succeeds_has_exit_code_0(site: Site) -> None:
    """Which is left out of its response."""
    workflow_id = await site.run(Audited, "true")

    (command,) = [e for e in await site.audit(workflow_id) if e["operation"] == "exec"]
    assert (command["outcome"], command["exit_code"]) == ("ok", 0)
    assert "1 command, 0 of which did not exit with 0" in await site.show(workflow_id)


async def test_a_secret_in_a_command_is_not_shown(site: Site) -> None:
    workflow_id = await site.run(Audited, "API_TOKEN=hunter-two-and-more true")

    for shown in (await site.show(workflow_id), await site.show(workflow_id, "--json")):
        assert "API_TOKEN=***" in shown
        assert "hunter" not in shown


async def test_the_table_ends_with_what_it_comes_to(site: Site) -> None:
    shown = await site.show(await site.run(WholeSession))

    assert "exit 3" in shown
    assert "workspace_read_not_found: file not found: missing.txt" in shown
    last = shown.strip().splitlines()[-1]
    assert last.endswith(
        "in 1 session, 1 of which failed; 1 command, 1 of which did not exit with 0"
    )


async def test_brackets_in_a_command_are_shown_as_they_are(site: Site) -> None:
    assert "test [a] [red]b" in await site.show(await site.run(Audited, "echo test [a] [red]b"))


async def test_a_workflow_that_does_not_exist_is_one_clear_error(site: Site) -> None:
    shown = await site.show("nobody", code=1)

    assert shown.startswith("error: namespace default has no workflow 'nobody'")
    assert len(shown.strip().splitlines()) == 1
