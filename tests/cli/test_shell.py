"""`sandbox-core shell`, at a real terminal."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cli.screen import shell
from cli.site import Site, words
from documented import documented
from faults.harness import running
from support import until
from temporalio.client import WorkflowHandle
from terminal import steps
from workflows.visited import Visited


@pytest.fixture
async def place(site: Site) -> AsyncIterator[tuple[WorkflowHandle[Visited, None], Path]]:
    handle, root = await site.visited()
    before = len((await handle.fetch_history()).events)
    yield handle, root
    assert before == len((await handle.fetch_history()).events), "the history has grown"
    await handle.signal(Visited.end)
    await handle.result()


Visit = tuple[WorkflowHandle[Visited, None], Path]


async def test_a_shell_at_a_terminal(site: Site, place: Visit) -> None:
    async with shell(site.variables, str(place[1])) as screen:
        (step,) = steps(documented("docs/commands.md", "$ sandbox-core shell"))
        assert re.fullmatch(r"root@\S+:/workspace#\n", step.output)
        await screen.shows("#" if os.geteuid() == 0 else "$")
        screen.type("PS1=; echo $TERM $((6 * 7)); test -t 0 && pwd\n")
        await screen.shows("xterm-256color 42")
        await screen.shows(place[1].name)
        assert screen.is_raw
        screen.type("stty size\n")
        await screen.shows("30 100")
        screen.resize(40, 120)

        async def resized() -> bool:
            screen.type("stty size; echo asked\n")
            return b"40 120" in await screen.shows("asked\r")

        await until(resized)
        screen.type("sleep 60\n")
        await screen.shows("sleep 60")
        screen.type("\x03")
        screen.type("echo gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n; exit 7\n")

        assert 7 == await screen.ended()


async def gone(root: Path, name: str) -> None:
    """Return when the process whose id is in a file has ended."""
    pid = int((root / name).read_text())

    async def ended() -> bool:
        return not running(pid)

    await until(ended)


HOLDS = ("--", "sh", "-c", "echo $$ >pid; echo ready; exec sleep 60")


async def test_a_tilde_and_a_dot_end_it(site: Site, place: Visit) -> None:
    async with shell(site.variables, str(place[1]), *HOLDS) as screen:
        await screen.shows("ready")
        screen.type("~.")

        assert 129 == await screen.ended()
    await gone(place[1], "pid")


async def test_closing_the_terminal_ends_what_it_runs(site: Site, place: Visit) -> None:
    async with shell(site.variables, str(place[1]), *HOLDS) as screen:
        await screen.shows("ready")
        os.kill(screen.process.pid, signal.SIGHUP)

        assert 129 == await screen.ended()
    await gone(place[1], "pid")


async def test_without_a_terminal_exec_is_named(site: Site, place: Visit) -> None:
    result = await site.run("shell", str(place[1]))

    assert 125 == result.returncode
    assert "use sandbox-core exec ID -- COMMAND" in words(result.stderr)
