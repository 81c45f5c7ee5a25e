"""The SDK's Cloudflare client for one bridge, with errors for failures that the SDK's ignores."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp
from agents.extensions.sandbox.cloudflare import (
    CloudflareSandboxClient,
    CloudflareSandboxClientOptions,
    CloudflareSandboxSessionState,
)
from agents.sandbox import Manifest
from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot, SnapshotBase, SnapshotSpec

from sandbox_cloudflare.session import ContainerGone, GuardedCloudflareSandboxSession
from sandbox_core.errors import AtCapacity, InvalidOptions, InvalidRequest
from sandbox_core.providers import retry_after_where_raised

_UNBOUNDED_S = 24 * 60 * 60
"""How many seconds a command without a timeout may run; the SDK's client allows 30."""

_REQUEST_S = 120
_FULL = "capacity_exceeded"
_TRANSIENT = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
)


class RefusedByCloudflare(Exception):
    """The bridge answered with an error."""

    def __init__(self, request: str, status: int, body: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"{request} failed: HTTP {status}: {body[:1000]}")
        self.status = status
        self.headers = headers


class StrictCloudflareSandboxClient(CloudflareSandboxClient):
    """The SDK's client for one bridge, whose key is never sent elsewhere."""

    def __init__(self, *, url: str, api_key: str) -> None:
        """Create a client.

        Args:
            url: The address of the bridge.
            api_key: The bridge's ``SANDBOX_API_KEY``.
        """
        super().__init__(exec_timeout_s=_UNBOUNDED_S)
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"}

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: CloudflareSandboxClientOptions,
    ) -> SandboxSession:
        """Create a sandbox, and start its container.

        Raises:
            AtCapacity: The bridge's ``max_instances`` is reached.
            InvalidOptions: The options contain a key, or name another bridge.
            SandboxError: The bridge did not create it.
        """
        if options.api_key is not None:
            raise InvalidOptions(
                "options with api_key are recorded in the workflow's history: put the key into "
                "CLOUDFLARE_SANDBOX_API_KEY in the worker's environment"
            )
        if options.worker_url.rstrip("/") != self._url:
            raise InvalidOptions(
                f"options name the bridge {options.worker_url!r}, and this worker's "
                f"CLOUDFLARE_SANDBOX_WORKER_URL another: its key is not sent there"
            )
        try:
            session = await super().create(snapshot=snapshot, manifest=manifest, options=options)
        except SandboxError as error:
            raise _classified(error) from error.__cause__
        # So far, the bridge has only chosen an id.
        try:
            await self._guarded(session).mark()
        except SandboxError as error:
            await self.delete(session)
            raise _classified(error) from error.__cause__
        except asyncio.CancelledError:
            await self.delete(session)
            raise
        return session

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Open the sandbox of `state`, or a new one if its container is gone.

        Raises:
            InvalidRequest: The sandbox is another bridge's.
            RefusedByCloudflare: The bridge did not say whether the container is running.
        """
        if not isinstance(state, CloudflareSandboxSessionState):
            return await super().resume(state)
        if state.worker_url.rstrip("/") != self._url:
            raise InvalidRequest(
                f"the session belongs to the bridge {state.worker_url!r}, and this worker's "
                f"CLOUDFLARE_SANDBOX_WORKER_URL names another"
            )
        # The SDK's client treats every failure as "no", and any container as the session's.
        if await self.exists(state.sandbox_id):
            session = await super().resume(state)
            self._guarded(session)
            return session
        made = await self.create(
            manifest=state.manifest,
            options=CloudflareSandboxClientOptions(worker_url=self._url),
        )
        assert isinstance(made.state, CloudflareSandboxSessionState)
        state.sandbox_id, state.workspace_root_ready = made.state.sandbox_id, False
        session = await super().resume(state)
        self._guarded(session)._set_start_state_preserved(False)
        return session

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete the session's sandbox.

        Raises:
            RefusedByCloudflare: The bridge did not delete it.
        """
        deleted = await super().delete(session)
        # The SDK's client only logs errors, at debug level.
        if isinstance(session.state, CloudflareSandboxSessionState):
            await self.destroy(session.state.sandbox_id)
        return deleted

    async def exists(self, sandbox_id: str) -> bool:
        """Return whether the sandbox's original container is running.

        Raises:
            RefusedByCloudflare: The bridge did not say.
            SandboxError: The container did not run a command.
        """
        answer = await self._ask("GET", f"/v1/sandbox/{sandbox_id}/running")
        if not isinstance(answer, dict) or not answer.get("running"):
            return False
        # Earlier versions of the bridge start a container in order to answer.
        state = CloudflareSandboxSessionState(
            manifest=Manifest(),
            snapshot=NoopSnapshot(id=sandbox_id),
            worker_url=self._url,
            sandbox_id=sandbox_id,
        )
        session = GuardedCloudflareSandboxSession.from_state(state, exec_timeout_s=_REQUEST_S)
        try:
            await session._exec_internal("true")
        except ContainerGone:
            await self.destroy(sandbox_id)
            return False
        except SandboxError as error:
            raise _classified(error) from error.__cause__
        finally:
            await session._close_http()
        return True

    def _guarded(self, session: SandboxSession) -> GuardedCloudflareSandboxSession:
        """Make a session of the SDK's client notice that its container was replaced."""
        # The SDK's client does not let the class of its sessions be chosen.
        session._inner.__class__ = GuardedCloudflareSandboxSession
        assert isinstance(session._inner, GuardedCloudflareSandboxSession)
        return session._inner

    async def destroy(self, sandbox_id: str) -> None:
        """Delete the sandbox, if it exists."""
        await self._ask("DELETE", f"/v1/sandbox/{sandbox_id}")

    async def check(self) -> None:
        """Check that the bridge answers and accepts the key."""
        await self._ask("GET", "/v1/pool/stats")

    async def _ask(self, method: str, path: str) -> object:
        """Return the JSON of an answer; None if it has none, or if nothing was found.

        Raises:
            RefusedByCloudflare: The bridge answered with an error.
            aiohttp.ClientError: The bridge did not answer.
        """
        timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
        async with (
            aiohttp.ClientSession(headers=self._headers, timeout=timeout) as http,
            http.request(method, f"{self._url}{path}") as answer,
        ):
            if answer.status == HTTPStatus.NOT_FOUND:
                return None
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise RefusedByCloudflare(
                    f"{method} {path}", answer.status, await answer.text(), answer.headers
                )
            return None if answer.status == HTTPStatus.NO_CONTENT else await answer.json()


def _classified(error: SandboxError) -> Exception:
    """Return the error with the information whether and when to retry, which the SDK's lacks."""
    wait = retry_after_where_raised(error)
    if _FULL in str(error.context.get("provider_error")):
        return AtCapacity(
            f"provider 'cloudflare' has no room for another sandbox: {error.message}. Raise "
            f"max_instances of the bridge",
            retry_after=wait,
        )
    if wait is not None:
        error.retry_after = wait.total_seconds()  # type: ignore[attr-defined]  # for the worker
    status = error.context.get("http_status")
    if isinstance(status, int):
        error.retryable = status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    elif isinstance(error.__cause__, aiohttp.ClientError):
        error.retryable = True
    return error
