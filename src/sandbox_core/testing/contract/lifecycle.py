"""Checks a sandbox's life cycle, from its creation to its deletion."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

from agents.sandbox import Manifest
from agents.sandbox.entries import BaseEntry, File
from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.providers import SandboxStopped, SupportsCheck
from sandbox_core.providers.activation import close_client
from sandbox_core.testing.contract.model import (
    NotApplicable,
    PromiseBroken,
    check,
    expect,
    expect_equal,
)
from sandbox_core.testing.contract.subject import Client, Subject
from sandbox_core.worker.sessions.resume import resume

_UNKNOWN = "sandbox-core-no-such-sandbox"


def _copied(client: Client, state: SandboxSessionState) -> SandboxSessionState:
    """Return a state as another process would get it."""
    return client.deserialize_session_state(client.serialize_session_state(state))


async def _resume(
    subject: Subject, state: SandboxSessionState, client: Client | None = None
) -> SandboxSession:
    used = client or subject.client
    session = await subject.within(used.resume(_copied(used, state)))
    await subject.within(session.start())
    return session


@check("session", needs=("identity",), cost="a lost sandbox is not noticed")
async def the_identity_is_stable(subject: Subject) -> None:
    """A sandbox has one unique id throughout its life."""
    session = await subject.make(start=False)
    created = subject.identity(session.state)
    await subject.within(session.start())
    await subject.sh("echo > file", session)
    other = await subject.make()

    expect(isinstance(created, str) and created != "", f"an identity of {created!r}")
    expect_equal(created, subject.identity(session.state), "the identity after its start")
    expect(created != subject.identity(other.state), f"two sandboxes are both {created!r}")


@check("session", cost="every change of worker loses the workspace")
async def a_state_is_resumed_by_another_client(subject: Subject) -> None:
    """A serialized state resumes the same sandbox with another client."""
    session = await subject.make()
    await subject.sh("echo kept > file", session)
    client = subject.new_client()
    try:
        resumed = await _resume(subject, session.state, client)
        seen = await subject.sh("cat file", resumed)
        if subject.can("identity"):
            expect_equal(
                subject.identity(session.state), subject.identity(resumed.state), "the identity"
            )
    finally:
        await close_client(client)

    expect_equal(b"kept\n", seen.stdout, "what the resumed session finds")


@check("session", cost="several workers or sub-agents cannot use one sandbox")
async def a_sandbox_is_used_by_two_sessions(subject: Subject) -> None:
    """Resuming a session does not end an existing one."""
    session = await subject.make()
    await subject.sh("echo 1 > one", session)
    second, third = await _resume(subject, session.state), await _resume(subject, session.state)
    await subject.sh("test -e one", session)
    await subject.sh("echo 2 > two", second)
    seen = await subject.sh("cat one two", third)

    expect_equal(b"1\n2\n", seen.stdout, "what the third session finds")


@check("session", cost="a session does not survive its worker's process")
async def a_state_outlives_its_process(subject: Subject) -> None:
    """The state is JSON, from which another process restores the same state."""
    session = await subject.make()
    payload = subject.client.serialize_session_state(session.state)
    again = subject.client.serialize_session_state(_copied(subject.client, session.state))

    expect_equal(payload, again, "a state that was serialised twice")
    expect(isinstance(payload.get("type"), str), "the state has no `type`")


@check("session", cost="an empty workspace is mistaken for the agent's")
async def a_gone_sandbox_is_not_passed_off(subject: Subject) -> None:
    """A resume tells a lost sandbox from an existing one.

    By `exists`, or because a resume fails or makes one with another identity.
    """
    session = await subject.make()
    lost = subject.identity(session.state) if subject.can("identity") else ""
    await subject.kill(session)
    if subject.can("exists"):
        expect(not await subject.exists(lost), "a sandbox that is gone exists")
        return  # The core asks before it resumes.
    try:
        resumed = await _resume(subject, session.state)
    except Exception:  # noqa: BLE001 - any error says that it is gone
        return
    now = subject.identity(resumed.state)
    subject.keep(resumed)

    expect(now != lost, f"the replacement of {lost} has the same identity")


@check("session", cost="an operation on a dead sandbox hangs until its activity times out")
async def a_gone_sandbox_is_an_error(subject: Subject) -> None:
    """A command in a lost sandbox promptly fails, and not with exit code 0."""
    session = await subject.make()
    await subject.kill(session)
    try:
        ran = await subject.within(session.exec("echo alive", timeout=10))
    except PromiseBroken:
        raise
    except Exception:  # noqa: BLE001 - any error says that it is gone
        return
    expect(ran.exit_code != 0, "a command ran in a sandbox that is gone")


@check(
    "session",
    needs=("identity",),
    cost="a sandbox that its backend stops, such as an idle one, stays unusable",
)
async def a_stopped_sandbox_goes_on(subject: Subject) -> None:
    """A command in a stopped sandbox runs, or raises `SandboxStopped` and runs after a resume."""
    if subject.backend.stop_sandbox is None:
        raise NotApplicable(
            "`Backend(stop_sandbox=...)` is not given: if the backend can stop a sandbox and start "
            "it again, nobody has tried whether its session goes on"
        )
    session = await subject.make()
    await subject.sh("echo kept > file", session)
    stopped = subject.identity(session.state)
    await subject.within(subject.backend.stop_sandbox(stopped))
    try:
        seen = await subject.sh("cat file", session)
    except SandboxStopped:
        # As a worker opens it again.
        state = _copied(subject.client, session.state)
        opening = resume(subject.provider, subject.client, state, started=True, sandbox_id=stopped)
        opened = await subject.within(opening)
        seen = await subject.sh("cat file", opened.session)
        expect_equal(stopped, subject.identity(opened.session.state), "the identity")

    expect_equal(b"kept\n", seen.stdout, "what a command finds in the workspace")


@check("session", cost="the SDK restarts a running session or uses a stopped one")
async def running_tells_the_truth(subject: Subject) -> None:
    """`running` is true for a started session."""
    session = await subject.make()

    expect(await subject.within(session.running()), "running() is false of a started session")


@check("session", cost="retries of stop fail")
async def ending_may_be_repeated(subject: Subject) -> None:
    """`stop`, `shutdown` and the client's `delete` can be repeated."""
    session = await subject.make()
    for _ in range(2):
        await subject.within(session.stop())
    for _ in range(2):
        await subject.within(session.shutdown())
    for _ in range(2):
        await subject.within(subject.client.delete(session))


