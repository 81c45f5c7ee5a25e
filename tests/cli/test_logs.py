"""`sandbox-core logs`, run as an operator runs it."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cli.command import PipedSandbox
from cli.site import Site
from support import running_worker, unique
from temporalio.client import WorkflowHandle
from workflows.live_output import LiveJob, RunLive
from workflows.visited import Visited

WAITS = "echo begun; echo oh >&2; while ! test -e go; do sleep 0.01; done; printf done; exit 3"


@asynccontextmanager
async def live_workflow(site: Site, *commands: str) -> AsyncIterator[WorkflowHandle[RunLive, None]]:
    """Run a workflow with commands that are published; they are in the site's folder."""
    async with running_worker(site.client, RunLive) as queue:
        yield await site.client.start_workflow(
            RunLive.run,
            LiveJob(list(commands), str(site.tmp)),
            id=unique("live"),
            task_queue=queue,
        )


async def start(site: Site, *arguments: str) -> PipedSandbox:
    return await PipedSandbox.start("logs", *arguments, **site.variables)


async def test_follows_a_command_until_the_workflow_ends(site: Site) -> None:
    async with live_workflow(site, WAITS, "true") as handle:
        process = await start(site, handle.id, "--follow")
        # In either order: they are two streams.
        shown = b"".join([await process.line() for _ in range(3)])
        (site.tmp / "go").touch()
        code, rest, errors = await process.communicate()
        length = len((await handle.fetch_history()).events)
        again = await site.run("logs", handle.id)

    assert [b"begun\n", b"oh\n"] == sorted(shown.splitlines(keepends=True)[1:])
    assert (0, b"") == (code, errors)
    lines = (shown + rest).decode().splitlines()
    assert ["done", "[exit 3]", "$ true", "[exit 0]"] == lines[-4:]
    assert lines[0].startswith("$ echo begun; echo oh >&2; while")
    assert lines == again.stdout.splitlines()
    assert length == len((await handle.fetch_history()).events)


async def test_json_is_an_object_a_line(site: Site) -> None:
    async with live_workflow(site, "printf '\\377'; exit 1") as handle:
        await handle.result()
        result = await site.run("logs", handle.id, "--json")

    started, output, ended = map(json.loads, result.stdout.splitlines())
    assert ("started", "printf '\\377'; exit 1", "local") == (
        started["kind"],
        started["command"],
        started["provider"],
    )
    assert {"base64": "/w=="} == output["data"]
    assert ("stdout", 0, 1) == (output["stream"], output["offset"], output["next"])
    assert {"operation_id": started["operation_id"], "kind": "ended", "exit_code": 1} == ended


async def test_a_sandbox_s_id_shows_its_workflow(site: Site) -> None:
    handle, root = await site.visited()
    await handle.execute_update(Visited.exec, "echo of its sandbox")

    result = await site.run("logs", str(root))
    await handle.signal(Visited.end)
    await handle.result()

    assert (0, "$ echo of its sandbox\nof its sandbox\n[exit 0]\n") == (
        result.returncode,
        result.stdout,
    )


async def test_a_workflow_without_commands_is_said_to_have_none(site: Site) -> None:
    handle, _ = await site.visited()
    await handle.signal(Visited.end)
    await handle.result()

    result = await site.run("logs", handle.id)

    assert (0, "") == (result.returncode, result.stdout)
    assert f"workflow {handle.id} has run no command in a sandbox\n" == result.stderr


async def test_ctrl_c_ends_it_and_nothing_else(site: Site) -> None:
    async with live_workflow(site, WAITS) as handle:
        process = await start(site, handle.id, "-f")
        while b"begun\n" != await process.line():
            pass
        process.process.send_signal(signal.SIGINT)
        code, _, errors = await process.communicate()
        (site.tmp / "go").touch()
        await handle.result()

    assert (130, b"") == (code, errors)


async def test_what_it_does_not_know_is_an_error(site: Site) -> None:
    result = await site.run("logs", "nobody")

    assert 1 == result.returncode
    assert "namespace default has no workflow 'nobody'" in result.stderr
