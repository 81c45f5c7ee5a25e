"""Operations in a sandbox of somebody else's, at whichever worker holds it."""

from __future__ import annotations

import asyncio
import uuid
from typing import TypeVar

from temporalio.client import Client

from sandbox_core.cli.access.holder import Holder, Where, find_holder
from sandbox_core.cli.access.standalone import Unanswered, perform
from sandbox_core.cli.sandboxes import Listed
from sandbox_core.errors import OutcomeUnknown, SandboxLost, SessionNotOpen
from sandbox_core.wire import messages as m
from sandbox_core.wire.operations import Operation, ResponseT
from sandbox_core.wire.summaries import summarize

OWN_PREFIX = "sandbox-core-"
"""Begins the operation ids of the commands that are run here."""

_MOVED_WITHIN_S = 30.0
"""How long to wait until the workflow has opened its session on another worker."""

_MOVES = 20
"""How often one operation follows the session, as many times as a workflow resumes it for one."""

_AGAIN_S = 1.0

_SessionRequestT = TypeVar("_SessionRequestT", bound=m.SessionRequest)


class Visit:
    """The session of a sandbox's owner, in which operations are carried out without becoming one.

    The owner may open its session again at any time, on this or another worker; the operation is
    then repeated there. A command keeps its idempotency key, and so is not run twice.
    """

    def __init__(self, client: Client, sandbox: Listed, holder: Holder) -> None:
        self._client = client
        self._sandbox = sandbox
        self._holder = holder

    @classmethod
    async def begin(cls, sandbox_id: str, where: Where) -> Visit:
        """Find a sandbox, and the worker that holds it.

        Raises:
            InvalidRequest: The sandbox does not exist, or is ambiguous.
            ProviderError: A named provider cannot be used for this.
            SandboxLost: No worker holds it.
            ServerUnavailable: The server does not answer, or does not run standalone activities.
        """
        client, sandbox = await where.find(sandbox_id)
        return cls(client, sandbox, await find_holder(client, sandbox))

    @property
    def session(self) -> m.SessionRef:
        """The session, for the next request."""
        return self._holder.session

    @property
    def supports_pty(self) -> bool:
        """Whether its backend has terminals."""
        return self._holder.inspected.supports_pty

    async def perform(
        self,
        operation: Operation[_SessionRequestT, ResponseT],
        request: _SessionRequestT,
        body: bytes | None = None,
    ) -> ResponseT:
        """Carry out one operation, and return its response.

        Raises:
            OutcomeUnknown: A command may have run, and no worker holds its sandbox any more.
            SandboxLost: No worker holds the sandbox any more; nothing was carried out.
            SandboxError: Raised on the worker; keeps its class.
            SandboxCoreError: See `sandbox_core.errors`.
            ServerUnavailable: The server does not answer, or refuses.
        """
        for _ in range(_MOVES):
            try:
                return await self._perform(operation, request, body)
            except SessionNotOpen as error:
                request = _repeated(request, began=error.has_earlier_attempt)
            except Unanswered as error:
                request = _repeated(request, began=error.began)
            self._holder = await self._found_again(request)
        return await self._perform(operation, request, body)

    async def _perform(
        self,
        operation: Operation[_SessionRequestT, ResponseT],
        request: _SessionRequestT,
        body: bytes | None,
    ) -> ResponseT:
        provider, queue = self._sandbox.provider, self._holder.queue
        current = request.model_copy(update={"session": self.session})
        return await perform(self._client, provider, operation, current, body, queue=queue)

    async def _found_again(self, request: m.SessionRequest) -> Holder:
        deadline = _now() + _MOVED_WITHIN_S  # A command may have run for hours before.
        while True:
            holder = await self._found(request, at_last=_now() >= deadline)
            if holder is not None:
                return holder
            await asyncio.sleep(_AGAIN_S)  # Nothing tells of it.

    async def _found(self, request: m.SessionRequest, *, at_last: bool) -> Holder | None:
        try:
            return await find_holder(self._client, self._sandbox)
        except SandboxLost as lost:
            if not at_last:
                return None
            if not (isinstance(request, m.KeyedRequest) and request.repeated):
                raise
            raise OutcomeUnknown(
                f"{summarize(request.summary())!r} may have run, and may still be running: "
                f"{lost.message}"
            ) from lost


def own_id() -> str:
    """Return the operation id of a command that is run here."""
    return f"{OWN_PREFIX}{uuid.uuid4().hex}"


def _now() -> float:
    return asyncio.get_running_loop().time()


def _repeated(request: _SessionRequestT, *, began: bool) -> _SessionRequestT:
    if began and isinstance(request, m.KeyedRequest):
        return request.model_copy(update={"repeated": True})
    return request
