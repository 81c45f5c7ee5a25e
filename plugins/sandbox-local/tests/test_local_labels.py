"""Labels of directories on the worker's host."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from agents.sandbox import Manifest, SandboxPathGrant
from agents.sandbox.entries import File
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSessionState
from agents.sandbox.session.sandbox_session import SandboxSession
from contract.labelled import (
    LABELS,
    WithSession,
    find_ids,
)

from sandbox_local import LocalProvider, records, sandbox_client_provider
from sandbox_local.client import LabellingLocalSandboxClient

# Creates a directory with the labels in $1 again and again, killed at one step more each time,
# until nothing is left to be killed at; prints at how many it was.
CREATE_KILLED_EVERYWHERE = """\
import asyncio, json, os, signal, sys
from sandbox_local import sandbox_client_provider

provider = sandbox_client_provider()
client = provider.labelled(provider.create_client(), json.loads(sys.argv[1]))

def create(killed_at):
    steps = 0

    def step(event, arguments):
        nonlocal steps
        if event.partition(".")[0] in ("open", "os", "fcntl"):
            steps += 1
            if steps == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    asyncio.run(client.create())
    os._exit(0)

killed = status = 0
while not killed or os.WIFSIGNALED(status):
    killed += 1
    if not (child := os.fork()):
        create(killed)
    _, status = os.waitpid(child, 0)
print(killed - 1, status)
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory of this process, and of those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def provider() -> LocalProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(provider: LocalProvider) -> LabellingLocalSandboxClient:
    return provider.create_client()


@pytest.fixture
def left(directory: Path) -> Callable[[], list[object]]:
    """What the host has: directories of sandboxes, and their records."""
    return lambda: [*_sandboxes(directory), *_records(directory)]


def _sandboxes(directory: Path) -> set[str]:
    return {str(path) for path in directory.glob("sandbox-local-*")}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _records(directory: Path) -> list[Path]:
    return sorted((directory / f"sandbox-core-{os.getuid()}" / "labels").glob("*.json"))


class TestFind(WithSession):
    """The directories of this host and user."""

    async def test_a_directory_is_found_that_no_session_uses(
        self, provider: LocalProvider, client: LabellingLocalSandboxClient, session: SandboxSession
    ) -> None:
        """Its session may have been shut down."""
        async with session:
            await session.exec("touch file")

        assert [provider.identity(session.state)] == await find_ids(provider, client, LABELS)

    async def test_a_directory_is_found_wherever_its_create_was_killed(
        self, provider: LocalProvider, client: LabellingLocalSandboxClient, directory: Path
    ) -> None:
        """None is ever without its labels, and none is in the way of the next one."""
        creating = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CREATE_KILLED_EVERYWHERE, json.dumps(LABELS)),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await creating.communicate()
        killed, status = map(int, said.split())
        found = await find_ids(provider, client, LABELS)

        assert (0, True) == (status, killed > 5)
        assert _sandboxes(directory) == set(found)
        assert 0 < len(found) <= killed
        for sandbox_id in found:
            await provider.destroy(client, sandbox_id)
        assert set() == _sandboxes(directory)

    async def test_a_record_without_directory_is_kept_until_it_is_old(
        self,
        provider: LocalProvider,
        client: LabellingLocalSandboxClient,
        session: SandboxSession,
        directory: Path,
    ) -> None:
        """It may be that of a directory which is about to be made."""
        shutil.rmtree(provider.identity(session.state))
        young = (await find_ids(provider, client, LABELS), len(_records(directory)))
        (record,) = _records(directory)
        os.utime(record, (0, record.stat().st_mtime - 61))
        old = (await find_ids(provider, client, LABELS), len(_records(directory)))

        assert ([], 1) == young
        assert ([], 0) == old

    async def test_a_record_that_a_power_failure_has_emptied_hides_no_other(
        self,
        provider: LocalProvider,
        client: LabellingLocalSandboxClient,
        session: SandboxSession,
        directory: Path,
    ) -> None:
        """Nothing is known of its directory."""
        (record,) = _records(directory)
        record.write_bytes(b"")
        other = await provider.labelled(client, LABELS).create()

        assert [provider.identity(other.state)] == await find_ids(provider, client, LABELS)

    async def test_directory_and_record_are_private(
        self, session: SandboxSession, directory: Path
    ) -> None:
        """As the SDK's directories are."""
        (made,) = _sandboxes(directory)
        (record,) = _records(directory)

        assert [0o700, 0o700] == [_mode(Path(made)), _mode(record.parent)]


