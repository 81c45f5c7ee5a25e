"""Checks saving and restoring a workspace."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec

from sandbox_core.testing.contract.files import tar_of
from sandbox_core.testing.contract.model import check, expect, expect_equal
from sandbox_core.testing.contract.subject import Subject

_BUILD = """\
mkdir -p bin 'dir with space' empty deep/er
printf '#!/bin/sh\\necho ran\\n' > bin/tool; chmod 755 bin/tool
printf secret > private; chmod 600 private
printf 'größe' > 'dir with space/größe.txt'
ln -s ../bin/tool deep/relative
ln -s /usr/bin/env deep/absolute
ln -s missing deep/dangling
ln private hard-link
head -c 300000 /dev/zero > deep/er/zeros
"""

_LOOK = """\
bin/tool
cat 'dir with space/größe.txt'; echo
test -d empty && echo empty
readlink deep/relative deep/absolute deep/dangling
cat hard-link; echo
ls -l bin/tool private | cut -c1-10
wc -c < deep/er/zeros | tr -d ' '
"""

_SEEN = """\
ran
größe
empty
../bin/tool
/usr/bin/env
missing
secret
-rwxr-xr-x
-rw-------
300000
"""


async def _archive(subject: Subject, session: SandboxSession) -> bytes:
    stream = await subject.within(session.persist_workspace())
    content = stream.read()
    expect(isinstance(content, bytes), f"a stream of {type(content).__name__}")
    return bytes(content)


@check("session", cost="a restored workspace lacks files or has wrong permissions and links")
async def a_workspace_comes_back_as_it_was(subject: Subject) -> None:
    """`hydrate_workspace` in another sandbox restores what `persist_workspace` returned."""
    first = await subject.make()
    made = await subject.sh(_BUILD, first)
    expect_equal((0, b""), (made.exit_code, made.stderr), "building the workspace")
    archive = await _archive(subject, first)
    second = await subject.make()
    await subject.within(second.hydrate_workspace(io.BytesIO(archive)))
    seen = await subject.sh(_LOOK, second)

    expect_equal(_SEEN, seen.stdout.decode(), "what the other sandbox has")


@check("session", cost="a saved workspace cannot be restored, which is noticed too late")
async def a_special_file_does_not_spoil_the_archive(subject: Subject) -> None:
    """A FIFO in the workspace is restored, or the save is refused and names it."""
    first = await subject.make()
    await subject.sh("mkfifo queue && echo kept > file", first)
    try:
        archive = await _archive(subject, first)
    except SandboxError as error:
        expect("queue" in f"{error} {error.context}", f"an error that does not name it: {error}")
        return
    second = await subject.make()
    await subject.within(second.hydrate_workspace(io.BytesIO(archive)))
    seen = await subject.sh("cat file", second)

    expect_equal(b"kept\n", seen.stdout, "what the other sandbox has")


@check("session", cost="a foreign archive writes outside the workspace")
async def an_archive_of_another_does_not_lead_out(subject: Subject) -> None:
    """`hydrate_workspace` refuses archives with members outside the workspace."""
    session = await subject.make()
    for name in ("../escaped-by-hydrate", "/tmp/escaped-by-hydrate"):  # noqa: S108 - of the sandbox
        archive = io.BytesIO(tar_of((name, b"escaped")))
        try:
            await subject.within(session.hydrate_workspace(archive))
        except SandboxError:
            pass
        else:
            seen = await subject.sh(
                "test -e /tmp/escaped-by-hydrate || test -e ../escaped-by-hydrate", session
            )
            expect(seen.exit_code != 0, f"an archive with {name} was written outside")


@check("session", cost="agents cannot be forked, moved or paused")
async def a_snapshot_is_restored_in_a_new_sandbox(subject: Subject) -> None:
    """`stop` saves the workspace to the session's snapshot; a new session can start from it."""
    with tempfile.TemporaryDirectory() as folder:
        first = await subject.make(snapshot=LocalSnapshotSpec(base_path=Path(folder)))
        await subject.sh("echo saved > file; mkdir -p a/b; echo deep > a/b/c", first)
        await subject.within(first.stop())
        snapshot = first.state.snapshot
        await subject.delete(first)
        second = await subject.make(snapshot=snapshot)
        seen = await subject.sh("cat file a/b/c", second)

        expect_equal(b"saved\ndeep\n", seen.stdout, "what the new sandbox has")


@check("session", cost="files with unusual names are lost when a workspace is restored")
async def hydrating_keeps_names_of_any_kind(subject: Subject) -> None:
    """Names with newlines, leading dashes, backslashes and non-UTF-8 bytes are restored."""
    first = await subject.make()
    build = (
        "printf 1 > 'new\nline'; printf 2 > ./-dash; printf 3 > 'back\\slash'; "
        "printf 4 > \"$(printf 'l\\351gal')\""
    )
    await subject.sh(build, first)
    archive = await _archive(subject, first)
    second = await subject.make()
    await subject.within(second.hydrate_workspace(io.BytesIO(archive)))
    seen = await subject.sh(
        "cat 'new\nline' ./-dash 'back\\slash' \"$(printf 'l\\351gal')\"", second
    )

    expect_equal(b"1234", seen.stdout, "the content of the four files")


@check("session", cost="large workspaces cannot be saved", slow=True)
async def a_workspace_may_be_large(subject: Subject) -> None:
    """A workspace of 50 MB is saved and restored."""
    first = await subject.make()
    await subject.sh("head -c 50000000 /dev/urandom > large; cksum < large > sum", first)
    archive = await _archive(subject, first)
    second = await subject.make()
    await subject.within(second.hydrate_workspace(io.BytesIO(archive)))
    seen = await subject.sh('[ "$(cksum < large)" = "$(cat sum)" ] && echo same', second)

    expect_equal(b"same\n", seen.stdout, "whether the file is the same")


@check("session", cost="credentials and caches enter snapshots")
async def skipped_paths_are_not_saved(subject: Subject) -> None:
    """Paths passed to `register_persist_workspace_skip_path` are not in the archive."""
    session = await subject.make()
    await subject.sh("mkdir cache && echo no > cache/file && echo yes > kept", session)
    session.register_persist_workspace_skip_path("cache")
    archive = await _archive(subject, session)
    other = await subject.make()
    await subject.within(other.hydrate_workspace(io.BytesIO(archive)))
    seen = await subject.sh("cat kept; test -e cache/file && echo and what was skipped", other)

    expect_equal(b"yes\n", seen.stdout, "what the archive has")
