"""Workers start quickly, as processes that share nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.harness import ended, running

from sandbox_core.testing.fork_server import ForkedProcess, ForkServer


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


def tell(server: ForkServer, folder: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    """Return what a process knows of itself."""
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        process = server.start(
            "forked.targets:tell", *arguments, env=variables, stdout=out, stderr=log
        )
    assert 0 == process.wait()
    assert "logged\n" == (folder / "log").read_text()
    known: dict[str, Any] = json.loads((folder / "out").read_text())
    return known


def modules(folder: Path, *imports: str) -> set[str]:
    """Return the modules that are imported in a process of a new server."""
    server = ForkServer()
    with (folder / "out").open("wb") as out:
        process = server.start("forked.targets:tell", stdout=out, imports=imports)
    assert 0 == process.wait()
    server.close()
    return set(json.loads((folder / "out").read_text())["modules"])


def waiting(server: ForkServer) -> tuple[ForkedProcess, int]:
    """Return a process that waits, and the id of its child."""
    read, write = os.pipe()
    with os.fdopen(read) as output:
        with os.fdopen(write, "wb") as theirs:
            process = server.start("forked.targets:wait", stdout=theirs)
        return process, int(output.readline())


class TestForkedProcess:
    def test_has_arguments_environment_and_folder_of_its_own(
        self, server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        known = tell(server, tmp_path, "one", "zwei", TMPDIR=str(tmp_path), NAME="größe")

        assert ["one", "zwei"] == known["arguments"]
        assert {"TMPDIR": str(tmp_path), "NAME": "größe"} == known["environ"]
        assert (str(tmp_path), str(tmp_path)) == (known["temporary"], known["folder"])
        assert (True, 1) == (known["leads"], known["threads"])

    def test_has_no_descriptor_of_its_siblings(self, server: ForkServer, tmp_path: Path) -> None:
        alone = tell(server, tmp_path)
        processes = [waiting(server)[0] for _ in range(3)]
        together = tell(server, tmp_path)
        for process in processes:
            process.kill()

        assert alone["open"] == together["open"]

    @pytest.mark.parametrize("code", [0, 7])
    def test_exit_code_is_reported(self, server: ForkServer, code: int) -> None:
        process = server.start("forked.targets:fail", str(code))

        assert [code, code, code] == [process.wait(), process.wait(), process.poll()]

    async def test_a_kill_includes_its_process_group(self, server: ForkServer) -> None:
        process, child = waiting(server)
        before = (process.poll(), running(process.pid), running(child))
        process.kill()
        process.kill()
        await ended(child)

        assert (None, True, True) == before
        assert -signal.SIGKILL == process.wait()

    def test_gets_signals(self, server: ForkServer) -> None:
        process, child = waiting(server)
        process.send_signal(signal.SIGTERM)
        os.kill(child, signal.SIGKILL)

        assert -signal.SIGTERM == process.wait()


class TestForkServer:
    @pytest.mark.parametrize(
        ("target", "error"),
        [
            ("forked.nowhere:run", "ModuleNotFoundError: No module named 'forked.nowhere'"),
            ("forked.targets:nothing", "AttributeError: .*'nothing'"),
        ],
    )
    def test_reports_a_target_that_cannot_be_called(
        self, server: ForkServer, target: str, error: str
    ) -> None:
        with pytest.raises(RuntimeError, match=f"cannot start {target}: {error}"):
            server.start(target)

        assert 0 == server.start("forked.targets:fail", "0").wait()

    def test_refuses_to_fork_with_threads(self) -> None:
        """A lock that another thread holds is never released in the forked process."""
        server = ForkServer()
        with pytest.raises(RuntimeError, match="starts threads"):
            server.start("forked.threaded:run")
        server.close()

    def test_imports_what_processes_need_unless_it_starts_threads(self, tmp_path: Path) -> None:
        """A process imports the rest itself."""
        some = {"wave", "forked.threaded", "forked.nowhere"}

        assert set() == some & modules(tmp_path)
        assert {"wave"} == some & modules(tmp_path, *sorted(some))

    async def test_kills_its_processes_when_it_is_closed(self) -> None:
        server = ForkServer()
        process, child = waiting(server)
        server.close()
        await ended(child)

        assert -signal.SIGKILL == process.wait()

    def test_that_is_killed_loses_the_exit_codes(self) -> None:
        server = ForkServer()
        process, _ = waiting(server)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="has ended"):
            process.wait()
        with pytest.raises((RuntimeError, OSError)):
            server.start("forked.targets:fail", "0")
        os.killpg(process.pid, signal.SIGKILL)
        server.close()
