"""The workflows of the durable checks that need one worker and return what they observed."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable
from datetime import timedelta
from pathlib import Path
from typing import Any

from agents.sandbox import Manifest
from agents.sandbox.entries import Dir, File
from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import RemoteSnapshotSpec, SnapshotSpec
from temporalio import workflow
from temporalio.workflow import ActivityConfig

from sandbox_core.errors import SandboxCoreError
from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.testing.contract.durable_workflows import GREETING, Order
from sandbox_core.wire.agents_models import load_options
from sandbox_core.workflow import (
    TemporalSandboxClient,
    WorkflowSandboxSession,
    temporal_sandbox_client,
)

_SNAPSHOT = RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)


def _client(order: Order) -> TemporalSandboxClient:
    return temporal_sandbox_client(
        order.provider,
        ActivityConfig(
            start_to_close_timeout=timedelta(seconds=order.start_to_close_s),
            heartbeat_timeout=timedelta(seconds=order.heartbeat_s),
        ),
    )


def _options(order: Order) -> BaseSandboxClientOptions | None:
    return None if order.options is None else load_options(order.options)


async def _output(session: SandboxSession, command: str) -> str:
    ran = await session.exec(command)
    return (ran.stdout + ran.stderr).decode()


MAKE = r"""
mkdir folder 'odd\folder'
echo content > folder/file
chmod 755 folder/file
ln folder/file hard
ln -s folder/file inside
ln -s /etc/passwd outside
mkfifo -m 600 pipe
echo odd > 'odd\folder/odd\file'
echo drive > c:file
ln -s /nowhere 'odd\link'
mkdir -p src/cache; echo saved > src/cache/file; echo more > cache/more
"""
LOOK = r"""
cat inside 'odd\folder/odd\file' c:file src/cache/file
[ folder/file -ef hard ] && echo one file
[ -x hard ] && echo executable
[ -p pipe ] && echo a pipe
readlink inside outside 'odd\link'
cat cache/more 2>/dev/null || echo without what is ephemeral
"""


async def _refused(session: SandboxSession) -> str:
    """Save a workspace; return why that was refused, or an empty text."""
    try:
        await session.stop()
    except SandboxError as error:
        return f"{error} {error.context} {error.__cause__} {error.cause}"
    return ""


@workflow.defn
class SaveWhole:
    """Saves a workspace with files of every kind, and reads it before and after it was lost.

    Then it tries to save one that could not be restored, and returns the error.
    """

    @workflow.run
    async def run(self, order: Order) -> list[str]:
        client = _client(order)
        cache = Dir(children={"file": File(content=b"not saved\n")}, ephemeral=True)
        session = await client.create(
            snapshot=_SNAPSHOT, manifest=Manifest(entries={"cache": cache}), options=_options(order)
        )
        await session.start()
        seen = [await _output(session, MAKE)]
        seen.append(await _refused(session))
        if seen[-1]:  # A backend's archives may not support FIFOs.
            await session.exec("rm pipe")
            await session.stop()
        seen.append(await _output(session, LOOK))
        await session.exec("ln -s ../../../elsewhere folder/link; echo later > folder/file")
        seen.append(await _refused(session))
        await client.delete(session)
        restored = await client.resume(session.state)
        await restored.start()
        seen.append(await _output(restored, LOOK))
        await client.delete(restored)
        return seen


async def forked(
    client: TemporalSandboxClient,
    snapshot: SnapshotSpec,
    options: BaseSandboxClientOptions | None = None,
) -> dict[str, str]:
    """Save twice, fork the session, save the fork, and open every saved state.

    Returns:
        The file's content in the fork, and in each state.
    """
    source = await client.create(snapshot=snapshot, options=options)
    await source.start()
    states = {}
    for name in ("first", "second"):
        await source.exec(f"echo {name} > file")
        await source.stop()
        states[name] = source.state
    fork = await client.create(snapshot=source.state.snapshot, options=options)
    await fork.start()
    seen = {"fork": await _output(fork, "cat file")}
    await fork.exec("echo the fork > file")
    await fork.stop()
    await client.delete(fork)
    await client.delete(source)
    for name, state in {**states, "the fork": fork.state}.items():
        session = await client.resume(state)
        await session.start()
        seen[name] = await _output(session, "cat file")
        await client.delete(session)
    return seen


@workflow.defn
class Fork:
    """Forks a session whose workspace is in the storage; see `forked`."""

    @workflow.run
    async def run(self, order: Order) -> dict[str, str]:
        return await forked(_client(order), _SNAPSHOT, _options(order))


@workflow.defn
class ResumeDeleted:
    """Deletes a sandbox, resumes a state saved before that, and returns what the workspace has."""

    @workflow.run
    async def run(self, order: Order) -> str:
        client = _client(order)
        first = await client.create(options=_options(order))
        await first.start()
        await first.exec("echo old > file")
        saved = client.serialize_session_state(first.state)
        await client.delete(first)
        session = await client.resume(client.deserialize_session_state(saved))
        await session.start()
        found = await _output(session, "ls; echo empty")
        await client.delete(session)
        return found


_NAMES = """
mkdir -p sub; printf source > source; printf old > old; printf 0123456789 > digits
ln -s source link; ln source hard; ln -s ../outside dangling
"""


async def _said(asked: Awaitable[object]) -> str:
    try:
        return repr(await asked)
    except (SandboxError, SandboxCoreError, FileExistsError) as error:
        # After the wire, a builtin error's class derives from the builtin and from ours.
        exists = isinstance(error, FileExistsError)
        return FileExistsError.__name__ if exists else type(error).__name__


@workflow.defn
class NameFiles:
    """Compares, creates, moves and partly reads files by name; returns the answers."""

    @workflow.run
    async def run(self, order: Order) -> dict[str, str]:
        client = _client(order)
        session = await client.create(options=_options(order))
        await session.start()
        try:
            return await self._ask(session)
        finally:
            await client.delete(session)

    async def _ask(self, session: WorkflowSandboxSession) -> dict[str, str]:
        await session.exec(_NAMES)
        said = {}
        for name in ("hard", "link", "old", "missing"):
            said[f"{name} is source"] = await _said(session.same_file("source", name))
        said["link itself is source"] = await _said(
            session.same_file("source", "link", follow_symlinks=False)
        )
        for name in ("made/new", "old", "dangling", "sub"):
            new = session._write_new_file(Path(name), io.BytesIO(b"new"))
            said[f"create {name}"] = await _said(new)
        await session.mv("source", "sub/moved")
        await session.mv("hard", "old")
        for source, destination in (("missing", "sub/missing"), ("sub", "other"), ("old", "sub")):
            moved = session.mv(source, destination)
            said[f"move {source} to {destination}"] = await _said(moved)
        for name in ("odd\udc80", "odd\udc81"):  # Two names, or none: some APIs transfer only text.
            said[f"make {name}"] = await _said(session.write(Path(name), io.BytesIO(b"odd")))
        said["odd"] = await _output(session, "ls odd* 2>/dev/null | wc -l; rm -f odd*")
        said["begin digits"] = await _said(session.read_bounded(Path("digits"), max_bytes=4))
        said["left"] = await _output(session, "cat sub/moved old made/new; ls .. | grep outside")
        return said


@workflow.defn
class UseShared:
    """Uses the session of the given state, and closes it: the sandbox is left to the others."""

    @workflow.run
    async def run(self, order: Order, state: dict[str, Any], name: str) -> None:
        client = _client(order)
        session = await client.resume(client.deserialize_session_state(state))
        await _work(session, name)
        await session.aclose()


COMMANDS = 6


async def _work(session: SandboxSession, name: str) -> None:
    for number in range(COMMANDS):
        await session.exec(
            f"echo {name}.{number} >> lines; test -e hello.txt || echo lost >> lines"
        )
        await workflow.sleep(0.2)


@workflow.defn
class Share:
    """Creates a session that another handle and a child also use; returns the lines they wrote."""

    def __init__(self) -> None:
        self._begun = False

    @workflow.run
    async def run(self, order: Order) -> list[str]:
        client = _client(order)
        session = await client.create(
            manifest=Manifest(entries={"hello.txt": File(content=GREETING)}),
            options=_options(order),
        )
        try:
            await session.start()
            self._begun = True
            await asyncio.gather(
                _work(session, "owner"),
                _work(await client.resume(session.state), "handle"),
                workflow.execute_child_workflow(
                    UseShared.run,
                    args=[order, client.serialize_session_state(session.state), "child"],
                    id=f"{workflow.info().workflow_id}-child",
                ),
            )
            return (await _output(session, "cat lines")).split()
        finally:
            await client.delete(session)

    @workflow.update
    async def begun(self) -> None:
        """Wait until the session exists."""
        await workflow.wait_condition(lambda: self._begun)


WHOLE = (Fork, NameFiles, ResumeDeleted, SaveWhole, Share, UseShared)
"""The workflows of this module, for a worker."""
