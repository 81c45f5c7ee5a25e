"""`sandbox-core show`: one sandbox, its workflow, its worker, and what runs in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone

from rich.text import Text
from temporalio.client import Client

from sandbox_core.cli.access.holder import Asked, Where, ask_workers, history_of, queues_of
from sandbox_core.cli.access.visit import OWN_PREFIX
from sandbox_core.cli.durations import format_duration
from sandbox_core.cli.history import Operation
from sandbox_core.cli.printing import new_table, print_json, print_table
from sandbox_core.cli.sandboxes import Listed
from sandbox_core.wire import messages as m
from sandbox_core.wire.naming import host_of


@dataclass(frozen=True, kw_only=True)
class _Command:
    """A running command; `what` is None if the owner's history does not have it."""

    operation_id: str
    process_id: int | None
    tty: bool
    for_s: float
    user: str | None
    what: str | None


@dataclass(frozen=True, kw_only=True)
class _Worker:
    """A worker that may hold the sandbox; `state` is ``holds it``, or why it is not the holder."""

    queue: str
    host: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """All that is known of a sandbox; the names are those of the JSON."""

    sandbox: Listed
    workers: Sequence[_Worker]
    session_id: str | None
    users: Sequence[m.WorkflowRun]
    in_progress: int | None
    idle_s: float | None
    commands: Sequence[_Command] | None
    last_operation: Operation | None

    def as_json(self) -> dict[str, object]:
        """Return it as one flat object."""
        return {
            **asdict(self.sandbox),
            "workers": [asdict(each) for each in self.workers],
            "session_id": self.session_id,
            "users": [each.dump() for each in self.users],
            "in_progress": self.in_progress,
            "idle_s": self.idle_s,
            "commands": None if self.commands is None else [asdict(each) for each in self.commands],
            "last_operation": None if self.last_operation is None else asdict(self.last_operation),
        }


async def show_sandbox(sandbox_id: str, where: Where, *, as_json: bool) -> int:
    """Print what is known of a sandbox, and return 0.

    Raises:
        InvalidRequest: It does not exist, or is ambiguous.
        ProviderError: A named provider cannot be used for this.
        ServerUnavailable: The server cannot be reached, refuses, or has no standalone activities.
        StorageError: The storage is not a storage URL.
    """
    shown = await look_at(*await where.find(sandbox_id))
    if as_json:
        print_json(shown.as_json())
    else:
        _print(shown)
    return 0


async def look_at(client: Client, sandbox: Listed) -> Shown:
    """Return what is known of a sandbox.

    Raises:
        AccessDenied: A worker does not let the caller look at it.
        ServerUnavailable: The server does not answer, refuses, or has no standalone activities.
    """
    operations = await history_of(client, sandbox)
    asked = await ask_workers(client, sandbox, queues_of(sandbox, operations))
    return _shown(sandbox, operations, asked)


def _shown(sandbox: Listed, operations: Sequence[Operation], asked: Asked) -> Shown:
    states = dict(asked.others)
    inspected = None
    if asked.holder is not None:
        states[asked.holder.queue] = "holds it"
        inspected = asked.holder.inspected
    texts = {each.operation_id: each.what for each in operations if each.operation_id is not None}
    commands = None if inspected is None else inspected.commands
    return Shown(
        sandbox=sandbox,
        workers=[
            _Worker(queue=queue, host=host_of(queue), state=state)
            for queue, state in states.items()
        ],
        session_id=None if asked.holder is None else asked.holder.session.session_id,
        users=() if inspected is None else inspected.users,
        in_progress=None if inspected is None else inspected.in_progress,
        idle_s=None if inspected is None else inspected.idle_s,
        commands=None if commands is None else [_command(each, texts) for each in commands],
        last_operation=operations[-1] if operations else None,
    )


def _command(command: m.RunningCommand, texts: Mapping[str, str]) -> _Command:
    own = "(by sandbox-core exec)" if command.operation_id.startswith(OWN_PREFIX) else None
    return _Command(
        operation_id=command.operation_id,
        process_id=command.process_id,
        tty=command.tty,
        for_s=command.for_s,
        user=command.user,
        what=texts.get(command.operation_id, own),
    )


def _print(shown: Shown) -> None:
    table = new_table()
    for name, value in lines_of(shown):
        table.add_row(Text(name), Text(value))
    print_table(table)


def lines_of(shown: Shown) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the lines for people."""
    sandbox = shown.sandbox
    yield "sandbox", sandbox.sandbox_id
    yield "provider", sandbox.provider
    yield "workflow", f"{sandbox.workflow_id} ({sandbox.owner}), run {sandbox.run_id}"
    yield "age", "unknown" if sandbox.age_s is None else _duration(sandbox.age_s)
    for worker in shown.workers:
        yield "worker", f"{worker.queue} on host {worker.host}: {worker.state}"
    if not shown.workers:
        yield "worker", "unknown: neither a label nor the workflow's history names one"
    if shown.session_id is not None:
        others = [f"{each.workflow_id}" for each in shown.users]
        use = f"{shown.in_progress} in progress" if shown.in_progress else _idle(shown.idle_s)
        yield "session", f"{shown.session_id}, open for {', '.join(others) or 'nobody'}, {use}"
    last = shown.last_operation
    yield "last", "unknown: the workflow's history does not say" if last is None else _said(last)
    if shown.commands is None:
        yield "running", "unknown" if shown.session_id is not None else "unknown: no worker says"
    elif not shown.commands:
        yield "running", "nothing"
    for command in shown.commands or ():
        yield "running", _running(command)
    for name, value in sorted(sandbox.labels.items()):
        yield "label", f"{name}={value}"


def _running(command: _Command) -> str:
    kind = "terminal" if command.tty else "command" if command.process_id is None else "process"
    number = "" if command.process_id is None else f" {command.process_id}"
    user = "" if command.user is None else f" of {command.user}"
    what = command.what or f"(operation {command.operation_id})"
    return f"{kind}{number}{user} for {_duration(command.for_s)}: {what}"


def _said(operation: Operation) -> str:
    what = f"{operation.operation} {operation.what}".strip()
    code = operation.exit_code
    outcome = operation.outcome if code is None else f"exit {code}"
    age = datetime.now(timezone.utc) - datetime.fromisoformat(operation.scheduled_at)
    return f"{what}: {outcome}, {_duration(age.total_seconds())} ago"


def _idle(seconds: float | None) -> str:
    return "unused" if seconds is None else f"unused for {_duration(seconds)}"


def _duration(seconds: float) -> str:
    return format_duration(timedelta(seconds=max(0.0, seconds)))
