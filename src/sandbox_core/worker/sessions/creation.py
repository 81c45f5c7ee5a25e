"""Creates one sandbox per request, regardless of how often the request is attempted.

A create can be repeated although it succeeded: its worker was killed, its answer was lost, or it
exceeded its timeout. So every sandbox is labelled with its request and attempt. A later attempt
destroys the sandboxes of earlier ones when it begins, and again when it ends. An attempt that
fails, is cancelled or is given up destroys its own sandbox, but none of a later attempt. Nothing is
lost: no command has run in a sandbox whose create never answered.

Without labels, the sandbox of an attempt whose worker dies is never found.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
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
"""How long an abandoned create may take before its sandbox is left to `sandbox-core reap`."""

_SOON_S = 5.0
"""How long an abandoned create may go on before the sandbox that it is making is destroyed."""

_DESTROY_S = 30.0
"""How long a backend may take to destroy a failed attempt's sandboxes before it is asked again."""

_DESTROYING_S = 300.0
"""How long a worker that is not shutting down keeps trying."""

_AGAIN_S = 1.0
"""How long to wait before the backend is asked again."""


class _Labelling(SupportsLabels[Client], SupportsDestroy[Client], SupportsIdentity, Protocol):
    """A provider whose sandboxes can be found by label, and destroyed."""

    name: str


async def make(
    call: Call,
    request: CreateSessionRequest | ResumeSessionRequest,
    opening: Callable[[Client], Awaitable[Opened]],
    *,
    known: str | None = None,
) -> Opened:
    """Open a session so that all attempts at `request` together leave at most one sandbox.

    Args:
        call: The provider and its client.
        request: The request that needs the sandbox.
        opening: Opens the session with the client that it is given.
        known: The id of the sandbox that existed before, which is kept if the attempt fails.

    Returns:
        What `opening` returned.

    Raises:
        CreateConflict: The idempotency key was already used for another request.
        Exception: Any error of `opening`.
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
    """Label a sandbox as owned by `owner`, by default the current activity's workflow."""
    if call.namespace is None or sandbox_id is None:
        return
    if not isinstance(call.provider, SupportsRelabel):
        return
    try:
        await call.provider.relabel(call.client, sandbox_id, owner_labels(call.namespace, owner))
    except Exception:  # A plugin boundary: any error of the vendor's.
        # A backend may make the replacement only when the session starts, with these labels.
        if not isinstance(call.provider, SupportsExists) or await call.provider.exists(
            call.client, sandbox_id
        ):
            raise


async def destroy_created(call: Call, idempotency_key: str) -> None:
    """Destroy the sandboxes created with this key, on whichever worker."""
    provider = _labelling(call)
    if provider is None or call.namespace is None:
        return
    if not await call.trust.check(provider, call.client):
        return
    created = {names.NAMESPACE_ID: call.namespace.id, names.KEY: idempotency_key}
    for found in await find_labelled(provider, call.client, created):
        await destroy(provider, call.client, found.sandbox_id)


def retried_key(call: Call, request: CreateSessionRequest | ResumeSessionRequest) -> str | None:
    """Return the label of what was made for `request`, if an earlier attempt may be making more."""
    if attempt() == 1 or not finds_earlier_attempts(call):
        return None
    return request_labels(request)[names.KEY]


async def destroy_others(call: Call, keys: Collection[str], *, keep: str | None) -> None:
    """Destroy what else the attempts at the calling workflow's requests have made.

    Args:
        call: The provider and its client.
        keys: The `retried_key` of each request.
        keep: The id of a sandbox that stays.
    """
    provider = _labelling(call)
    if provider is None or call.namespace is None:
        return
    if not keys or not await call.trust.check(provider, call.client):
        return
    owner = owner_labels(call.namespace)
    for key in keys:
        for found in await find_labelled(provider, call.client, {**owner, names.KEY: key}):
            if found.sandbox_id != keep:
                await destroy(provider, call.client, found.sandbox_id)


async def keys_made(call: Call) -> set[str]:
    """Return the idempotency keys of the sandboxes of this worker and its predecessors."""
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
    """The sandboxes made by the attempts at one request, up to the current one."""

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
            # The labelled client may be a new one, without the snapshots.
            offer_snapshots(client, self.snapshots)
        return client

    @property
    def key(self) -> dict[str, str]:
        """The labels by which the request's sandboxes are found."""
        return {name: self.labels[name] for name in (names.NAMESPACE_ID, names.RUN_ID, names.KEY)}

    async def destroy(self, *, keep: str | None = None) -> None:
        """Destroy the sandboxes, except `keep`.

        Raises:
            CreateConflict: One of them was made for another request with the same key.
        """
        for found in await find_labelled(self.provider, self.client, self.key):
            if found.labels.get(names.REQUEST) != self.labels[names.REQUEST]:
                raise CreateConflict.of_key(self.labels[names.KEY])
            if found.sandbox_id != keep and int(found.labels[names.ATTEMPT]) <= self.attempt:
                logger.info("destroying sandbox %s of an earlier attempt", found.sandbox_id)
                await destroy(self.provider, self.client, found.sandbox_id)

    async def destroy_quietly(self) -> None:
        """Destroy the sandboxes; log a failure. `sandbox-core reap` finds any that remain."""
        if not await finished(self._destroy_at_last(), within_s=_DESTROYING_S):
            key = self.labels[names.KEY]
            logger.warning("the sandboxes made for request %s could not be destroyed", key)

    async def _destroy_at_last(self) -> None:
        while True:
            if await self._destroyed():
                return
            await asyncio.sleep(_AGAIN_S)  # Some backends cannot delete a sandbox in creation.

    async def _destroyed(self) -> bool:
        try:
            await asyncio.wait_for(self.destroy(), _DESTROY_S)
        except CreateConflict:
            return True  # The sandbox is another request's, and the attempt fails with this error.
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
    # A directory chosen by the user is not created for the sandbox, and has no labels.
    return (request.manifest or {}).get("root", _DEFAULT_ROOT) != _DEFAULT_ROOT


def finds_earlier_attempts(call: Call) -> bool:
    """Return whether the sandboxes of earlier attempts can be found, whichever worker ran them."""
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
    """Await `opening` to its end even if the activity is cancelled: a backend finishes a create.

    Args:
        opening: Makes the sandbox.
        made: Finds the sandboxes made so far, to destroy them.
        discard: Deletes the finished session of a provider without labels.

    Raises:
        asyncio.CancelledError: The activity was cancelled.
        asyncio.TimeoutError: `opening` exceeded the start-to-close timeout.
    """
    task = asyncio.ensure_future(opening)
    try:
        await asyncio.wait({task})
        if overdue() and task.exception() is None:
            raise asyncio.TimeoutError("it took longer than its start-to-close timeout")
        return task.result()
    except (asyncio.CancelledError, asyncio.TimeoutError):
        # If the worker shuts down first, the next attempt cleans up.
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
