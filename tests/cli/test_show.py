"""`sandbox-core show`, run as an operator runs it."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cli.site import Site, words
from support import running_worker
from temporalio.client import Client, WorkflowHandle
from workflows.visited import Visited

from sandbox_core.testing import DevServer, dev_server


async def shown(site: Site, sandbox: object, *arguments: str) -> dict[str, Any]:
    result = await site.run("show", str(sandbox), "--json", *arguments)
    assert 0 == result.returncode, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


async def length(handle: WorkflowHandle[Any, Any]) -> int:
    return len((await handle.fetch_history()).events)


async def test_shows_the_workflow_the_worker_and_what_runs(site: Site) -> None:
    handle, root = await site.visited()
    await handle.execute_update(Visited.exec, "exit 3")
    process = await handle.execute_update(Visited.start, args=["sleep 1000", False])
    before = await length(handle)

    report = await shown(site, root)
    text = await site.run("show", str(root))

    assert before == await length(handle)
    assert ("local", str(root), handle.id, "open") == tuple(
        report[key] for key in ("provider", "sandbox_id", "workflow_id", "owner")
    )
    (worker,) = report["workers"]
    assert worker["state"] == "holds it"
    assert worker["queue"].startswith(f"{site.queue}@{worker['host']}#")
    assert [handle.id] == [each["workflow_id"] for each in report["users"]]
    (command,) = report["commands"]
    assert (process, "sleep 1000", False) == tuple(
        command[key] for key in ("process_id", "what", "tty")
    )
    assert 0 <= command["for_s"] < 60
    last = report["last_operation"]
    assert ("pty_exec_start", "sleep 1000", "ok") == tuple(
        last[key] for key in ("operation", "what", "outcome")
    )
    assert report["labels"]["sandbox-core.workflow-id"] == handle.id

    said = words(text.stdout)
    assert f"workflow {handle.id} (open), run " in said
    assert f"worker {worker['queue']} on host {worker['host']}: holds it" in said
    assert f"running process {process} for " in said
    assert "last pty_exec_start sleep 1000: ok, " in said
    await handle.signal(Visited.end)
    await handle.result()


async def test_an_exit_code_is_the_outcome_of_a_command(site: Site) -> None:
    handle, root = await site.visited()
    await handle.execute_update(Visited.exec, "exit 3")

    text = await site.run("show", str(root))

    assert "last exec exit 3: exit 3, " in words(text.stdout)
    assert "running nothing" in words(text.stdout)
    await handle.signal(Visited.end)
    await handle.result()


async def test_a_worker_that_does_not_hold_it_is_said(site: Site) -> None:
    """One that has just taken the place of the one that did, and one that is gone."""
    async with running_worker(site.client, Visited) as queue:
        _, root = await dataclasses.replace(site, queue=queue).visited()
    async with running_worker(site.client, task_queue=queue):
        report = await shown(site, root)
        text = await site.run("show", str(root))
    gone = await shown(site, root)

    assert (None, None) == (report["session_id"], report["commands"])
    assert ["does not hold it"] == [each["state"] for each in report["workers"]]
    assert "running unknown" in words(text.stdout)
    assert ["does not answer"] == [each["state"] for each in gone["workers"]]


async def test_what_does_not_exist_is_one_error(site: Site) -> None:
    result = await site.run("show", "moon")

    assert (1, "") == (result.returncode, result.stdout)
    assert "error: no sandbox 'moon' is labelled with this namespace." in result.stderr
    assert 1 == len(result.stderr.splitlines())


async def test_a_server_without_standalone_activities_is_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It says what to change."""
    monkeypatch.setitem(dev_server._TUNING, "activity.enableStandalone", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with DevServer() as server:
        client = await Client.connect(server.address)
        async with running_worker(client, Visited) as queue:
            site = Site(client, queue, tmp_path, tmp_path / "packages")
            handle, root = await site.visited()
            result = await site.run("show", str(root))
            await handle.signal(Visited.end)
            await handle.result()

    assert 1 == result.returncode
    assert "does not run standalone activities" in result.stderr
    assert "activity.enableStandalone" in result.stderr
