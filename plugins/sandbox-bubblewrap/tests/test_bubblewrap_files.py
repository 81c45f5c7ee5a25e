"""Files and archives of workspaces, through a session."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.errors import (
    ExecNonZeroError,
    InvalidManifestPathError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec
from bubblewrap_fixtures import SOON_S, out_of

from sandbox_bubblewrap.client import BubblewrapSandboxClient

pytest_plugins = ["bubblewrap_fixtures"]

pytestmark = pytest.mark.xdist_group("bubblewrap")


class TestFiles:
    @pytest.mark.parametrize(
        "name", ["a b", "-n", "größe 🦀", "line\nline", "back\\slash", "deep/down/here", "x" * 255]
    )
    async def test_any_name_is_written_read_listed_and_removed(
        self, session: SandboxSession, name: str
    ) -> None:
        """With what is missing above it."""
        content = os.urandom(100_000)
        await session.write(Path(name), io.BytesIO(content))
        read = (await session.read(Path(name))).read()
        listed = [entry.path for entry in await session.ls(Path("/workspace", name).parent)]
        await session.rm(Path(name))

        assert content == read
        assert f"/workspace/{name}" in listed
        with pytest.raises(WorkspaceReadNotFoundError):
            await session.read(Path(name))

    async def test_what_it_writes_is_the_sandboxs_own(self, session: SandboxSession) -> None:
        """Commands may change it, and it what they made."""
        await session.write(Path("made/by/file"), io.BytesIO(b"one"))
        await session.mkdir("folder/new", parents=True)
        await session.exec("echo two >> made/by/file; rmdir folder/new; echo x > other")
        await session.write(Path("other"), io.BytesIO(b"three"))

        assert "onetwo\nthree" == await out_of(session, "cat made/by/file other")

    async def test_entries_say_what_they_are(self, session: SandboxSession) -> None:
        await session.exec("ln -s hello.txt link; mkfifo pipe; chmod 640 hello.txt")
        entries = {Path(entry.path).name: entry for entry in await session.ls(".")}

        assert {"hello.txt": "file", "folder": "directory", "link": "symlink", "pipe": "other"} == {
            name: entry.kind.value for name, entry in entries.items()
        }
        assert ("sandbox", "sandbox", 6) == (
            entries["hello.txt"].owner,
            entries["hello.txt"].group,
            entries["hello.txt"].size,
        )
        assert "-rw-r-----" == str(entries["hello.txt"].permissions)

    @pytest.mark.parametrize("path", ["../x", "/etc/passwd", "out", "outside/x", "/proc/1/root/x"])
    async def test_nothing_outside_of_the_workspace_is_touched(
        self, session: SandboxSession, path: str
    ) -> None:
        """By whatever way a path leads there."""
        await session.exec("ln -s /usr/bin/env out; ln -s /dev/shm outside; touch /dev/shm/x")
        operations: list[Callable[[], object]] = [
            lambda: session.read(Path(path)),
            lambda: session.write(Path(path), io.BytesIO(b"x")),
            lambda: session.ls(path),
            lambda: session.mkdir(f"{path}/y", parents=True),
            lambda: session.extract(f"{path}/a.tar", io.BytesIO(_tar("a"))),
        ]
        if path != "out":  # A link itself is in the workspace, and may be removed.
            operations.append(lambda: session.rm(path, recursive=True))

        for operation in operations:
            with pytest.raises(InvalidManifestPathError):
                await operation()  # type: ignore[misc]  # each returns another type
        assert "x\n" == await out_of(session, "ls /dev/shm")

    async def test_a_granted_path_is_open(self, session: SandboxSession) -> None:
        """Of the sandbox, not of the host."""
        await session.write(Path("/tmp/granted"), io.BytesIO(b"x"))

        assert b"x" == (await session.read(Path("/tmp/granted"))).read()
        assert not os.access("/tmp/granted", os.F_OK)

    @pytest.mark.parametrize("kind", ["pipe", "folder", "/dev/zero"])
    async def test_what_is_no_file_is_an_error_and_not_awaited(
        self, session: SandboxSession, kind: str
    ) -> None:
        await session.exec("mkfifo pipe; mkdir -p folder")
        if kind.startswith("/"):
            await session.exec(f"ln -s {kind} link")
            with pytest.raises(InvalidManifestPathError):
                await session.read(Path("link"))
            return

        with pytest.raises(WorkspaceArchiveReadError):
            await asyncio.wait_for(session.read(Path(kind)), SOON_S)
        with pytest.raises(WorkspaceArchiveWriteError):
            await asyncio.wait_for(session.write(Path(kind), io.BytesIO(b"x")), SOON_S)

    async def test_a_file_is_read_as_far_as_it_is_wanted(self, session: SandboxSession) -> None:
        """One of four gigabytes, of which nothing is on the disk, is in nobody's memory."""
        await session.exec("truncate -s 4G sparse")
        file = await asyncio.wait_for(session.read(Path("sparse")), SOON_S)

        assert b"\0" * 10 == file.read(10)
        file.close()

    async def test_errors_are_those_of_the_local_backend(self, session: SandboxSession) -> None:
        await session.exec("mkdir closed; chmod 0 closed")

        with pytest.raises(WorkspaceReadNotFoundError):
            await session.read(Path("missing"))
        with pytest.raises(ExecNonZeroError):
            await session.ls("missing")
        with pytest.raises(ExecNonZeroError):
            await session.rm("missing")
        await session.rm("missing", recursive=True)
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.rm("folder/../hello.txt/x")
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.write(Path("closed/x"), io.BytesIO(b"x"))
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.mkdir("a/b")

    async def test_the_sandboxs_python_modules_are_not_process_1s(
        self, session: SandboxSession
    ) -> None:
        """What does the file operations imports nothing from the workspace."""
        for name in ("json", "tarfile", "grp", "files", "sitecustomize", "usercustomize"):
            await session.exec(f'echo \'open("/workspace/hijacked", "w")\' > {name}.py')
        await session.ls(".")
        (await session.persist_workspace()).close()
        await session.shutdown()
        await session.start()

        with pytest.raises(WorkspaceReadNotFoundError):
            await session.read(Path("hijacked"))


