"""What sandbox-core promises with the provider, on a real Temporal server, while things fail."""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio.api.enums.v1 import EventType
from temporalio.client import (
    Client as TemporalClient,
)
from temporalio.client import (
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateStage,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from sandbox_core.testing.contract.durable_worker import (
    FAULT_VARIABLE,
    SECRET_VARIABLE,
    start_worker,
)
from sandbox_core.testing.contract.durable_workflows import HoldSandbox, Order, RunCommand
from sandbox_core.testing.contract.model import (
    NotApplicable,
    PromiseBroken,
    check,
    expect,
    expect_equal,
)
from sandbox_core.testing.contract.subject import Subject
from sandbox_core.testing.dev_server import DevServer
from sandbox_core.testing.worker_process import WorkerProcess
from sandbox_core.wire.agents_models import JsonObject, dump_options, load_state
from sandbox_core.wire.reap_messages import ReapRequest
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.reaping.reaper import as_reapable, reap
from sandbox_core.worker.sessions.labels import WORKFLOW_ID, Namespace

_Handle = WorkflowHandle[Any, Any]

_ENDS_S = 120.0
"""How long a workflow may take; what the checks wait for takes seconds."""

_LABELS = ("labels", "identity", "destroy")

# A whole output of 20,000 lines, a last line that says how often it was run, and an exit code.
_COUNTED = """\
echo run >> counter
seq 1 20000
echo > started
until [ -e go ]; do sleep 0.1; done
grep -c run counter
exit 7
"""
_WHOLE = "".join(f"{n}\n" for n in range(1, 20001)) + "1\n"

# Three processes, of which one has left the command's session, write on and on.
_TICKS = "while true; do echo t >> ticks; sleep 0.1; done"
_TREE = f"true; ({_TICKS}) & setsid sh -c '{_TICKS}' & echo > started; {_TICKS}"


@dataclass(kw_only=True)
class _Fleet:
    """A Temporal server, and workers with the provider, which are killed in the end."""

    subject: Subject
    address: str
    client: TemporalClient
    log: Path
    queue: str = field(default_factory=lambda: f"contract-{uuid.uuid4().hex[:12]}")
    _workers: list[WorkerProcess] = field(default_factory=list)
    _handles: list[_Handle] = field(default_factory=list)

    async def start(self, **variables: str) -> WorkerProcess:
        """Start one more worker, and return it when it polls."""
        module = self.subject.module
        if module is None:
            raise NotApplicable("the provider comes from no module, so no worker can import it")
        worker = start_worker(self.address, self.queue, module, self.log, variables)
        self._workers.append(worker)
        await asyncio.to_thread(worker.wait_until_ready)
        return worker

    async def replace(self) -> None:
        """Kill all workers, and start another."""
        for worker in self._workers:
            worker.kill()
        await self.start()

    def order(self) -> Order:
        """Return an order of a sandbox of the provider."""
        options = self.subject.backend.options
        return Order(
            provider=self.subject.provider.name,
            options=None if options is None else dump_options(options),
        )

    async def hold(self, order: Order | None = None) -> _Handle:
        """Start a workflow that holds a sandbox."""
        handle: _Handle = await self.client.start_workflow(
            HoldSandbox.run,
            order or self.order(),
            id=f"contract-{uuid.uuid4().hex}",
            task_queue=self.queue,
        )
        self._handles.append(handle)
        return handle

    async def looking_at(self, handle: _Handle) -> SandboxSession:
        """Return a session of this process for a workflow's sandbox."""
        state = load_state(await self.update(handle, HoldSandbox.state))
        client = self.subject.client
        return await self.subject.within(client.resume(state))

    async def update(self, handle: _Handle, update: Callable[..., object], *args: object) -> Any:  # noqa: ANN401 - the update's
        """Return what a workflow answers."""
        asked = handle.execute_update(cast("Any", update), args=list(args))
        return await asyncio.wait_for(asked, _ENDS_S)

    async def finish(self, handle: _Handle) -> None:
        """Have a workflow delete its sandbox, and end."""
        await handle.signal(HoldSandbox.finish)
        await asyncio.wait_for(handle.result(), _ENDS_S)

    async def sandboxes_of(self, handle: _Handle) -> list[str]:
        """Return the ids of a workflow's sandboxes."""
        found = await self.subject.labelling.find(self.subject.client, {WORKFLOW_ID: handle.id})
        return [sandbox.sandbox_id for sandbox in found]

    async def has_sandboxes(self, handle: _Handle, count: int) -> bool:
        """Return whether a workflow has so many sandboxes."""
        return len(await self.sandboxes_of(handle)) == count

    async def clean_up(self) -> None:
        """End what still runs, and delete what it has made."""
        for handle in self._handles:
            with suppress(RPCError):
                await handle.terminate()
        for worker in self._workers:
            worker.kill()
        if all(map(self.subject.can, _LABELS)):
            for handle in self._handles:
                for sandbox_id in await self.sandboxes_of(handle):
                    await self.subject.destroy(sandbox_id)


@asynccontextmanager
async def _fleet(subject: Subject) -> AsyncIterator[_Fleet]:
    with tempfile.TemporaryDirectory() as folder:
        address = await subject.temporal_address()
        fleet = _Fleet(
            subject=subject,
            address=address,
            client=await _connect(address),
            log=Path(folder) / "log",
        )
        try:
            yield fleet
        finally:
            await fleet.clean_up()


async def _connect(address: str) -> TemporalClient:
    # What is large in an answer is in the storage that the workers have.
    return await TemporalClient.connect(address, plugins=[SandboxPlugin()])


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for what no event tells of: something at the backend, or at the server."""

    async def ask() -> None:
        while not await condition():  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(0.1)

    try:
        await asyncio.wait_for(ask(), _ENDS_S)
    except asyncio.TimeoutError:
        raise PromiseBroken(f"{what} within {_ENDS_S:g} s") from None


async def _resumed(handle: _Handle, provider: str) -> bool:
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
    """Return when the command in a sandbox has made the file ``started``."""
    ran = await subject.sh(
        "n=0; until [ -e started ]; do n=$((n+1)); [ $n -lt 400 ] || exit 1; sleep 0.1; done",
        session,
    )
    expect_equal(0, ran.exit_code, "whether the command has begun")


async def _survives(subject: Subject, update: Callable[..., object]) -> list[Any]:
    async with _fleet(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        session = await fleet.looking_at(handle)
        asked = asyncio.ensure_future(fleet.update(handle, update, _COUNTED))
        await _started(subject, session)
        await fleet.replace()
        await _until(lambda: _resumed(handle, subject.provider.name), "no worker resumed it")
        await subject.sh("echo > go", session)
        answer: list[Any] = await asked
        await fleet.finish(handle)
        return answer


@check("durable", cost="a deployment runs commands twice, or loses their results", slow=True)
async def a_command_survives_its_worker(subject: Subject) -> None:
    """A command whose worker is killed runs once, and its whole output comes back."""
    _needs_durable_processes(subject)

    expect_equal([_WHOLE, "", 7], await _survives(subject, HoldSandbox.do), "the result")


@check("durable", cost="a deployment loses processes that an agent has started", slow=True)
async def a_process_survives_its_worker(subject: Subject) -> None:
    """A process that is polled goes on when its worker is killed, and is polled by the next."""
    _needs_durable_processes(subject)
    if not (await subject.session()).supports_pty():
        raise NotApplicable("supports_pty() is false")

    expect_equal([_WHOLE, 7], await _survives(subject, HoldSandbox.poll), "the result")


def _needs_durable_processes(subject: Subject) -> None:
    if not subject.provider.durable_processes:
        raise NotApplicable(
            "durable_processes is false: a command whose worker dies is `OutcomeUnknown`"
        )


async def _still_ticks(subject: Subject, session: SandboxSession) -> bool:
    """Return whether something still writes to the file ``ticks``."""
    ran = await subject.sh(
        "a=$(wc -c < ticks); sleep 1; b=$(wc -c < ticks); [ $a != $b ] && echo yes", session
    )
    return ran.stdout == b"yes\n"


async def _is_silent(subject: Subject, session: SandboxSession) -> bool:
    return not await _still_ticks(subject, session)


@check("durable", cost="processes of commands that were given up use the sandbox up", slow=True)
async def a_command_that_times_out_leaves_no_process(subject: Subject) -> None:
    """A command that times out is ended with everything that it has started."""
    _needs_durable_processes(subject)
    async with _fleet(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        session = await fleet.looking_at(handle)
        answer = await fleet.update(handle, HoldSandbox.do, _TREE, 2.0)
        expect_equal(["timed out"], answer, "the result")
        expect(not await _still_ticks(subject, session), "a process of the command still runs")
        await fleet.finish(handle)


@check("durable", cost="a command that a user has stopped goes on", slow=True)
async def a_cancelled_command_leaves_no_process(subject: Subject) -> None:
    """A command whose workflow is cancelled is ended with everything that it has started."""
    _needs_durable_processes(subject)
    async with _fleet(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        state: JsonObject = await fleet.update(handle, HoldSandbox.state)
        session = await fleet.looking_at(handle)
        running: _Handle = await fleet.client.start_workflow(
            RunCommand.run,
            args=[fleet.order(), state, _TREE],
            id=f"contract-{uuid.uuid4().hex}",
            task_queue=fleet.queue,
        )
        await _started(subject, session)
        await running.cancel()
        with suppress(WorkflowFailureError):
            await asyncio.wait_for(running.result(), _ENDS_S)
        await _until(lambda: _is_silent(subject, session), "a process of the command still ran")
        await fleet.finish(handle)


@check("durable", needs=_LABELS, cost="every killed worker leaves sandboxes that are paid for")
async def one_sandbox_is_left_of_a_create_whose_worker_is_killed(subject: Subject) -> None:
    """A create whose worker is killed after the backend has made a sandbox leaves one in all."""
    async with _fleet(subject) as fleet:
        first = await fleet.start(**_fault(fleet, "kill"))
        handle = await fleet.hold()
        await asyncio.to_thread(first.wait)
        await fleet.start()
        await fleet.update(handle, HoldSandbox.do, "true")
        held = await fleet.sandboxes_of(handle)
        await fleet.finish(handle)

        expect_equal(1, len(held), "sandboxes of a workflow that has one session")
        expect_equal([], await fleet.sandboxes_of(handle), "left when it has ended")


def _fault(fleet: _Fleet, action: str) -> dict[str, str]:
    return {FAULT_VARIABLE: f"{action}:{fleet.log.parent / 'happened'}"}


@check("durable", needs=_LABELS, cost="every cancelled agent leaves a sandbox that is paid for")
async def a_cancelled_create_leaves_none(subject: Subject) -> None:
    """A create that is cancelled while the backend makes a sandbox leaves none."""
    async with _fleet(subject) as fleet:
        await fleet.start(**_fault(fleet, "hang"))
        handle = await fleet.hold()
        await _until(lambda: fleet.has_sandboxes(handle, 1), "no sandbox was made")
        await handle.cancel()
        with suppress(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), _ENDS_S)

        expect_equal([], await fleet.sandboxes_of(handle), "left by a cancelled create")


@check("durable", needs=_LABELS, cost="every failed agent leaves a sandbox that is paid for")
async def a_first_start_that_fails_leaves_none(subject: Subject) -> None:
    """A sandbox whose first start fails is deleted, and the error is that of the start."""
    async with _fleet(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold(replace(fleet.order(), spoilt=True))
        try:
            await asyncio.wait_for(handle.result(), _ENDS_S)
        except WorkflowFailureError as failed:
            expect("hello.txt" in str(failed.cause), f"another error: {failed.cause}")
        else:
            raise PromiseBroken("a manifest that contradicts itself was applied")

        expect_equal([], await fleet.sandboxes_of(handle), "left by a start that failed")


@check("durable", cost="a change of the worker reverts what the agent has done", slow=True)
async def an_edit_survives_its_worker(subject: Subject) -> None:
    """A workspace is as it was left, whichever worker goes on, and however often it is started."""
    async with _fleet(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        await fleet.update(handle, HoldSandbox.do, "echo edited > hello.txt")
        await fleet.replace()
        await fleet.update(handle, HoldSandbox.start)
        seen = [await fleet.update(handle, HoldSandbox.read, "hello.txt")]
        await fleet.update(handle, HoldSandbox.save)
        await fleet.update(handle, HoldSandbox.start)
        seen.append(await fleet.update(handle, HoldSandbox.read, "hello.txt"))
        restored = await fleet.update(handle, HoldSandbox.restorations)
        await fleet.finish(handle)

        expect_equal(["edited\n", "edited\n"], seen, "the file of the manifest that was edited")
        expect_equal([], restored, "restorations of a sandbox that was never lost")


async def _lose(fleet: _Fleet, handle: _Handle) -> None:
    await fleet.subject.kill(await fleet.looking_at(handle))


@check(
    "durable",
    needs=("identity", "exists"),
    cost="a lost sandbox loses the agent's work although it was saved",
    slow=True,
)
async def a_lost_workspace_is_restored(subject: Subject) -> None:
    """A sandbox that is gone is replaced from the last snapshot, and the workflow is told."""
    async with _fleet(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        await fleet.update(handle, HoldSandbox.do, "echo saved > hello.txt")
        await fleet.update(handle, HoldSandbox.save)
        await _lose(fleet, handle)
        await fleet.replace()
        seen = await fleet.update(handle, HoldSandbox.read, "hello.txt")
        restored = await fleet.update(handle, HoldSandbox.restorations)
        await fleet.finish(handle)

        expect_equal("saved\n", seen, "the file that was saved")
        expect_equal(1, len(restored), "restorations that the workflow is told of")


@check(
    "durable",
    needs=("identity", "exists"),
    cost="an agent goes on in an empty workspace, and does not know it",
)
async def a_lost_workspace_is_said(subject: Subject) -> None:
    """Without a snapshot, a sandbox that is gone is `SandboxLost`, every time."""
    async with _fleet(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        await fleet.update(handle, HoldSandbox.do, "echo edited > hello.txt")
        await _lose(fleet, handle)
        for _ in range(2):
            seen = await _failure(fleet, handle, HoldSandbox.read, "hello.txt")
            expect_equal("SandboxLost", seen.type, f"the error ({seen.message})")


async def _failure(
    fleet: _Fleet, handle: _Handle, update: Callable[..., object], *args: object
) -> ApplicationError:
    try:
        answer = await fleet.update(handle, update, *args)
    except WorkflowUpdateFailedError as failed:
        if isinstance(failed.cause, ApplicationError):
            return failed.cause
        raise PromiseBroken(f"another error: {failed.cause!r}") from failed
    raise PromiseBroken(f"it was answered: {answer!r}")


@check("durable", cost="an operation after a delete makes a new sandbox, which nobody deletes")
async def what_is_deleted_stays_deleted(subject: Subject) -> None:
    """A command after the session's deletion fails; no other sandbox is made for it."""
    async with _fleet(subject) as fleet:
        await fleet.start()
        handle = await fleet.hold()
        await fleet.update(handle, HoldSandbox.do, "true")
        await fleet.update(handle, HoldSandbox.delete)
        await _failure(fleet, handle, HoldSandbox.do, "echo alive")
        left = await fleet.sandboxes_of(handle) if all(map(subject.can, _LABELS)) else []
        await fleet.finish(handle)

        expect_equal([], left, "sandboxes after the deletion")


@check("durable", cost="a restart of Temporal loses agents' commands", slow=True)
async def an_outage_of_temporal_is_ridden_out(subject: Subject) -> None:
    """A command goes on while the Temporal server is killed and started again, and runs once."""
    _needs_durable_processes(subject)
    with tempfile.TemporaryDirectory() as folder:
        server = DevServer(db_file=Path(folder) / "temporal.db")
        await asyncio.to_thread(server.start)
        try:
            fleet = _Fleet(
                subject=subject,
                address=server.address,
                client=await _connect(server.address),
                log=Path(folder) / "log",
            )
            try:
                await fleet.start()
                # Its worker cannot heartbeat for as long as the server is away.
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

    return await asyncio.wait_for(ask(), _ENDS_S)


@check(
    "durable", needs=_LABELS, cost="orphans stay, or the sandboxes of running agents are deleted"
)
async def only_orphans_are_reaped(subject: Subject) -> None:
    """`sandbox reap` deletes the sandbox of a terminated workflow, and no other."""
    reapable = as_reapable(subject.provider)
    if reapable is None:
        raise NotApplicable("the provider cannot be reaped")
    async with _fleet(subject) as fleet:
        await fleet.start()
        living, terminated = await fleet.hold(), await fleet.hold()
        for handle in (living, terminated):
            await fleet.update(handle, HoldSandbox.do, "true")
        foreign = await subject.make(
            client=subject.labelling.labelled(subject.client, {WORKFLOW_ID: terminated.id}),
            start=False,
        )
        (orphan,) = set(await fleet.sandboxes_of(terminated)) - {subject.identity(foreign.state)}
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


@check("durable", cost="credentials get into histories, before the model, and into logs")
async def secrets_stay_on_the_worker(subject: Subject) -> None:
    """The value of a `WorkerEnv` is in no history and no log, also when a command prints it."""
    secret = f"s3cr3t-{uuid.uuid4().hex}"
    async with _fleet(subject) as fleet:
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
