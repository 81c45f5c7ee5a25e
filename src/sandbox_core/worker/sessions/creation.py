"""One sandbox for one request, however often it is attempted.

A create can be repeated although it has succeeded: its worker was killed, its answer was lost, it
took longer than its timeout. So every sandbox is labelled with the request and the attempt that it
is made for. An attempt that is not the first destroys what those before it made, and looks once
more when it is done. One that fails, is cancelled or is given up destroys what it has made itself,
and nothing of a later one. Nothing has been done yet in a sandbox whose create never answered, so
nothing is lost with it.

A provider without labels gets less: what an attempt has made is lost with its worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from agents.sandbox import Manifest

from sandbox_core.errors import CreateConflict
from sandbox_core.providers import (
    SupportsDestroy,
    SupportsExists,
    SupportsIdentity,
    SupportsLabels,
    SupportsRelabel,
)
from sandbox_core.storage.snapshots import SnapshotStore, offer_snapshots
from sandbox_core.wire.messages import CreateSessionRequest, ResumeSessionRequest, WorkflowRun
from sandbox_core.worker.attempts import attempt, finished, overdue, uncancellable
from sandbox_core.worker.call import Call
from sandbox_core.worker.sessions import labels as names
from sandbox_core.worker.sessions.destroying import destroy
from sandbox_core.worker.sessions.labelling import NamedLabels, find_labelled
from sandbox_core.worker.sessions.labels import owner_labels, request_labels
from sandbox_core.worker.sessions.pool import Client
from sandbox_core.worker.sessions.resume import Opened, sandbox_identity

logger = logging.getLogger(__name__)

_DEFAULT_ROOT = Manifest().root

_ABANDONED_S = 600.0
"""How long an abandoned create may take before it is left to `sandbox-core reap`."""

_SOON_S = 5.0
"""How long a create may still take before what it has made so far is destroyed under it."""

_DESTROY_S = 30.0
"""How long a backend may take to destroy what a failed attempt has made; then it is asked again."""

_DESTROYING_S = 300.0
"""How long a worker that goes on tries to."""

_AGAIN_S = 1.0
"""How long to wait before the backend is asked again."""


class _Labelling(SupportsLabels[Client], SupportsDestroy[Client], SupportsIdentity, Protocol):
    """A provider whose sandboxes can be found again, and destroyed."""

    name: str


async def make(
    call: Call,
    request: CreateSessionRequest | ResumeSessionRequest,
    opening: Callable[[Client], Awaitable[Opened]],
    *,
    known: str | None = None,
) -> Opened:
    """Open a session so that at most one sandbox is left of all attempts at `request`.

    Args:
        call: The provider and its client.
        request: What the sandbox is made for.
        opening: Opens the session with the client that it is given.
        known: The sandbox that there was before; it is not destroyed if the attempt fails.

    Returns:
        What `opening` returned.

    Raises:
        CreateConflict: The key was used for another create before.
        Exception: What `opening` raises.
    """
    made = await _made_for(call, request)
    if made is None:

        async def discard(opened: Opened) -> None:
            sandbox_id = sandbox_identity(call.provider, opened.session.state)
            if isinstance(request, CreateSessionRequest) or sandbox_id not in (None, known):
                await call.client.delete(opened.session)

        return await _to_its_end(opening(call.client), discard=discard)
    again = made.attempt > 1
    if again:
        await made.destroy()
    try:
        opened = await _to_its_end(opening(made.labelled_client), made=made)
        sandbox_id = made.provider.identity(opened.session.state)
        if again:
            await made.destroy(keep=sandbox_id)
        elif isinstance(request, CreateSessionRequest) and not _has_own_root(request):
            await call.trust.verify(made.provider, call.client, made.key, sandbox_id)
    except BaseException:
        await uncancellable(made.destroy_quietly())
        raise
    return opened


async def claim(call: Call, sandbox_id: str | None, owner: WorkflowRun | None) -> None:
    """Make `owner`, or the workflow of the activity, the owner of a sandbox it did not make."""
    if call.namespace is None or sandbox_id is None:
        return
    if not isinstance(call.provider, SupportsRelabel):
        return
    try:
        await call.provider.relabel(call.client, sandbox_id, owner_labels(call.namespace, owner))
    except Exception:  # A plugin boundary: any error of the vendor's.
        # Some backends make another sandbox only when the session starts, with these labels.
        if not isinstance(call.provider, SupportsExists) or await call.provider.exists(
            call.client, sandbox_id
        ):
            raise


async def destroy_created(call: Call, idempotency_key: str) -> None:
    """Destroy what the creates with a key have made, whichever worker has made it."""
    provider = _labelling(call)
    if provider is None or call.namespace is None:
        return
    if not await call.trust.check(provider, call.client):
        return
    created = {names.NAMESPACE_ID: call.namespace.id, names.KEY: idempotency_key}
    for found in await find_labelled(provider, call.client, created):
        await destroy(provider, call.client, found.sandbox_id)


async def keys_made(call: Call) -> set[str]:
    """Return the keys of the sandboxes that this worker, or one in its place, has made."""
    provider = call.provider
    if (
        call.namespace is None
        or call.worker_queue is None
        or not isinstance(provider, SupportsLabels)
        or not await call.trust.check(cast("NamedLabels", provider), call.client)
    ):
        return call.pool.keys()
    of_worker = {names.NAMESPACE_ID: call.namespace.id, names.WORKER: call.worker_queue}
    found = await find_labelled(provider, call.client, of_worker)
    return {sandbox.labels[names.KEY] for sandbox in found if names.KEY in sandbox.labels}


@dataclass(frozen=True, kw_only=True)
class _Made:
    """The sandboxes that the attempts at one request have made, up to the current one."""

    provider: _Labelling
    client: Client
    labels: Mapping[str, str]
    attempt: int

    snapshots: SnapshotStore | None = None

    @property
    def labelled_client(self) -> Client:
        labels = {**self.labels, names.ATTEMPT: str(self.attempt)}
        client = self.provider.labelled(self.client, labels)
        if client is not self.client and self.snapshots is not None:
            # It need not be a copy, which would have them.
            offer_snapshots(client, self.snapshots)
        return client

    @property
    def key(self) -> dict[str, str]:
        """The labels that what was made for the request is found by."""
        return {name: self.labels[name] for name in (names.NAMESPACE_ID, names.RUN_ID, names.KEY)}

    async def destroy(self, *, keep: str | None = None) -> None:
        """Destroy them, except one.

        Raises:
            CreateConflict: One was made for another request with the same key.
        """
        for found in await find_labelled(self.provider, self.client, self.key):
            if found.labels.get(names.REQUEST) != self.labels[names.REQUEST]:
                raise CreateConflict.of_key(self.labels[names.KEY])
            if found.sandbox_id != keep and int(found.labels[names.ATTEMPT]) <= self.attempt:
                logger.info("destroying sandbox %s of an earlier attempt", found.sandbox_id)
                await destroy(self.provider, self.client, found.sandbox_id)

    async def destroy_quietly(self) -> None:
        """Destroy them; `sandbox-core reap` finds the rest once the workflow is closed."""
        if not await finished(self._destroy_at_last(), within_s=_DESTROYING_S):
            key = self.labels[names.KEY]
            logger.warning("the sandboxes made for request %s could not be destroyed", key)

    async def _destroy_at_last(self) -> None:
        while True:
            if await self._destroyed():
                return
            await asyncio.sleep(_AGAIN_S)  # Some backends delete nothing that is still being made.

    async def _destroyed(self) -> bool:
        try:
            await asyncio.wait_for(self.destroy(), _DESTROY_S)
        except CreateConflict:
            return True  # It is the error that is being reported, and the sandbox is another's.
        except Exception as error:  # noqa: BLE001 - a provider's; the first error counts
            logger.info("a sandbox could not be destroyed yet: %s", error)
            return False
        return True


async def _made_for(
    call: Call, request: CreateSessionRequest | ResumeSessionRequest
) -> _Made | None:
    provider = _labelling(call)
    if provider is None or call.namespace is None:
        return None
    if not await call.trust.check(provider, call.client):
        return None
    owner = request.owner if isinstance(request, ResumeSessionRequest) else None
    labels = {**owner_labels(call.namespace, owner), **request_labels(request)}
    if call.worker_queue is not None:
        labels[names.WORKER] = call.worker_queue
    return _Made(
        provider=provider,
        client=call.client,
        labels=labels,
        attempt=attempt(),
        snapshots=call.snapshots,
    )


def _has_own_root(request: CreateSessionRequest) -> bool:
    # A directory of the user's own is not made for the sandbox, and has no labels.
    return (request.manifest or {}).get("root", _DEFAULT_ROOT) != _DEFAULT_ROOT


def finds_earlier_attempts(call: Call) -> bool:
    """Return whether the sandboxes of a create's earlier attempts are found, wherever they ran."""
    return call.namespace is not None and _labelling(call) is not None


