"""`sandbox-core top`, driven by keys in a terminal without a screen, and in a real one."""

from __future__ import annotations

import asyncio
import os
import pty
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
from cli.command import SANDBOX
from cli.site import Site
from support import until
from textual.widgets import DataTable, Static
from workflows.visited import Visited

from sandbox_core.cli.top import Top
from sandbox_core.testing import DevServer

UI = "http://ui.test"


@pytest.fixture
def top(site: Site, monkeypatch: pytest.MonkeyPatch) -> Top:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")
    monkeypatch.delenv("SANDBOX_CORE_DISABLED_PROVIDERS", raising=False)
    return Top(site.client, providers=["local"], every=timedelta(seconds=1), ui=UI)


def rows(top: Top) -> list[list[str]]:
    table = top.query_one(DataTable)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


def text(top: Top, name: str) -> str:
    """What one part of the screen says, a line for each of its lines."""
    shown = top.query_one(f"#{name}", Static)
    return "\n".join(shown.render_line(line).text.rstrip() for line in range(shown.size.height))


async def seen(condition: Callable[[], object]) -> None:
    async def holds() -> bool:
        return bool(condition())

    await until(holds)


async def test_shows_what_lives_and_what_runs_in_the_selected_one(
    site: Site, top: Top, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def note(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", note)  # No browser would show what it opened.
    handle, root = await site.visited()
    await handle.execute_update(Visited.start, args=["sleep 60", False])

    async with top.run_test(size=(200, 40)) as pilot:
        await seen(lambda: rows(top))
        ((provider, sandbox, workflow, owner, _),) = rows(top)
        assert ("local", str(root), handle.id, "open") == (provider, sandbox, workflow, owner)
        await seen(lambda: "sleep 60" in text(top, "details"))
        assert "holds it" in text(top, "details")
        await pilot.press("o")
        await seen(lambda: opened)

        await handle.terminate()
        await seen(lambda: rows(top)[0][3] == "terminated")
        assert 0 == (await site.run("rm", str(root), "--force")).returncode
        await seen(lambda: not rows(top))
        await seen(lambda: not text(top, "details").strip())

    assert opened == [
        f"{UI}/namespaces/default/workflows/{handle.id}/{handle.first_execution_run_id}/timeline"
    ]


async def test_says_which_provider_could_not_be_asked(site: Site, top: Top) -> None:
    top._providers = ["local", "unable"]
    async with top.run_test(size=(200, 40)):
        await seen(lambda: "unable" in text(top, "status"))


def in_terminal(
    site: Site, *arguments: str, doing: Mapping[bytes, Callable[[int], object]]
) -> tuple[int, bytes]:
    """Run `top` in a terminal, and return its exit code and its output.

    Args:
        site: Where it runs.
        arguments: Its arguments.
        doing: What to do with the terminal, once it shows a text.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(site.variables, TERM="xterm-256color", COLUMNS="200", LINES="40")
        os.execv(SANDBOX, [str(SANDBOX), "top", *arguments])
    output, left = b"", dict(doing)
    with suppress(OSError):  # The other end was closed.
        while piece := os.read(terminal, 65536):
            output += piece
            for text in [text for text in left if text in output]:
                left.pop(text)(terminal)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), output


def press_ctrl_c(terminal: int) -> None:
    os.write(terminal, b"\x03")


async def test_keeps_a_real_terminal_while_the_server_is_away(site: Site) -> None:
    """Nothing else is written to it, and Ctrl-C restores it."""
    with DevServer() as server:
        doing = {
            b"sandboxes at": lambda _: server.kill(),
            b"running and reachable": press_ctrl_c,
        }
        code, output = await asyncio.to_thread(
            partial(in_terminal, site, "--address", server.address, doing=doing)
        )

    assert 0 == code
    assert b"WARN" not in output
    assert output.rfind(b"\x1b[?1049l") > output.rfind(b"\x1b[?1049h")  # The screen as it was.


async def test_needs_a_terminal(site: Site) -> None:
    result = await site.run("top")

    assert (1, "error: top needs a terminal. Without one, use `sandbox-core ls --json`.\n") == (
        result.returncode,
        result.stderr,
    )
