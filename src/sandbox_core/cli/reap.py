"""`sandbox-core reap`: finds sandboxes of closed workflows, once or on a Temporal Schedule."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import typer
from rich.console import Console
from rich.text import Text
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from sandbox_core.cli.choosing import REAPING, choose_providers
from sandbox_core.cli.connection import connect, server_errors
from sandbox_core.cli.durations import format_duration
from sandbox_core.cli.ending import gather
from sandbox_core.cli.printing import new_table, print_json, print_table
from sandbox_core.providers.activation import open_client
from sandbox_core.reap_workflow import REAP_WORKFLOW, ReapProviders, problems_of
from sandbox_core.wire.messages import Reaped, ReapRequest, ReapResponse
from sandbox_core.worker.reaping.reaper import Reapable, reap
from sandbox_core.worker.sessions.labels import Namespace

MIN_INTERVAL = timedelta(minutes=1)
_CATCHUP_WINDOW = timedelta(minutes=1)
_OUTCOMES = {
    "orphan": "would be deleted",
    "deleted": "deleted",
    "kept": "kept",
    "failed": "could not be deleted",
}


async def run_reap(
    *,
    providers: Sequence[str],
    older_than: timedelta,
    delete: bool,
    as_json: bool,
    address: str | None,
    namespace: str | None,
) -> int:
    """Find orphans and show them; return 1 if a provider or a deletion failed, 0 otherwise.

    Raises:
        ProviderError: A named provider cannot be used for this.
        ServerUnavailable: The Temporal server cannot be reached, or refuses.
    """
    chosen = choose_providers(providers, REAPING)
    client = await connect(address, namespace)
    with server_errors(client):
        here = await Namespace.of(client)
    request = ReapRequest(older_than_s=older_than.total_seconds(), delete=delete)
    results = await gather(
        *(_reap(provider, client, here, request) for provider in chosen.values())
    )
    answers = dict(zip(chosen, results, strict=True))
    if as_json:
        _print_json(answers)
    else:
        _print(answers, request)
    problems = list(_problems(answers))
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    return int(bool(problems))


async def run_schedule(
    *,
    every: timedelta,
    task_queue: str,
    providers: Sequence[str],
    older_than: timedelta,
    delete: bool,
    address: str | None,
    namespace: str | None,
) -> int:
    """Create or update the schedule of a task queue; return 0.

    Raises:
        ProviderError: A named provider cannot be used for this.
        ServerUnavailable: The Temporal server cannot be reached, or refuses.
    """
    chosen = tuple(choose_providers(providers, REAPING))
    client = await connect(address, namespace)
    schedule_id = f"sandbox-core-reap-{task_queue}"
    asked = ReapProviders(
        providers=chosen, reap=ReapRequest(older_than_s=older_than.total_seconds(), delete=delete)
    )
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            REAP_WORKFLOW, asked.dump(), id=schedule_id, task_queue=task_queue
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=_CATCHUP_WINDOW),
    )

    def change(existing: ScheduleUpdateInput) -> ScheduleUpdate:
        schedule.state = existing.description.schedule.state  # A paused schedule stays paused.
        return ScheduleUpdate(schedule)

    with server_errors(client):
        try:
            await client.create_schedule(schedule_id, schedule)
            done = "created"
        except ScheduleAlreadyRunningError:
            await client.get_schedule_handle(schedule_id).update(change)
            done = "updated"
    does = "deletes" if delete else "reports, and does not delete,"
    paused = " It is paused." if schedule.state.paused else ""
    name = shlex.quote(schedule_id)
    at = f"--namespace {client.namespace} --address {client.service_client.config.target_host}"
    Console(soft_wrap=True).print(
        f"Schedule {schedule_id} {done}: every {format_duration(every)} a worker of task queue "
        f"{task_queue} {does} orphans of {', '.join(chosen)}.{paused}\n"
        f"Run it now: temporal schedule trigger --schedule-id {name} {at}\n"
        f"Remove it:  temporal schedule delete --schedule-id {name} {at}",
        highlight=False,
        markup=False,
    )
    return 0


async def _reap(
    provider: Reapable | str, client: Client, namespace: Namespace, request: ReapRequest
) -> ReapResponse | str:
    """Return the provider's response, or why it failed."""
    if isinstance(provider, str):
        return provider
    try:
        async with open_client(provider) as sandbox_client:
            return await reap(provider, sandbox_client, client, namespace, request)
    except Exception as error:  # noqa: BLE001 - a plugin boundary: any error of the vendor's
        return f"{type(error).__name__}: {error}"


def _print_json(answers: Mapping[str, ReapResponse | str]) -> None:
    given = {name: answer for name, answer in answers.items() if isinstance(answer, ReapResponse)}
    report = {
        "sandboxes": [
            {"provider": name, **found.model_dump(mode="json")}
            for name, answer in given.items()
            for found in answer.sandboxes
        ],
        "living": sum(answer.living for answer in given.values()),
        "recent": sum(answer.recent for answer in given.values()),
        "errors": {name: answer for name, answer in answers.items() if isinstance(answer, str)},
    }
    print_json(report)


def _print(answers: Mapping[str, ReapResponse | str], request: ReapRequest) -> None:
    given = {name: answer for name, answer in answers.items() if isinstance(answer, ReapResponse)}
    rows = [(name, found) for name, answer in given.items() for found in answer.sandboxes]
    if rows:
        table = new_table("PROVIDER", "SANDBOX", "WORKFLOW", "RUN", "OWNER", "AGE", "OUTCOME")
        for name, found in rows:
            table.add_row(*map(Text, _row(name, found)))
        print_table(table)
    counts = Counter(found.outcome for _, found in rows)
    recent = format_duration(timedelta(seconds=request.older_than_s))
    parts = {
        "orphaned": counts["orphan"],
        "deleted": counts["deleted"],
        "that could not be deleted": counts["failed"],
        "kept": counts["kept"],
        "of open workflows": sum(answer.living for answer in given.values()),
        f"of workflows closed less than {recent} ago": sum(a.recent for a in given.values()),
    }
    said = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
    typer.echo(f"Sandboxes at {', '.join(given) or 'no provider'}: {said or 'none'}")
    if counts["orphan"]:
        typer.echo("Nothing was deleted. Use --delete to delete the orphans.")


def _row(provider: str, found: Reaped) -> Iterator[str]:
    yield from (provider, found.sandbox_id, found.workflow_id, found.run_id)
    closed = "" if found.closed_s is None else f" {_ago(found.closed_s)} ago"
    yield f"{found.owner}{closed}"
    yield "" if found.age_s is None else _ago(found.age_s)
    outcome = _OUTCOMES[found.outcome]
    yield f"{outcome}: {found.reason}" if found.reason else outcome


def _ago(seconds: float) -> str:
    return format_duration(timedelta(seconds=seconds))


def _problems(answers: Mapping[str, ReapResponse | str]) -> Iterator[str]:
    for name, answer in answers.items():
        if isinstance(answer, str):
            yield f"{name} could not be asked: {answer}"
        else:
            yield from problems_of(name, answer)