def _tar(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        member.size = 1 if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"x"))
    return buffer.getvalue()


_NO_FILE = "which is not a file of the archive"


class TestWorkspace:
    async def test_it_comes_back_as_it_was(self, session: SandboxSession) -> None:
        """Modes, links of both kinds, wherever they lead, FIFOs, empty folders, names."""
        await session.exec(
            "mkdir -p deep/empty; ln -s /etc/hosts absolute; ln -s deep relative; ln -s no dangling"
            "; ln hello.txt deep/second; mkfifo -m 640 deep/pipe; chmod 400 hello.txt;"
            "chmod 700 deep; printf x > 'größe 🦀';"
            "mkdir ro; touch ro/x; chmod 500 ro; printf y > \"$(printf 'not\\377utf8')\""
        )
        listing = "find . -printf '%p %M %s %n %l\\n' | sort"
        before = await out_of(session, listing)
        saved = await session.persist_workspace()
        await session.exec("chmod 700 ro; rm -rf * ")
        empty = await out_of(session, "ls")
        await session.hydrate_workspace(saved)

        assert "" == empty
        skip_sizes = [line for line in before.splitlines() if " d" not in line]
        after = await out_of(session, listing)
        assert skip_sizes == [line for line in after.splitlines() if " d" not in line]
        assert "drwx------" in after
        assert "dr-x------" in after
        assert "same" == await out_of(session, "[ hello.txt -ef deep/second ] && printf same")

    async def test_what_is_written_to_one_name_of_a_file_is_in_the_other(
        self, session: SandboxSession
    ) -> None:
        """The content is saved once; what is restored is one file, also over another one."""
        await session.exec("head -c 1000000 /dev/urandom > one; mkdir in; ln one in/two; sync")
        saved = (await session.persist_workspace()).read()
        await session.exec("rm -r one in; mkdir one; touch one/x in")
        await session.hydrate_workspace(io.BytesIO(saved))
        await session.exec("printf new > one")

        assert "new" == await out_of(session, "cat in/two")
        assert len(saved) < 1_500_000

    async def test_ephemeral_entries_are_left_out(self, client: BubblewrapSandboxClient) -> None:
        manifest = Manifest(
            entries={"kept": File(content=b"x"), "not": File(content=b"x", ephemeral=True)}
        )
        session = await client.create(manifest=manifest)
        await session.start()
        with tarfile.open(fileobj=await session.persist_workspace()) as saved:
            names = saved.getnames()

        assert [".", "kept"] == sorted(names)

    @pytest.mark.parametrize(
        ("archive", "reason"),
        [
            (_tar("../x"), "parent traversal"),
            (_tar("a/../../x"), "parent traversal"),
            (_tar("/tmp/x"), "absolute path"),
            *(
                (_tar("x", tarfile.LNKTYPE, target), f"hard link to {target!r}, {_NO_FILE}")
                for target in ("hello.txt", "link/y", "/etc/passwd", "../../etc/passwd", "x")
            ),
            (_tar("x", tarfile.CHRTYPE), "special file not allowed"),
            (_tar("link/x"), "a parent is not a directory"),
        ],
    )
    async def test_an_archive_that_leads_outside_is_refused(
        self, session: SandboxSession, archive: bytes, reason: str
    ) -> None:
        """Extracted by `tarfile` as it is, each would have done it."""
        await session.exec("ln -s /tmp link")

        with pytest.raises(WorkspaceArchiveWriteError) as failed:
            await session.hydrate_workspace(io.BytesIO(archive))
        assert reason == failed.value.context["reason"]
        assert "" == await out_of(session, "ls /tmp")

    async def test_a_file_goes_through_no_link_of_its_archive(
        self, session: SandboxSession
    ) -> None:
        """Links are made last."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            link = tarfile.TarInfo("way")
            link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
            tar.addfile(link)
            member = tarfile.TarInfo("way/x")
            tar.addfile(member)
        buffer.seek(0)
        await session.hydrate_workspace(buffer)

        assert "" == await out_of(session, "ls /tmp")

    async def test_a_broken_archive_is_an_error(self, session: SandboxSession) -> None:
        broken = io.BytesIO(b"no tar" * 10000)
        with pytest.raises(WorkspaceArchiveWriteError):
            await asyncio.wait_for(session.hydrate_workspace(broken), SOON_S)

    async def test_a_snapshot_is_restored_in_another_sandbox(
        self, client: BubblewrapSandboxClient, tmp_path: Path
    ) -> None:
        first = await client.create(snapshot=LocalSnapshotSpec(base_path=tmp_path))
        await first.start()
        await first.write(Path("file"), io.BytesIO(b"saved"))
        await first.stop()
        await client.delete(first)
        second = await client.resume(first.state)
        await second.start()

        assert b"saved" == (await second.read(Path("file"))).read()
