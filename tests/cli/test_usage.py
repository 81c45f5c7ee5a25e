"""`sandbox-core usage`, run as an operator runs it."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli.command import run_sandbox
from cli.site import Site
from documented import documented
from support import running_worker, until
from temporalio.client import Client
from terminal import pattern, steps
from workflows.owners import OwnsSandbox
from workflows.visited import Visited

from sandbox_core.testing import DevServer


@pytest.fixture
async def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Site]:
    """A server that nobody else uses: all of its workflows count."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with DevServer() as server:
        client = await Client.connect(server.address)
        async with running_worker(client, OwnsSandbox, Visited) as queue:
            yield Site(client, queue, tmp_path, tmp_path / "packages")


async def usage(site: Site, *arguments: str) -> dict[str, dict[str, Any]]:
    result = await site.run("usage", "--json", *arguments)
    assert 0 == result.returncode, result.stderr
    return {each["workflow_type"]: each for each in json.loads(result.stdout)}


async def test_counts_from_the_create_to_the_delete_or_the_end(alone: Site) -> None:
    """Also of one that was passed on, which counts for the workflow that created it.

    Before there is any, it prints one line.
    """
    assert {} == await usage(alone)
    assert 1 == len((await alone.run("usage", "--since", "1d")).stdout.splitlines())

    began = time.monotonic()
    deleted, _ = await alone.visited()
    await deleted.signal(Visited.end)
    await deleted.result()
    for _ in range(2):
        await alone.orphan()
    continued, _ = await alone.owned()
    await continued.signal(OwnsSandbox.tell, "continue as new")

    async def closed(runs: int) -> bool:
        query = 'ExecutionStatus != "Running"'
        return runs == len([each async for each in alone.client.list_workflows(query)])

    await until(partial(closed, 4))
    # Its next run ends too: what runs on takes longer each time that it is asked for.
    await alone.client.get_workflow_handle(continued.id).terminate()
    await until(partial(closed, 5))
    rows = await usage(alone)
    elapsed = time.monotonic() - began

    assert {"Visited", "OwnsSandbox"} == rows.keys()
    assert (1, 0) == (rows["Visited"]["sandboxes"], rows["Visited"]["not_deleted"])
    assert (3, 3) == (rows["OwnsSandbox"]["sandboxes"], rows["OwnsSandbox"]["not_deleted"])
    assert {"local"} == {each["provider"] for each in rows.values()}
    assert 0 < rows["Visited"]["seconds"] < elapsed
    assert 0 < rows["OwnsSandbox"]["seconds"] < 3 * elapsed

    (step,) = steps(documented("docs/commands.md", "$ sandbox-core usage"))
    table = (await alone.run(*step.words[1:])).stdout
    # The longest time comes first, whichever that is here.
    first, second = sorted(rows, key=lambda name: -rows[name]["seconds"])
    names = {"Repair": first, "docker": "local", "Triage": second, "e2b": "local"}
    as_there = re.sub(r"\d$", "0", step.output, flags=re.M)
    assert pattern(as_there, names).fullmatch(re.sub(r"\d$", "0", table, flags=re.M)), table


def test_a_wrong_duration_is_one_error() -> None:
    result = run_sandbox("usage", "--since", "yesterday")

    assert 2 == result.returncode
    assert "--since" in result.stderr
