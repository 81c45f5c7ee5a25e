"""`sandbox-core ls` and `sandbox-core rm`: the sandboxes of a namespace, found by their labels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import typer
from rich.text import Text
from temporalio.client import Client
from temporalio.service import RPCError

from sandbox_core.cli.choosing import LISTING, choose_providers
from sandbox_core.cli.connection import connect, server_errors
from sandbox_core.cli.durations import format_duration
from sandbox_core.cli.printing import new_table, print_json, print_table
from sandbox_core.errors import InvalidRequest, OperationFailed
from sandbox_core.providers import LabelledSandbox, SupportsRelabel
from sandbox_core.providers.activation import open_client
from sandbox_core.worker.reaping.owners import owner_of
from sandbox_core.worker.reaping.reaper import Reapable, seconds_since
from sandbox_core.worker.sessions import labels as names
from sandbox_core.worker.sessions.destroying import destroy
from sandbox_core.worker.sessions.labelling import find_labelled, is_honest
from sandbox_core.worker.sessions.labels import Namespace

logger = logging.getLogger(__name__)

_CONCURRENCY = 8
_ANSWERED_WITHIN_S = 60.0
_DELETED_WITHIN_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One sandbox; `owner` is ``open``, ``unknown``, or how its workflow closed."""

    provider: str
    sandbox_id: str
    workflow_id: str
    run_id: str
    owner: str
    age_s: float | None
    """Its age in seconds, if the backend knows it."""

    labels: Mapping[str, str]


async def list_sandboxes(
    *,
    providers: Sequence[str],
    as_json: bool,
    address: str | None,
    namespace: str | None,
    answered_within_s: float = _ANSWERED_WITHIN_S,
) -> int:
    """Print the namespace's sandboxes; return 1 if a provider could not be queried, otherwise 0.

    Args:
        providers: The providers to query; empty for all.
        as_json: Whether to print JSON instead of a table.
        address: The Temporal server; None for Temporal's own configuration.
        namespace: The namespace; None for Temporal's own configuration.
        answered_within_s: How long a provider may take to list its sandboxes.

    Raises:
        ProviderError: A named provider cannot be used for this.
        ServerUnavailable: The Temporal server cannot be reached, or refuses.
    """
    temporal = await connect(address, namespace)
    _, found, errors = await find_all(providers, temporal, answered_within_s=answered_within_s)
    if as_json:
        report = {"sandboxes": [asdict(each) for each in found], "errors": errors}
        print_json(report)
    else:
        _print(found)
    for name, error in errors.items():
        typer.echo(f"error: {name} could not be asked: {error}", err=True)
    return int(bool(errors))


async def remove_sandbox(
    sandbox_id: str,
    *,
    providers: Sequence[str],
    force: bool,
    address: str | None,
    namespace: str | None,
) -> int:
    """Delete a sandbox, and return 0.

    Args:
        sandbox_id: Its id at the backend, as `list_sandboxes` shows it, or the beginning of it.
        providers: Where to look for it; empty for all.
        force: Whether to delete it although its workflow is open, or may be.
        address: The Temporal server; None for Temporal's own configuration.
        namespace: The namespace; None for Temporal's own configuration.

    Raises:
        InvalidRequest: It does not exist, is ambiguous, or has an open workflow.
        OperationFailed: The backend did not delete it.
        ProviderError: A named provider cannot be used for this.
        ServerUnavailable: The Temporal server cannot be reached, or refuses.
    """
    temporal = await connect(address, namespace)
    provider, sandbox = await find_sandbox(sandbox_id, providers, temporal)
    whole_id = sandbox.sandbox_id
    if sandbox.owner in ("open", "unknown") and not force:
        state = "is open" if sandbox.owner == "open" else "may be open"
        raise InvalidRequest(
            f"workflow {sandbox.workflow_id!r} of sandbox {whole_id!r} {state}, and would lose "
            f"it. Delete it all the same with --force."
        )
    try:
        async with open_client(provider) as client:
            await asyncio.wait_for(destroy(provider, client, whole_id), _DELETED_WITHIN_S)
    except asyncio.TimeoutError as error:
        raise OperationFailed(
            f"{sandbox.provider} did not delete {whole_id!r} within {_DELETED_WITHIN_S:g} s"
        ) from error
    except Exception as error:  # A plugin boundary: any error of the vendor's.
        raise OperationFailed(
            f"{sandbox.provider} did not delete {whole_id!r}: {type(error).__name__}: {error}"
        ) from error
    typer.echo(f"deleted {sandbox.provider} {whole_id}")
    return 0


