"""`sandbox-core exec`, run as an operator runs it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from cli.command import PipedSandbox
from cli.site import Site
from faults.harness import workers
from support import running_worker, unique, until
from temporalio.client import WorkflowHandle
from workflows.visited import Visited


class Place:
    """A started sandbox of a running workflow, and the command in it."""

    def __init__(self, site: Site, handle: WorkflowHandle[Visited, None], root: Path) -> None:
        self.site = site
        self.handle = handle
        self.root = root

    async def exec(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return await self.site.run("exec", str(self.root), *arguments)

    async def start(self, *arguments: str) -> PipedSandbox:
        return await PipedSandbox.start("exec", str(self.root), *arguments, **self.site.variables)

    async def length(self) -> int:
        return len((await self.handle.fetch_history()).events)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir())


@pytest.fixture
async def place(site: Site) -> AsyncIterator[Place]:
    handle, root = await site.visited()
    place = Place(site, handle, root)
    before = await place.length()
    yield place
    assert before == await place.length(), "the workflow's history has grown"
    await handle.signal(Visited.end)
    await handle.result()


async def test_passes_on_both_streams_and_the_exit_code(place: Place) -> None:
    (place.root / "hello.txt").write_text("hello")

    result = await place.exec("--", "sh", "-c", "cat hello.txt; echo oh >&2; exit 3")

    assert (3, "hello", "oh\n") == (result.returncode, result.stdout, result.stderr)


async def test_the_words_reach_the_program_as_they_are(place: Place) -> None:
    result = await place.exec("--", "printf", "%s|", "a b", "$HOME", "--json")

    assert (0, "a b|$HOME|--json|") == (result.returncode, result.stdout)


async def test_json_has_all_of_it(place: Place) -> None:
    result = await place.exec("--json", "--", "sh", "-c", "echo out; echo err >&2; exit 4")

    assert 4 == result.returncode
    assert {"stdout": "out\n", "stderr": "err\n", "exit_code": 4, "at_most_once": None} == (
        json.loads(result.stdout)
    )


async def test_standard_input_is_passed_on_and_leaves_no_file(place: Place) -> None:
    """Bytes that are no text come and go as they are."""
    given = bytes(range(256)) * 1000
    process = await place.start("-i", "--", "sh", "-c", "ls -A >&2; cat; exit 5")

    assert (5, given, b"") == await process.communicate(given)
    assert [] == place.files()


async def test_without_stdin_it_is_not_read(place: Place) -> None:
    """A shell's loop over lines keeps them."""
    process = await place.start("--", "cat")

    assert b"" == await asyncio.to_thread(process.stdout.read)
    assert 0 == await process.wait()


async def test_a_timeout_ends_the_command(place: Place) -> None:
    result = await place.exec("--timeout", "1s", "--", "sh", "-c", "echo $$ > pid; sleep 1000")

    assert (124, "") == (result.returncode, result.stdout)
    assert "error: it was ended after 0:00:01, its --timeout\n" == result.stderr
    assert not is_running(int((place.root / "pid").read_text()))


async def test_ctrl_c_ends_the_command_and_leaves_nothing(place: Place) -> None:
    process = await place.start("-i", "--", "sh", "-c", "echo $$ > pid; sleep 1000")
    process.stdin.close()

    await until(partial(has_line, place.root / "pid"), within_s=60)
    process.process.send_signal(signal.SIGINT)

    assert 128 + signal.SIGINT == await process.wait()
    assert not is_running(int((place.root / "pid").read_text()))
    assert ["pid"] == place.files()


async def test_a_program_that_does_not_exist_is_one_error(place: Place) -> None:
    result = await place.exec("--", "moon")

    assert (125, "") == (result.returncode, result.stdout)
    assert "'moon' could not be run" in result.stderr
    assert 1 == len(result.stderr.splitlines())


async def test_a_reader_that_has_had_enough_is_no_traceback(place: Place) -> None:
    process = await place.start("--", "sh", "-c", "head -c 500000 /dev/zero | tr '\\0' x")
    process.stdout.close()

    assert b"" == await asyncio.to_thread(process.stderr.read)
    assert 1 == await process.wait()


async def test_a_killed_worker_does_not_repeat_the_command(
    site: Site, temporal_address: str
) -> None:
    """The command goes on, and is attached to as soon as the workflow has its sandbox again."""
    with workers(temporal_address, unique("killed"), Visited) as there:
        first = await there.start(variables={"TMPDIR": str(site.tmp)})
        moved = dataclasses.replace(site, queue=there.queue)
        place = Place(moved, *await moved.visited())
        waits = "echo $$ >> runs; until [ -e go ]; do sleep 0.1; done; echo done; exit 6"
        process = await place.start("--", "sh", "-c", waits)
        await until(partial(has_line, place.root / "runs"), within_s=60)
        first.kill()
        await there.start(variables={"TMPDIR": str(site.tmp)})
        await place.handle.execute_update(Visited.exec, "true")
        (place.root / "go").touch()

        assert (6, b"done\n", b"") == await process.communicate()
        assert 1 == len((place.root / "runs").read_text().splitlines())
        await place.handle.signal(Visited.end)
        await place.handle.result()


async def test_no_worker_is_one_error(site: Site) -> None:
    """It says when there will be one."""
    async with running_worker(site.client, Visited) as queue:
        _, root = await dataclasses.replace(site, queue=queue).visited()
    async with running_worker(site.client, task_queue=queue):
        result = await site.run("exec", str(root), "--", "true")

    assert (125, "") == (result.returncode, result.stdout)
    assert f"no worker holds sandbox {str(root)!r} at present." in result.stderr
    assert f"The worker of {queue}@" in result.stderr
    assert 1 == len(result.stderr.splitlines())


async def has_line(path: Path) -> bool:
    def reads() -> bool:
        return path.exists() and path.read_text().endswith("\n")

    return await asyncio.to_thread(reads)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