def _labelling(call: Call) -> _Labelling | None:
    able = (SupportsLabels, SupportsDestroy, SupportsIdentity)
    found = all(isinstance(call.provider, ability) for ability in able)
    return cast("_Labelling", call.provider) if found and not call.trust.lost else None


async def _to_its_end(
    opening: Awaitable[Opened],
    *,
    made: _Made | None = None,
    discard: Callable[[Opened], Awaitable[None]] | None = None,
) -> Opened:
    """Await `opening`, also if nobody waits for it any more: a backend does not take back a create.

    Args:
        opening: Makes the sandbox.
        made: Finds what it has made so far.
        discard: Deletes what it has made at last, if there is nothing to find it by.

    Raises:
        asyncio.CancelledError: The activity was cancelled.
        asyncio.TimeoutError: It took longer than Temporal waits.
    """
    task = asyncio.ensure_future(opening)
    try:
        await asyncio.wait({task})
        if overdue() and task.exception() is None:
            raise asyncio.TimeoutError("it took longer than its start-to-close timeout")
        return task.result()
    except (asyncio.CancelledError, asyncio.TimeoutError):
        # What a worker that shuts down leaves of it is for the next attempt.
        await uncancellable(finished(_abandon(task, made, discard), within_s=_ABANDONED_S))
        raise


async def _abandon(
    task: asyncio.Task[Opened],
    made: _Made | None,
    discard: Callable[[Opened], Awaitable[None]] | None,
) -> None:
    try:
        await asyncio.wait({task}, timeout=_SOON_S)
        if not task.done() and made is not None:
            await made.destroy_quietly()
        await asyncio.wait({task})
        if discard is not None and not task.cancelled() and task.exception() is None:
            await discard(task.result())
    finally:
        task.cancel()
