"""Labels of sandboxes, in the store of this host and user."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from agents.sandbox.session.sandbox_session import SandboxSession
from contract.labelled import (
    LABELS,
    WithSession,
    find_ids,
)

from sandbox_bubblewrap import BubblewrapProvider
from sandbox_bubblewrap.client import BubblewrapSandboxClient
from sandbox_bubblewrap.store import Store, StoreUnsafe

pytest_plugins = ["bubblewrap_fixtures"]

pytestmark = pytest.mark.xdist_group("bubblewrap")

# Makes the folder of a sandbox again and again, killed at one step more each time, until nothing is
# left to be killed at; prints at how many it was.
MAKE_KILLED_EVERYWHERE = """\
import json, os, signal, sys
from sandbox_bubblewrap.store import default_store

def make(killed_at):
    steps = 0

    def step(event, arguments):
        nonlocal steps
        if event.partition(".")[0] in ("open", "os", "fcntl"):
            steps += 1
            if steps == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    default_store().make(json.loads(sys.argv[1]))
    os._exit(0)

killed = status = 0
while not killed or os.WIFSIGNALED(status):
    killed += 1
    if not (child := os.fork()):
        make(killed)
    _, status = os.waitpid(child, 0)
print(killed - 1, status)
"""


@pytest.fixture
def left(client: BubblewrapSandboxClient) -> Callable[[], list[object]]:
    """What is in the store."""
    return lambda: [path for path in client.store.root.iterdir() if path.name != ".lock"]


class TestFind(WithSession):
    """The sandboxes of a store."""

    async def test_a_sandbox_that_does_not_run_is_found(
        self,
        provider: BubblewrapProvider,
        client: BubblewrapSandboxClient,
        session: SandboxSession,
    ) -> None:
        """As after a reboot."""
        await session.shutdown()

        assert not await session.running()
        assert [provider.identity(session.state)] == await find_ids(provider, client, LABELS)
        assert await provider.exists(client, provider.identity(session.state))

    async def test_a_sandbox_is_found_whose_make_was_killed(
        self, provider: BubblewrapProvider, client: BubblewrapSandboxClient
    ) -> None:
        """At whatever step: what has its name has its labels, and the rest is no sandbox."""
        making = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MAKE_KILLED_EVERYWHERE, json.dumps(LABELS)),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await making.communicate()
        killed, status = map(int, said.split())
        found = await find_ids(provider, client, {})

        assert killed > 10
        assert 0 == status
        assert found == await find_ids(provider, client, LABELS)
        assert set(found) == {path.name for path in client.store.root.glob("bwrap-*")}
        assert 1 <= len(found) < killed

    async def test_what_a_kill_left_is_removed_later(
        self, provider: BubblewrapProvider, client: BubblewrapSandboxClient, home: Path
    ) -> None:
        """Not at once: it may be about to get its name."""
        await client.delete(await client.create())
        half = client.store.root / ".new-0123"
        (half / "workspace").mkdir(parents=True)
        await provider.find(client, {})
        waits = half.exists()
        store = Store(root=client.store.root, left_over_s=0.0)
        store.find({})

        assert waits
        assert not half.exists()


class TestDestroy(WithSession):
    """A sandbox, its record and its processes."""

    async def test_a_tree_of_any_depth_and_mode_is_removed(
        self,
        client: BubblewrapSandboxClient,
        session: SandboxSession,
        left: Callable[[], list[object]],
    ) -> None:
        """Deeper than any path, closed to its owner, with links that lead outside."""
        script = """
            import os
            os.symlink("/etc", "link")
            os.makedirs("closed/inner"); os.chmod("closed/inner", 0); os.chmod("closed", 0)
            for _ in range(3000):
                os.mkdir("d"); os.chdir("d")
        """
        program = "\n".join(line.strip() for line in script.splitlines())
        program = program.replace('os.mkdir("d")', '    os.mkdir("d")')
        made = await session.exec("python3", "-c", program, shell=False)
        await client.delete(session)

        assert (0, b"") == (made.exit_code, made.stderr)
        assert [] == left()

    async def test_nothing_runs_afterwards(
        self,
        provider: BubblewrapProvider,
        client: BubblewrapSandboxClient,
        session: SandboxSession,
        home: Path,
    ) -> None:
        """Whatever ignores signals, has left its session, or goes on starting others."""
        script = "trap '' TERM HUP INT; (while :; do setsid sleep 0.05; done) >/dev/null 2>&1 &"
        await session.exec(script)
        groups = _control_groups(provider.identity(session.state))
        await client.delete(session)

        assert [] == [pid for pid in _processes() if str(home) in pid]
        assert not any(group.exists() for group in groups)


def _processes() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found.append((process / "mountinfo").read_text())
    return found


def _control_groups(sandbox_id: str) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/sandbox-bubblewrap-{sandbox_id}"))


class TestStore:
    """The folder of the store is this user's alone."""

    def test_it_is_made_for_no_other_user(self, home: Path) -> None:
        store = Store(root=home / "deep" / "store")
        sandbox = store.make({})

        assert 0o700 == stat.S_IMODE(store.root.stat().st_mode) & 0o766
        assert 0o700 == stat.S_IMODE(sandbox.path.stat().st_mode) & 0o766
        assert 0o700 == stat.S_IMODE(sandbox.workspace.stat().st_mode)

    @pytest.mark.parametrize("kind", ["a link", "a file", "writable", "another user's"])
    def test_it_is_refused_if_others_could_put_something_there(self, home: Path, kind: str) -> None:
        """The message names the variable that chooses another."""
        root = home / "store"
        if kind == "a link":
            (home / "elsewhere").mkdir()
            root.symlink_to(home / "elsewhere")
        elif kind == "a file":
            root.touch()
        else:
            root.mkdir()
            root.chmod(0o777 if kind == "writable" else 0o700)
        if kind == "another user's":
            if os.geteuid() != 0:
                pytest.skip("only root can give a folder to another user")
            os.chown(root, 12345, 12345)
        store = Store(root=root)

        for use in (lambda: store.make({}), lambda: store.find({}), lambda: store.get(_ID)):
            with pytest.raises(StoreUnsafe, match="SANDBOX_BUBBLEWRAP_HOME"):
                use()

    def test_it_is_refused_below_a_folder_that_roots_sandboxes_cannot_pass(
        self, home: Path
    ) -> None:
        """They run as other users."""
        if os.geteuid() != 0:
            pytest.skip("another user's sandboxes are its own")
        closed = home / "closed"
        closed.mkdir(mode=0o700)

        with pytest.raises(StoreUnsafe, match=f"below {closed}, to which .* have no access"):
            Store(root=closed / "store").make({})

    @pytest.mark.parametrize("sandbox_id", ["", "..", "../x", ".lock", "bwrap-0-x", f"{'x' * 300}"])
    async def test_what_is_no_id_is_no_sandbox(
        self,
        provider: BubblewrapProvider,
        client: BubblewrapSandboxClient,
        home: Path,
        sandbox_id: str,
    ) -> None:
        """It is never taken for a path."""
        await client.delete(await client.create())
        (home / "x").mkdir()
        await provider.destroy(client, sandbox_id)

        assert not await provider.exists(client, sandbox_id)
        assert (home / "x").exists()
        assert client.store.root.exists()

    def test_each_of_roots_sandboxes_has_a_user_of_its_own(self, home: Path) -> None:
        """So that none owns anything of another's, whatever it should get out of."""
        store = Store(root=home / "store")
        users = {store.make({}).user_id for _ in range(8)}
        owners = {path.stat().st_uid for path in store.root.glob("*/workspace")}

        if os.geteuid() == 0:
            assert 8 == len(users)
            assert owners == users
            assert all(user is not None and user >= 1000 for user in users)
        else:
            assert ({None}, {os.geteuid()}) == (users, owners)

    def test_a_record_that_was_lost_is_no_sandbox(self, home: Path) -> None:
        """Nobody may guess whose it is."""
        store = Store(root=home / "store")
        sandbox = store.make({})
        (sandbox.path / "record.json").unlink()

        assert store.get(sandbox.id) is None
        assert [] == store.find({})
        shutil.rmtree(sandbox.path)


_ID = "bwrap-0-0123456789abcdef"


def test_a_full_disk_is_said_with_the_file(home: Path) -> None:
    store = Store(root=home / "store")
    made = store.make({})
    (made.path / "record.new").symlink_to("/dev/full")

    with pytest.raises(OSError, match=r"No space left on device: '.*/record\.new'"):
        store.relabel(made.id, {"kept": "no"})
