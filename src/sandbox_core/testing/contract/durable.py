"""Checks what sandbox-core promises with the provider while workers, sandboxes or servers fail."""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio.api.enums.v1 import EventType
from temporalio.client import (
    WorkflowFailureError,
    WorkflowUpdateFailedError,
    WorkflowUpdateStage,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from sandbox_core.testing.contract.durable_worker import (
    SECRET_VARIABLE,
)
from sandbox_core.testing.contract.durable_workflows import HoldSandbox, RunCommand
from sandbox_core.testing.contract.fleet import (
    ENDS_S,
    LABELS,
    Fleet,
    Handle,
    connect,
    fleet_of,
    steady_fleet,
    until,
)
from sandbox_core.testing.contract.model import (
    NO_TERMINALS,
    NotApplicable,
    PromiseBroken,
    check,
    expect,
    expect_equal,
)
from sandbox_core.testing.contract.subject import Subject
from sandbox_core.testing.dev_server import DevServer
from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.messages import ReapRequest
from sandbox_core.worker.reaping.reaper import as_reapable, reap
from sandbox_core.worker.sessions.labels import WORKFLOW_ID, Namespace

# Writes 20,000 lines and, as the last one, how often it has run; exits with a code.
_COUNTED = """\
echo run >> counter
seq 1 20000
echo > started
until [ -e go ]; do sleep 0.1; done
grep -c run counter
exit 7
"""
_WHOLE = "".join(f"{n}\n" for n in range(1, 20001)) + "1\n"

# Three processes that write forever, one of them outside the command's session.
_TICKS = "while true; do echo t >> ticks; sleep 0.1; done"
_TREE = f"true; ({_TICKS}) & setsid sh -c '{_TICKS}' & echo > started; {_TICKS}"


async def _resumed(handle: Handle, provider: str) -> bool:
    """Return whether a worker has resumed a workflow's session."""
    history = await handle.fetch_history()
    scheduled = {
        event.event_id
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        and event.activity_task_scheduled_event_attributes.activity_type.name
        == f"{provider}-sandbox_resume_session"
    }
    return any(
        event.activity_task_completed_event_attributes.scheduled_event_id in scheduled
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
    )


async def _started(subject: Subject, session: SandboxSession) -> None:
    """Wait until the command in a sandbox has created the file ``started``."""
    ran = await subject.sh(
        "n=0; until [ -e started ]; do n=$((n+1)); [ $n -lt 400 ] || exit 1; sleep 0.1; done",
        session,
    )
    expect_equal(0, ran.exit_code, "whether the command has begun")


async def _survives(subject: Subject, update: Callable[..., object]) -> list[Any]:
    async with fleet_of(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        session = await fleet.looking_at(handle)
        asked = asyncio.ensure_future(fleet.update(handle, update, _COUNTED))
        await _started(subject, session)
        await fleet.replace()
        await until(lambda: _resumed(handle, subject.provider.name), "no worker resumed it")
        await subject.sh("echo > go", session)
        answer: list[Any] = await asked
        await fleet.finish(handle)
        return answer


@check("durable", cost="a deployment repeats commands or loses their results", slow=True)
async def a_command_survives_its_worker(subject: Subject) -> None:
    """A command whose worker is killed runs once, and its complete output is returned."""
    _needs_durable_processes(subject)

    expect_equal([_WHOLE, "", 7], await _survives(subject, HoldSandbox.do), "the result")


@check("durable", cost="a deployment loses an agent's processes", slow=True)
async def a_process_survives_its_worker(subject: Subject) -> None:
    """A polled process survives its worker, and the next worker polls it."""
    _needs_durable_processes(subject)
    if not (await subject.session()).supports_pty():
        raise NotApplicable(NO_TERMINALS)

    expect_equal([_WHOLE, 7], await _survives(subject, HoldSandbox.poll), "the result")


def _needs_durable_processes(subject: Subject) -> None:
    if not subject.provider.durable_processes:
        raise NotApplicable(
            "durable_processes is false: if a worker dies during a command, its result is lost "
            "(`OutcomeUnknown`)"
        )


async def _still_ticks(subject: Subject, session: SandboxSession) -> bool:
    """Return whether something still writes to the file ``ticks``."""
    ran = await subject.sh(
        "a=$(wc -c < ticks); sleep 1; b=$(wc -c < ticks); [ $a != $b ] && echo yes", session
    )
    return ran.stdout == b"yes\n"


async def _is_silent(subject: Subject, session: SandboxSession) -> bool:
    return not await _still_ticks(subject, session)


@check("durable", cost="leftover processes exhaust the sandbox", slow=True)
async def a_command_that_times_out_leaves_no_process(subject: Subject) -> None:
    """A timed-out command is killed with everything it started, even if its worker dies."""
    _needs_durable_processes(subject)
    async with fleet_of(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        session = await fleet.looking_at(handle)
        asked = asyncio.ensure_future(fleet.update(handle, HoldSandbox.do, _TREE, 4.0))
        await _started(subject, session)
        await fleet.replace()
        expect_equal(["timed out"], await asked, "the result")
        expect(not await _still_ticks(subject, session), "a process of the command still runs")
        await fleet.finish(handle)


@check("durable", cost="a stopped command keeps running", slow=True)
async def a_cancelled_command_leaves_no_process(subject: Subject) -> None:
    """A command whose workflow is cancelled is killed with everything it started."""
    _needs_durable_processes(subject)
    fleet = await steady_fleet(subject)
    handle = await fleet.hold()
    state: JsonObject = await fleet.update(handle, HoldSandbox.state)
    session = await fleet.looking_at(handle)
    running: Handle = await fleet.client.start_workflow(
        RunCommand.run,
        args=[fleet.order(), state, _TREE],
        id=f"contract-{uuid.uuid4().hex}",
        task_queue=fleet.queue,
    )
    await _started(subject, session)
    await running.cancel()
    with suppress(WorkflowFailureError):
        await asyncio.wait_for(running.result(), ENDS_S)
    await until(lambda: _is_silent(subject, session), "a process of the command still ran")
    await fleet.finish(handle)


@check("durable", cost="a change of worker reverts the agent's work", slow=True)
async def an_edit_survives_its_worker(subject: Subject) -> None:
    """A workspace stays as it was left, on any worker and however often it is started."""
    async with fleet_of(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        await fleet.update(handle, HoldSandbox.do, "echo edited > hello.txt")
        await fleet.replace()
        await fleet.update(handle, HoldSandbox.start)
        seen = [await fleet.update(handle, HoldSandbox.read, "hello.txt")]
        await fleet.update(handle, HoldSandbox.save)
        await fleet.update(handle, HoldSandbox.start)
        seen.append(await fleet.update(handle, HoldSandbox.read, "hello.txt"))
        await fleet.update(handle, HoldSandbox.do, "echo again > hello.txt")
        await fleet.replace(gently=True)
        seen.append(await fleet.update(handle, HoldSandbox.read, "hello.txt"))
        restored = await fleet.update(handle, HoldSandbox.restorations)
        await fleet.finish(handle)

        expect_equal(
            ["edited\n", "edited\n", "again\n"], seen, "the file of the manifest that was edited"
        )
        expect_equal([], restored, "restorations of a sandbox that was never lost")


async def _lose(fleet: Fleet, handle: Handle) -> str:
    """Kill the sandbox of a workflow, and return its id."""
    session = await fleet.looking_at(handle)
    lost = fleet.subject.identity(session.state)
    await fleet.subject.kill(session)
    return lost


@check(
    "durable",
    needs=("identity", "exists"),
    cost="a lost sandbox loses the agent's saved work",
    slow=True,
)
async def a_lost_workspace_is_restored(subject: Subject) -> None:
    """A lost sandbox is replaced from the last snapshot, and the workflow is told."""
    await _expect_restored(subject, held=False)


@check(
    "durable",
    needs=("identity", "exists"),
    cost="a lost sandbox loses the agent's saved work",
    slow=True,
)
async def a_lost_workspace_is_restored_by_its_worker(subject: Subject) -> None:
    """The same holds while a worker has the session open."""
    await _expect_restored(subject, held=True)


async def _expect_restored(subject: Subject, *, held: bool) -> None:
    async with fleet_of(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        await fleet.update(handle, HoldSandbox.do, "echo saved > hello.txt")
        await fleet.update(handle, HoldSandbox.save)
        await fleet.update(handle, HoldSandbox.do, "echo later > hello.txt")
        await _lose(fleet, handle)
        if not held:
            await fleet.replace()
        seen = await fleet.update(handle, HoldSandbox.read, "hello.txt")
        restored = await fleet.update(handle, HoldSandbox.restorations)
        await fleet.finish(handle)

        expect_equal("saved\n", seen, "the file that was saved")
        expect_equal(1, len(restored), "restorations that the workflow is told of")


@check(
    "durable",
    needs=("identity", "exists"),
    cost="an agent continues in an empty workspace without noticing",
)
async def a_lost_workspace_is_said(subject: Subject) -> None:
    """Without a snapshot, a lost sandbox raises `SandboxLost` on every worker."""
    async with fleet_of(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        await fleet.update(handle, HoldSandbox.do, "echo edited > hello.txt")
        lost = await _lose(fleet, handle)
        for replaced in (False, True):
            if replaced:
                await fleet.replace()
            seen = await _failure(fleet, handle, HoldSandbox.read, "hello.txt")
            expect_equal("SandboxLost", seen.type, f"the error ({seen.message})")
            for named in (lost, repr(subject.provider.name)):
                expect(
                    named in seen.message, f"an error that does not name {named}: {seen.message}"
                )


async def _failure(
    fleet: Fleet, handle: Handle, update: Callable[..., object], *args: object
) -> ApplicationError:
    try:
        answer = await fleet.update(handle, update, *args)
    except WorkflowUpdateFailedError as failed:
        if isinstance(failed.cause, ApplicationError):
            return failed.cause
        raise PromiseBroken(f"another error: {failed.cause!r}") from failed
    raise PromiseBroken(f"it was answered: {answer!r}")


@check("durable", cost="an operation after a delete leaks a new sandbox")
async def what_is_deleted_stays_deleted(subject: Subject) -> None:
    """A command after the session was deleted fails and creates no other sandbox."""
    fleet = await steady_fleet(subject)
    handle = await fleet.hold()
    await fleet.update(handle, HoldSandbox.do, "true")
    await fleet.update(handle, HoldSandbox.delete)
    await _failure(fleet, handle, HoldSandbox.do, "echo alive")
    left = await fleet.sandboxes_of(handle) if all(map(subject.can, LABELS)) else []
    await fleet.finish(handle)

    expect_equal([], left, "sandboxes after the deletion")


@check(
    "durable",
    cost="an agent works in an empty workspace, or its result is lost when its session is closed",
)
async def a_missing_workspace_is_not_empty(subject: Subject) -> None:
    """After a shutdown, commands find the workspace or fail; without it, sessions can be closed."""
    fleet = await steady_fleet(subject)
    handle = await fleet.hold()
    await fleet.update(handle, HoldSandbox.do, "echo kept > hello.txt")
    await fleet.update(handle, HoldSandbox.save)
    await fleet.update(handle, HoldSandbox.shut_down)
    for _ in range(2):  # The first one may be the one that finds the sandbox gone.
        with suppress(WorkflowUpdateFailedError):
            seen = await fleet.update(handle, HoldSandbox.do, "cat hello.txt")
            expect_equal(["kept\n", "", 0], seen, "a file after the shutdown")
    await fleet.update(handle, HoldSandbox.start)
    seen = await fleet.update(handle, HoldSandbox.do, "cat hello.txt")
    expect_equal(["kept\n", "", 0], seen, "a file after the next start")
    await fleet.update(handle, HoldSandbox.do, 'rm -rf "$PWD"')
    try:
        await fleet.update(handle, HoldSandbox.close)
    except WorkflowUpdateFailedError as failed:
        raise PromiseBroken(
            f"without its workspace, a session is not closed: {failed.cause!r}"
        ) from failed
    await fleet.finish(handle)


@check("durable", cost="deleting boots a sandbox or leaves the old one")
async def a_delete_by_another_worker_makes_none(subject: Subject) -> None:
    """A worker that never held a session deletes its sandbox without creating another."""
    async with fleet_of(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        await fleet.update(handle, HoldSandbox.do, "true")
        await fleet.replace()
        await fleet.finish(handle)
        left = await fleet.sandboxes_of(handle) if all(map(subject.can, LABELS)) else []
        resumed = await _resumed(handle, subject.provider.name)

        expect_equal([], left, "left by a delete")
        expect(not resumed or not subject.can("destroy"), "the session was resumed to be deleted")


@check("durable", cost="a restart of Temporal loses commands", slow=True)
async def an_outage_of_temporal_is_ridden_out(subject: Subject) -> None:
    """A command survives a restart of the Temporal server and runs once."""
    _needs_durable_processes(subject)
    with tempfile.TemporaryDirectory() as folder:
        server = DevServer(db_file=Path(folder) / "temporal.db")
        await asyncio.to_thread(server.start)
        try:
            fleet = Fleet(
                subject=subject,
                address=server.address,
                client=await connect(server.address),
                log=Path(folder) / "log",
            )
            try:
                await fleet.start()
                # Its worker cannot heartbeat while the server is down.
                handle = await fleet.hold(replace(fleet.order(), heartbeat_s=10.0))
                session = await fleet.looking_at(handle)
                asked = await handle.start_update(
                    HoldSandbox.do,
                    args=[_COUNTED, None],
                    wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                )
                await _started(subject, session)
                await asyncio.to_thread(server.kill)
                await subject.sh("echo > go", session)
                await asyncio.to_thread(server.start)
                answer = await _result(asked)
                await fleet.finish(handle)
            finally:
                await fleet.clean_up()
        finally:
            await asyncio.to_thread(server.stop)

    expect_equal([_WHOLE, "", 7], answer, "the result")


async def _result(asked: Any) -> object:  # noqa: ANN401 - an update's handle
    async def ask() -> object:
        while True:
            try:
                return await asked.result()
            except RPCError:  # noqa: PERF203 - the server is away
                await asyncio.sleep(0.2)

    return await asyncio.wait_for(ask(), ENDS_S)


@check(
    "durable",
    needs=(*LABELS, "relabel"),
    cost="orphans remain, or running agents lose their sandboxes",
)
async def only_orphans_are_reaped(subject: Subject) -> None:
    """`sandbox-core reap` deletes the sandbox of a terminated workflow and no other."""
    reapable = as_reapable(subject.provider)
    assert reapable is not None  # It has what the check needs.
    async with fleet_of(subject) as fleet:
        await fleet.start()
        living, terminated = await fleet.hold(), await fleet.hold()
        for handle in (living, terminated):
            await fleet.update(handle, HoldSandbox.do, "true")
        foreign = await subject.make(
            client=subject.labelling.labelled(subject.client, {WORKFLOW_ID: terminated.id}),
            start=False,
        )
        orphans = set(await fleet.sandboxes_of(terminated)) - {subject.identity(foreign.state)}
        expect_equal(1, len(orphans), "sandboxes found of a workflow that has one")
        (orphan,) = orphans
        await fleet.replace()
        await terminated.terminate()
        answer = await reap(
            reapable,
            subject.client,
            fleet.client,
            await Namespace.of(fleet.client),
            ReapRequest(older_than_s=0, delete=True),
        )
        deleted = {s.sandbox_id for s in answer.sandboxes if s.outcome == "deleted"}
        left = await fleet.sandboxes_of(living), await fleet.sandboxes_of(terminated)
        await fleet.finish(living)

        expect(orphan in deleted, "the sandbox of a terminated workflow was not deleted")
        expect_equal(1, len(left[0]), "sandboxes of a workflow that runs")
        expect_equal(
            [subject.identity(foreign.state)], left[1], "a sandbox that has not all the labels"
        )


@check("durable", cost="credentials reach histories, models and logs")
async def secrets_stay_on_the_worker(subject: Subject) -> None:
    """No history or log contains a `WorkerEnv`'s value, even if a command prints it."""
    secret = f"s3cr3t-{uuid.uuid4().hex}"
    async with fleet_of(subject) as fleet:
        await fleet.start(**{SECRET_VARIABLE: secret})
        handle = await fleet.hold(replace(fleet.order(), secrets=[SECRET_VARIABLE]))
        half = len(secret) // 2
        scripts = (
            "env",
            f'echo "${SECRET_VARIABLE}"; echo "${SECRET_VARIABLE}" >&2; exit 3',
            f"head -c 3000000 /dev/zero | tr '\\0' x; echo ${SECRET_VARIABLE}",
        )
        outputs = [await fleet.update(handle, HoldSandbox.do, script) for script in scripts]
        used = f'[ "${{#{SECRET_VARIABLE}}}" = {len(secret)} ] && echo there'
        there = await fleet.update(handle, HoldSandbox.do, used)
        if (await subject.session()).supports_pty():
            split = (
                f'v=${SECRET_VARIABLE}; printf %s "$(echo $v | cut -c1-{half})"; sleep 1; '
                f'echo "$(echo $v | cut -c{half + 1}-)"'
            )
            outputs.append(await fleet.update(handle, HoldSandbox.poll, split))
        await fleet.finish(handle)
        history = json.dumps((await handle.fetch_history()).to_json_dict())
        events = b"".join(
            event.SerializeToString() for event in (await handle.fetch_history()).events
        )
        logged = fleet.log.read_bytes()

    expect_equal(["there\n", "", 0], there, "whether a command has the value")
    expect(secret not in repr(outputs), "a command's output has the value")
    expect(secret.encode() not in events and secret not in history, "the history has the value")
    expect(secret.encode() not in logged, "the worker's log has the value")