@check(
    "session", needs=("identity", "exists"), cost="`SandboxLost` is raised wrongly or not at all"
)
async def exists_tells_the_truth(subject: Subject) -> None:
    """`exists` is true until a sandbox is deleted, and false for one that never existed."""
    session = await subject.make()
    sandbox_id = subject.identity(session.state)
    before = await subject.exists(sandbox_id)
    await subject.delete(session)
    after = await subject.exists(sandbox_id)

    expect_equal((True, False), (before, after), "exists before and after the deletion")
    expect(not await subject.exists(_UNKNOWN), "a sandbox that never was exists")


@check("session", needs=("exists",), cost="a brief backend outage ends workflows")
async def no_answer_is_not_no(subject: Subject) -> None:
    """`exists` raises if the backend does not answer."""
    if subject.backend.unreachable is None:
        raise NotApplicable(
            "`Backend(unreachable=...)` is not given: if `exists` answers no during an outage, "
            "workflows end, and nobody has tried"
        )
    async with subject.unreachable() as unreachable:
        answer = await unreachable.exists(_UNKNOWN)
        raise PromiseBroken(f"exists answered {answer} although the backend did not")


@check(
    "session",
    needs=("check",),
    cost="`sandbox-core providers --check` reports a broken setup as fine",
)
async def check_finds_an_unreachable_backend(subject: Subject) -> None:
    """`check` returns if the backend answers, and raises if it does not."""

    def provider_of(subject: Subject) -> SupportsCheck[Client]:
        return cast("SupportsCheck[Client]", subject.provider)

    await subject.within(provider_of(subject).check(subject.client))
    if subject.backend.unreachable is None:
        return
    async with subject.unreachable() as unreachable:
        await unreachable.within(provider_of(unreachable).check(unreachable.client))
        raise PromiseBroken("check returned although the backend did not answer")


@check("session", needs=("identity", "destroy"), cost="orphans remain and cost money")
async def destroy_deletes(subject: Subject) -> None:
    """`destroy` deletes a sandbox by its id; repeating it is not an error."""
    session = await subject.make()
    sandbox_id = subject.identity(session.state)
    await subject.destroy(sandbox_id)
    await subject.destroy(sandbox_id)
    try:
        ran = await subject.within(session.exec("echo alive", timeout=10))
    except PromiseBroken:
        raise
    except Exception:  # noqa: BLE001 - any error says that it is gone
        ran = None

    expect(ran is None or ran.exit_code != 0, "a command ran in a sandbox that was destroyed")
    if subject.can("exists"):
        expect(not await subject.exists(sandbox_id), "a sandbox that was destroyed exists")


@check("session", cost="every failed create leaks a sandbox")
async def a_failed_start_can_be_cleaned_up(subject: Subject) -> None:
    """A session whose start failed can be deleted like any other; nothing is left."""
    # The second entry is below the first, which is not a folder.
    spoilt: dict[str | Path, BaseEntry] = {
        "file": File(content=b""),
        "file/below": File(content=b""),
    }
    async with subject.leaving_nothing():
        try:
            session = await subject.make(files=spoilt, start=False)
        except SandboxError:
            return
        try:
            await subject.within(session.start())
        except SandboxError:
            pass
        else:
            raise PromiseBroken("a manifest that contradicts itself was applied")
        await subject.delete(session)


@check("session", cost="deleted sandboxes remain and cost money")
async def deleting_leaves_nothing(subject: Subject) -> None:
    """After `delete`, nothing of the sandbox remains at the backend."""
    async with subject.leaving_nothing():
        session = await subject.make()
        await subject.sh("echo > file", session)
        await subject.delete(session)


@check("session", cost="one sandbox can see or change another's files")
async def sandboxes_are_apart(subject: Subject) -> None:
    """Two sandboxes share nothing."""
    first, second = await asyncio.gather(subject.make(), subject.make())
    await subject.sh("echo first > file", first)
    seen = await subject.sh("cat file 2>/dev/null || echo nothing", second)

    expect_equal(b"nothing\n", seen.stdout, "what the second sandbox has of the first's file")


@check("session", cost="options are required although the provider declares defaults")
async def the_default_options_are_enough(subject: Subject) -> None:
    """`create` works with `default_options()`; a provider without defaults says so."""
    try:
        options = subject.provider.default_options()
    except ValueError as error:
        expect(str(error) != "", "default_options() raises a ValueError that says nothing")
        return
    session = await subject.within(subject.client.create(manifest=Manifest(), options=options))
    subject.keep(session)
    await subject.within(session.start())
    ran = await subject.sh("echo ready", session)

    expect_equal(b"ready\n", ran.stdout, f"a command on Python {sys.version_info[:2]}")