class TestRelabel(WithSession):
    """The record changes."""

    async def test_labels_a_directory_that_had_no_labels(
        self, provider: LocalProvider, client: LabellingLocalSandboxClient
    ) -> None:
        """An earlier version has made it."""
        session = await client.create()
        await provider.relabel(client, provider.identity(session.state), LABELS)

        assert [provider.identity(session.state)] == await find_ids(provider, client, LABELS)

    async def test_leaves_no_record_of_a_directory_that_is_gone(
        self,
        provider: LocalProvider,
        client: LabellingLocalSandboxClient,
        session: SandboxSession,
        directory: Path,
    ) -> None:
        """Nothing is there that could have labels."""
        sandbox_id = provider.identity(session.state)
        await provider.destroy(client, sandbox_id)
        await provider.relabel(client, sandbox_id, {"owner.workflow": "second"})

        assert [] == _records(directory)

    async def test_all_of_many_at_once_hold(
        self, provider: LocalProvider, client: LabellingLocalSandboxClient, session: SandboxSession
    ) -> None:
        """Each reads what the others have written."""
        sandbox_id = provider.identity(session.state)
        new = {f"new-{number}": str(number) for number in range(20)}
        changes = [provider.relabel(client, sandbox_id, {name: new[name]}) for name in new]
        await asyncio.gather(*changes)

        assert [sandbox_id] == await find_ids(provider, client, {**LABELS, **new})


class TestDestroy(WithSession):
    """The record goes with the directory."""

    async def test_a_create_that_fails_leaves_nothing(
        self,
        provider: LocalProvider,
        client: LabellingLocalSandboxClient,
        left: Callable[[], list[object]],
    ) -> None:
        """The SDK refuses the manifest when the directory is there."""
        grant = SandboxPathGrant(path="/data", host_path="/etc")
        with pytest.raises(ValueError, match="host_path"):
            await provider.labelled(client, LABELS).create(
                manifest=Manifest(extra_path_grants=(grant,))
            )

        assert [] == left()


class TestSession(WithSession):
    """Labels, and the session that a directory was made for."""

    async def test_state_is_that_of_any_other(
        self, client: LabellingLocalSandboxClient, session: SandboxSession
    ) -> None:
        """The directory is the client's own."""
        other = (await client.create()).state
        assert isinstance(session.state, UnixLocalSandboxSessionState)
        assert isinstance(other, UnixLocalSandboxSessionState)
        dumped, as_dumped = other.model_dump(), session.state.model_dump()
        differ = {name for name, value in dumped.items() if as_dumped[name] != value}

        assert {"session_id", "snapshot", "manifest"} == differ
        assert other.workspace_root_owned

    async def test_a_directory_is_made_again_at_the_start_not_before(
        self, provider: LocalProvider, client: LabellingLocalSandboxClient, directory: Path
    ) -> None:
        """With its record; the manifest is applied to it."""
        manifest = Manifest(entries={"a.txt": File(content=b"one")})
        session = await provider.labelled(client, LABELS).create(manifest=manifest)
        await client.delete(session)
        resumed = await provider.labelled(client, LABELS).resume(session.state)
        before = _records(directory)
        await resumed.start()

        assert ([], 1) == (before, len(_records(directory)))
        assert b"one" == (await resumed.read(Path("a.txt"))).read()
        await client.delete(resumed)
        assert [] == _records(directory)

    async def test_a_resume_leaves_the_labels_of_a_directory_that_is_there(
        self, provider: LocalProvider, client: LabellingLocalSandboxClient, session: SandboxSession
    ) -> None:
        """It makes none."""
        later = {**LABELS, "made-for": "request-2"}
        resumed = await provider.labelled(client, later).resume(session.state)
        await resumed.start()

        assert [provider.identity(session.state)] == await find_ids(provider, client, LABELS)
        assert [] == await find_ids(provider, client, later)

    async def test_a_directory_of_the_users_own_is_never_found(
        self, provider: LocalProvider, client: LabellingLocalSandboxClient, directory: Path
    ) -> None:
        """It would be found for ever, because nobody may delete it."""
        own = directory / "own"
        session = await provider.labelled(client, LABELS).create(manifest=Manifest(root=str(own)))
        await session.start()
        await provider.relabel(client, str(own), {"owner.workflow": "second"})

        assert own.is_dir()
        assert [] == await find_ids(provider, client, {})
        assert [] == _records(directory)


class TestRecord:
    """The file that a label is in."""

    def test_is_not_written_through_a_link(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever has made one: neither to its folder, nor of its own."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        target = tmp_path / "target"
        target.write_text("untouched")
        made = records.make({"a": "1"})
        (record,) = tmp_path.glob("sandbox-core-*/labels/sandbox-local-*.json")
        (record.parent / "new").symlink_to(target)
        with pytest.raises(OSError, match="symbolic links"):
            records.change(made, {"a": "2"})

        assert "untouched" == target.read_text()