async def find_sandbox(
    sandbox_id: str, providers: Sequence[str], temporal: Client
) -> tuple[Reapable, Listed]:
    """Return the sandbox with this id of the client's namespace, and its provider.

    Args:
        sandbox_id: Its id at the backend, as `list_sandboxes` shows it, or the beginning of it if
            no other sandbox's id begins so.
        providers: Where to look for it; empty for all.
        temporal: The client of its workflow's namespace.

    Raises:
        InvalidRequest: It does not exist, or is ambiguous.
        ProviderError: A named provider cannot be used for this.
        ServerUnavailable: The Temporal server does not answer, or refuses.
    """
    askable, matching, errors = await find_all(providers, temporal, beginning=sandbox_id)
    matching = [each for each in matching if each.sandbox_id == sandbox_id] or matching
    if not matching:
        unasked = "".join(f" {name} could not be asked: {why}." for name, why in errors.items())
        raise InvalidRequest(
            f"no sandbox {sandbox_id!r} is labelled with this namespace. List them: sandbox-core "
            f"ls.{unasked}"
        )
    if len({each.sandbox_id for each in matching}) > 1:
        which = ", ".join(each.sandbox_id for each in matching)
        raise InvalidRequest(f"several sandboxes begin with {sandbox_id!r}: {which}")
    if len(matching) > 1:
        where = ", ".join(each.provider for each in matching)
        raise InvalidRequest(f"{sandbox_id!r} exists at {where}: choose one with --provider")
    return askable[matching[0].provider], matching[0]


async def find_all(
    providers: Sequence[str],
    temporal: Client,
    *,
    beginning: str | None = None,
    answered_within_s: float = _ANSWERED_WITHIN_S,
) -> tuple[Mapping[str, Reapable], list[Listed], dict[str, str]]:
    """Return the providers by name, the sandboxes, and why a provider could not be queried.

    Args:
        providers: The providers to query; empty for all.
        temporal: The client of the sandboxes' namespace.
        beginning: What the id of a sandbox begins with to be returned; None for all.
        answered_within_s: How long a provider may take, in seconds.

    Raises:
        ProviderError: A named provider cannot be used for this.
        ServerUnavailable: The Temporal server does not answer, or refuses.
    """
    chosen = choose_providers(providers, LISTING)
    askable = {name: each for name, each in chosen.items() if not isinstance(each, str)}
    errors = {name: why for name, why in chosen.items() if isinstance(why, str)}
    with server_errors(temporal):
        here = await Namespace.of(temporal)
    results = await asyncio.gather(
        *(_find(each, temporal, here, beginning, answered_within_s) for each in askable.values())
    )
    found: list[Listed] = []
    for name, answer in zip(askable, results, strict=True):
        if isinstance(answer, str):
            errors[name] = answer
        else:
            found += answer
    return askable, found, errors


async def _find(
    provider: Reapable,
    temporal: Client,
    namespace: Namespace,
    beginning: str | None,
    answered_within_s: float,
) -> list[Listed] | str:
    """Return the provider's sandboxes by age, the oldest first, or why it could not be queried."""
    try:
        found = await asyncio.wait_for(_labelled(provider, namespace), answered_within_s)
    except asyncio.TimeoutError:
        return f"it did not answer within {answered_within_s:g} s"
    except Exception as error:  # noqa: BLE001 - a plugin boundary: any error of the vendor's
        return f"{type(error).__name__}: {error}"
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def listed(sandbox: LabelledSandbox) -> Listed:
        async with slots:
            return await _listed(provider, sandbox, temporal)

    # An empty one is a mistake, such as a variable that is not set.
    wanted = [
        each
        for each in found
        if beginning is None or (beginning and each.sandbox_id.startswith(beginning))
    ]
    results = await asyncio.gather(*map(listed, wanted))
    return sorted(results, key=lambda each: (-(each.age_s or 0), each.sandbox_id))


async def _labelled(provider: Reapable, namespace: Namespace) -> list[LabelledSandbox]:
    async with open_client(provider) as client:
        if not await is_honest(provider, client):
            raise OperationFailed("its find returns sandboxes with labels that no sandbox can have")
        return await find_labelled(provider, client, {names.NAMESPACE_ID: namespace.id})


async def _listed(provider: Reapable, sandbox: LabelledSandbox, temporal: Client) -> Listed:
    workflow_id = sandbox.labels.get(names.WORKFLOW_ID, "")
    run_id = sandbox.labels.get(names.RUN_ID, "")
    owner = "unknown"
    if workflow_id and run_id:
        try:
            known = await owner_of(temporal, workflow_id, run_id)
            # Labels that cannot be changed name the first owner, and there may be another one.
            closed = known.state if isinstance(provider, SupportsRelabel) else None
            owner = "open" if known.is_open else closed or "unknown"
        except RPCError as error:
            logger.warning("workflow %s: %s: %s", workflow_id, error.status.name, error)
    return Listed(
        provider=provider.name,
        sandbox_id=sandbox.sandbox_id,
        workflow_id=workflow_id,
        run_id=run_id,
        owner=owner,
        age_s=None if sandbox.created is None else seconds_since(sandbox.created),
        labels=dict(sandbox.labels),
    )


def _print(found: Sequence[Listed]) -> None:
    if not found:
        typer.echo("No sandbox is labelled with this namespace.")
        return
    table = new_table("PROVIDER", "SANDBOX", "WORKFLOW", "RUN", "OWNER", "AGE")
    for each in found:
        age = "" if each.age_s is None else format_duration(timedelta(seconds=each.age_s))
        cells = (each.provider, each.sandbox_id, each.workflow_id, each.run_id, each.owner, age)
        table.add_row(*map(Text, cells))
    print_table(table)
