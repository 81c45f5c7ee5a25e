"""Finds the sandboxes whose workflows are closed, and deletes them.

Only sandboxes labelled with this namespace's id are considered. In doubt, a sandbox is kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Protocol, cast

from temporalio.client import Client as TemporalClient
from temporalio.service import RPCError

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import (
    LabelledSandbox,
    SupportsDestroy,
    SupportsLabels,
    SupportsRelabel,
)
from sandbox_core.providers.activation import CreatesClient
from sandbox_core.providers.registry import Provider
from sandbox_core.wire.messages import Reaped, ReapRequest, ReapResponse
from sandbox_core.worker.reaping.owners import Owner, owner_of
from sandbox_core.worker.sessions import labels as names
from sandbox_core.worker.sessions.destroying import destroy
from sandbox_core.worker.sessions.labelling import find_labelled, is_honest
from sandbox_core.worker.sessions.labels import Namespace
from sandbox_core.worker.sessions.pool import Client

logger = logging.getLogger(__name__)

_CONCURRENCY = 8
_DELETED_WITHIN = timedelta(seconds=60)
_LOOK_AGAIN_S = 1.0
_REASON_CHARS = 300


NEEDED = "label sandboxes, change their labels and destroy them by their id"
"""The abilities that a provider needs, for messages."""


class Reapable(CreatesClient, SupportsLabels[Client], SupportsDestroy[Client], Protocol):
    """A provider whose sandboxes can be found by owner, and destroyed."""


def as_reapable(provider: Provider) -> Reapable | None:
    """Return the provider if it has the abilities that finding and deleting orphans needs."""
    # Labels that cannot be changed name a sandbox's first owner, not the one that took it over.
    able = (SupportsLabels, SupportsRelabel, SupportsDestroy)
    found = all(isinstance(provider, ability) for ability in able)
    return cast("Reapable", provider) if found else None


async def reap(
    provider: Reapable,
    client: Client,
    temporal: TemporalClient,
    namespace: Namespace,
    request: ReapRequest,
    *,
    deleted_within: timedelta = _DELETED_WITHIN,
) -> ReapResponse:
    """Find the orphans of one provider and, if `request` says so, delete them.

    The response has the outcome of each sandbox, including errors.

    Args:
        provider: The provider.
        client: The provider's client.
        temporal: The client that is asked about the owners.
        namespace: The namespace of `temporal`; sandboxes of others are ignored.
        request: Which orphans to find, and whether to delete them.
        deleted_within: How long one deletion may take.

    Raises:
        InvalidRequest: The provider's `find` cannot be trusted.
        Exception: The backend did not list its sandboxes.
    """
    reaping = _Reaping(
        provider=provider,
        client=client,
        temporal=temporal,
        namespace=namespace,
        request=request,
        deleted_within=deleted_within,
    )
    return await reaping.run()


@dataclass(frozen=True, kw_only=True)
class _Reaping:
    provider: Reapable
    client: Client
    temporal: TemporalClient
    namespace: Namespace
    request: ReapRequest
    deleted_within: timedelta

    async def run(self) -> ReapResponse:
        if not await is_honest(self.provider, self.client):
            raise InvalidRequest(
                f"provider {self.provider.name!r} finds sandboxes with labels that no sandbox can "
                f"have. Their owners cannot be determined, so none is deleted. Its find must "
                f"return the labels stored at the backend."
            )
        found = await self._find({})
        slots = asyncio.Semaphore(_CONCURRENCY)

        async def bounded(sandbox: LabelledSandbox) -> Reaped | Owner:
            async with slots:
                return await self._reap(sandbox)

        by_id = sorted(found, key=lambda sandbox: sandbox.sandbox_id)
        results = await asyncio.gather(*map(bounded, by_id))
        spared = [result for result in results if isinstance(result, Owner)]
        living = sum(owner.is_open for owner in spared)
        return ReapResponse(
            sandboxes=tuple(result for result in results if isinstance(result, Reaped)),
            living=living,
            recent=len(spared) - living,
        )

    async def _find(self, labels: Mapping[str, str]) -> Sequence[LabelledSandbox]:
        wanted = {names.NAMESPACE_ID: self.namespace.id, **labels}
        return await find_labelled(self.provider, self.client, wanted)

    async def _reap(self, sandbox: LabelledSandbox) -> Reaped | Owner:
        """Return a sandbox's outcome, or the owner because of which it is not an orphan."""
        if not (sandbox.labels.get(names.WORKFLOW_ID) and sandbox.labels.get(names.RUN_ID)):
            return _reaped(sandbox, Owner(), "kept", "its labels do not name its workflow")
        try:
            owner = await self._owner_of(sandbox)
        except RPCError as error:
            unanswered = f"the state of its workflow is unknown: {_text(error)}"
            return _reaped(sandbox, Owner(), "failed", unanswered)
        if owner.doubt:
            return _reaped(sandbox, owner, "kept", owner.doubt)
        if owner.is_open:
            return owner
        since = owner.closed or sandbox.created
        if since is not None and seconds_since(since) < self.request.older_than_s:
            return owner
        if since is None and self.request.older_than_s > 0:
            unknown = (
                "it is unknown since when it is an orphan: it is deleted only with an age of 0"
            )
            return _reaped(sandbox, owner, "kept", unknown)
        if not self.request.delete:
            return _reaped(sandbox, owner, "orphan")
        try:
            kept = await self._delete(sandbox)
        except Exception as error:  # A plugin boundary: any error of the vendor's.
            logger.info("sandbox %s could not be deleted", sandbox.sandbox_id, exc_info=error)
            return _reaped(sandbox, owner, "failed", _text(error))
        return _reaped(sandbox, owner, "kept" if kept else "deleted", kept)

    async def _delete(self, sandbox: LabelledSandbox) -> str:
        """Delete a sandbox if it still is an orphan; otherwise return why it is not."""
        labels = {name: sandbox.labels[name] for name in (names.WORKFLOW_ID, names.RUN_ID)}
        with_labels = await self._find(labels)
        if sandbox.sandbox_id not in {found.sandbox_id for found in with_labels}:
            return "it is gone or has a new owner"
        owner = await self._owner_of(sandbox)
        if owner.is_open or owner.doubt:
            return owner.doubt or "its workflow is open again"
        allowed = self.deleted_within.total_seconds()
        deleting = destroy(self.provider, self.client, sandbox.sandbox_id)
        try:
            await asyncio.wait_for(deleting, allowed)
        except asyncio.TimeoutError as error:
            raise TimeoutError(f"it took longer than {allowed:g} s") from error
        await self._look_again(sandbox, labels)
        return ""

    async def _look_again(self, sandbox: LabelledSandbox, labels: Mapping[str, str]) -> None:
        """Wait until the sandbox is no longer found; some backends take a while to delete.

        Raises:
            RuntimeError: It still exists after the allowed time.
        """
        allowed = self.deleted_within.total_seconds()
        give_up = time.monotonic() + allowed
        while sandbox.sandbox_id in {found.sandbox_id for found in await self._find(labels)}:
            if time.monotonic() >= give_up:
                raise RuntimeError(f"it was destroyed but still exists after {allowed:g} s")
            await asyncio.sleep(min(_LOOK_AGAIN_S, allowed))

    async def _owner_of(self, sandbox: LabelledSandbox) -> Owner:
        workflow_id, run_id = sandbox.labels[names.WORKFLOW_ID], sandbox.labels[names.RUN_ID]
        return await owner_of(self.temporal, workflow_id, run_id)


def _reaped(sandbox: LabelledSandbox, owner: Owner, outcome: str, reason: str = "") -> Reaped:
    return Reaped(
        sandbox_id=sandbox.sandbox_id,
        workflow_id=sandbox.labels.get(names.WORKFLOW_ID, ""),
        run_id=sandbox.labels.get(names.RUN_ID, ""),
        owner=owner.state,
        closed_s=None if owner.closed is None else seconds_since(owner.closed),
        age_s=None if sandbox.created is None else seconds_since(sandbox.created),
        outcome=outcome,
        reason=reason,
    )


def seconds_since(moment: datetime) -> float:
    """Return the seconds since a moment, 0 for one in the future."""
    return max(0.0, (datetime.now(timezone.utc) - moment).total_seconds())


def _text(error: Exception) -> str:
    kind = error.status.name if isinstance(error, RPCError) else type(error).__name__
    line = " ".join(f"{kind}: {error}".split()).rstrip(": ")
    return line if len(line) <= _REASON_CHARS else f"{line[: _REASON_CHARS - 1]}\u2026"
