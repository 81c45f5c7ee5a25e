"""The SDK's E2B client, with labels on its sandboxes, and an error for every failure."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from agents.extensions.sandbox.e2b import (
    E2BSandboxClient,
    E2BSandboxClientOptions,
    E2BSandboxSession,
    E2BSandboxSessionState,
)
from agents.sandbox import Manifest
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from e2b import (
    AsyncSandbox,
    AuthenticationException,
    NotFoundException,
    RateLimitException,
    SandboxException,
    SandboxQuery,
)

from sandbox_core.errors import AtCapacity
from sandbox_core.providers import LabelledSandbox, LabellingClient, retry_after_where_raised


class RefusedByE2B(Exception):
    """E2B's error, with the HTTP status, which E2B's SDK puts only into the text.

    It also has the ``Retry-After``, which the SDK drops.
    """

    def __init__(self, error: Exception, status: int) -> None:
        super().__init__(str(error))
        self.status = status
        wait = retry_after_where_raised(error)
        self.retry_after = None if wait is None else wait.total_seconds()


@contextmanager
def refusals() -> Iterator[None]:
    """Translate E2B's errors into ones that say whether to retry.

    Raises:
        AtCapacity: The team's limit on running sandboxes is reached.
        RefusedByE2B: Any other answer with a status.
    """
    try:
        yield
    except RateLimitException as error:
        if "concurrent" not in str(error):
            raise RefusedByE2B(error, 429) from error
        raise AtCapacity(
            f"provider 'e2b' has no room for another sandbox: {error}",
            retry_after=retry_after_where_raised(error),
        ) from error
    except AuthenticationException as error:
        raise RefusedByE2B(error, 401) from error
    except SandboxException as error:
        status = re.match(r"(\d{3}): ", str(error))
        if status is None:
            raise
        raise RefusedByE2B(error, int(status[1])) from error


async def exists(sandbox_id: str) -> bool:
    """Return whether E2B has the sandbox, running or paused."""
    with refusals():
        try:
            await AsyncSandbox.get_info(sandbox_id)
        except NotFoundException:
            return False
        return True


async def kill(sandbox_id: str) -> None:
    """Kill the sandbox, if it exists."""
    with refusals():
        await AsyncSandbox.kill(sandbox_id)


async def find(labels: Mapping[str, str]) -> list[LabelledSandbox]:
    """Return the sandboxes with all of these labels, running or paused."""
    found: list[LabelledSandbox] = []
    with refusals():
        pages = AsyncSandbox.list(SandboxQuery(metadata=dict(labels)))
        while pages.has_next:
            found += [
                LabelledSandbox(
                    sandbox_id=each.sandbox_id, labels=each.metadata, created=each.started_at
                )
                for each in await pages.next_items()
            ]
    return found


async def check() -> None:
    """Check that E2B answers and accepts the key."""
    with refusals():
        await AsyncSandbox.list(limit=1).next_items()


@contextmanager
def _metadata(state: E2BSandboxSessionState, labels: Mapping[str, str]) -> Iterator[None]:
    """Add labels to the sandboxes that the SDK creates from a state, without storing them in it."""
    own = state.metadata
    if labels:
        state.metadata = {**(own or {}), **labels}
    try:
        yield
    finally:
        state.metadata = own


class LabelledE2BSandboxSession(E2BSandboxSession):
    """The SDK's session, with labels on the sandbox that it may create from E2B's snapshot."""

    labels: Mapping[str, str] = MappingProxyType({})
    """The labels of that sandbox; set by the client."""

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Restore the workspace, possibly in a new sandbox."""
        with _metadata(self.state, self.labels):
            await super().hydrate_workspace(data)


class StrictE2BSandboxClient(LabellingClient, E2BSandboxClient):
    """The SDK's client, but with errors for failures that the SDK's ignores."""

    def _wrap_session(
        self, inner: BaseSandboxSession, *, instrumentation: Instrumentation | None = None
    ) -> SandboxSession:
        if isinstance(inner, E2BSandboxSession):
            taken = LabelledE2BSandboxSession.from_state(inner.state, sandbox=inner._sandbox)
            vars(taken).update(vars(inner))
            assert isinstance(taken, LabelledE2BSandboxSession)
            taken.labels, inner = self._labels, taken
        return super()._wrap_session(inner, instrumentation=instrumentation)

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: E2BSandboxClientOptions,
    ) -> SandboxSession:
        """Create a sandbox.

        Raises:
            AtCapacity: The team's limit on running sandboxes is reached.
            RefusedByE2B: E2B did not create it.
        """
        metadata = {**(options.metadata or {}), **self._labels} or None
        labelled = options.model_copy(update={"metadata": metadata})
        with refusals():
            session = await super().create(snapshot=snapshot, manifest=manifest, options=labelled)
        if isinstance(session.state, E2BSandboxSessionState):
            session.state.metadata = options.metadata
        return session

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Open the sandbox of `state`, or a new one if E2B no longer has it.

        Raises:
            ConnectionError: E2B has the sandbox but did not connect.
            RefusedByE2B: E2B did not say whether it has the sandbox.
        """
        if not isinstance(state, E2BSandboxSessionState):
            return await super().resume(state)
        asked = state.sandbox_id
        with refusals(), _metadata(state, self._labels):
            session = await super().resume(state)
        # The SDK's client creates another one on any error, even a temporary one.
        if state.sandbox_id != asked:
            try:
                if await exists(asked):
                    raise ConnectionError(f"E2B has sandbox {asked}, but did not connect to it")
            except BaseException:
                await kill(state.sandbox_id)
                raise
        return session

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Kill the session's sandbox, unless its options pause it.

        Raises:
            RefusedByE2B: E2B did not kill it.
        """
        deleted = await super().delete(session)
        # The SDK's client calls `shutdown`, which ignores errors.
        state = session.state
        if isinstance(state, E2BSandboxSessionState) and not state.pause_on_exit:
            await kill(state.sandbox_id)
        return deleted
