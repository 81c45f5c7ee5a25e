"""Performs the activities of the OpenAI plugin's own sandboxes, for workflows that began with them.

A workflow that began with the `temporal_sandbox_client` of ``temporalio.openai_agents`` schedules
these activities until it ends. A provider of sandbox-core performs them here like the plugin's own
`SandboxClientProvider`, which is then no longer needed. Names, arguments and results are the
plugin's; they are handled as JSON, so that the plugin need not be installed.
"""

from __future__ import annotations

import asyncio
import io
import logging
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from agents.sandbox import Manifest
from agents.sandbox.errors import ExecTimeoutError, SandboxError
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.types import User
from temporalio import activity
from temporalio.exceptions import ApplicationError

from sandbox_core.errors import SandboxCoreError
from sandbox_core.wire.agents_models import load_options, load_snapshot
from sandbox_core.worker.call import Call
from sandbox_core.worker.metrics import ProviderMetrics
from sandbox_core.worker.observation import observed
from sandbox_core.worker.secrets import Allowed, Secrets, knowing_secrets
from sandbox_core.worker.sessions.resume import exists, restart, resume, start

logger = logging.getLogger(__name__)

# The plugin's pydantic models as JSON.
Peer: TypeAlias = dict[str, Any]
PeerActivity: TypeAlias = Callable[[Peer], Awaitable[Peer | None]]

_THEIR_WORKER_ENV, _OUR_WORKER_ENV = "temporal.worker_env_value", "sandbox_core.worker_env"


class PeerSessions:
    """One worker's sandboxes of the plugin's workflows that use one provider name.

    Args:
        name: The name in these workflows.
        open_call: Returns the context, or raises the error that makes the provider unusable.
        worker_env: The variables of this worker's environment that manifests may read.
        provider: The provider's name, in metrics.
        metrics: Returns the metrics that record the operations, under the plugin's names.
    """

    def __init__(
        self,
        name: str,
        open_call: Callable[[], Call],
        worker_env: Allowed,
        *,
        provider: str,
        metrics: Callable[[], ProviderMetrics],
    ) -> None:
        self._name = name
        self._provider = provider
        self._metrics = metrics
        self._open_call = open_call
        self._worker_env = worker_env
        self._sessions: dict[str, SandboxSession] = {}
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: MutableMapping[str, asyncio.Lock] = WeakValueDictionary()

    def activities(self) -> list[PeerActivity]:
        """Return the activities, with their names in histories."""
        operations = {
            "client_create": self._create,
            "client_resume": self._resume,
            "client_delete": self._delete,
            "session_exec": self._exec,
            "session_read": self._read,
            "session_write": self._write,
            "session_running": self._running,
            "session_persist_workspace": self._persist_workspace,
            "session_hydrate_workspace": self._hydrate_workspace,
            "session_pty_exec_start": self._pty_exec_start,
            "session_pty_write_stdin": self._pty_write_stdin,
            "session_start": self._start,
            "session_stop": self._stop,
            "session_shutdown": self._shutdown,
        }
        return [self._activity(operation, run) for operation, run in operations.items()]

    def _activity(
        self, operation: str, perform: Callable[[Peer, Secrets], Awaitable[Peer | None]]
    ) -> PeerActivity:
        async def run(args: dict[str, Any]) -> Peer | None:
            with (
                observed(self._metrics(), self._provider, operation, b""),
                knowing_secrets(self._worker_env) as secrets,
            ):
                try:
                    return await perform(args, secrets)
                except SandboxError as error:
                    is_answer = isinstance(error, ExecTimeoutError)
                    level = logging.DEBUG if is_answer else logging.WARNING
                    logger.log(level, "%s of %r failed", operation, self._name, exc_info=error)
                    # The plugin's workflows recognize these by their code, as the failure's type.
                    raise ApplicationError(
                        secrets.redact_output(str(error)),
                        type=str(error.error_code),
                        non_retryable=error.retryable is False,
                    ) from None
                except Exception as error:
                    # A plugin boundary. The cause may contain what must not enter a history.
                    logger.warning("%s of %r failed", operation, self._name, exc_info=error)
                    raise ApplicationError(
                        secrets.redact_output(str(error)),
                        type=type(error).__name__,
                        non_retryable=isinstance(error, SandboxCoreError) and error.non_retryable,
                    ) from None

        return activity.defn(name=f"{self._name}-sandbox_{operation}")(run)

    # --- Clients --------------------------------------------------------------------------------

    async def _create(self, args: Peer, secrets: Secrets) -> Peer:
        call = self._open_call()
        manifest = None
        if args.get("manifest") is not None:
            manifest = Manifest.model_validate(_renamed(args["manifest"], _THEIR_WORKER_ENV))
            await secrets.learn(manifest)
        snapshot, options = args.get("snapshot_spec"), args.get("client_options")
        session = await call.client.create(
            snapshot=None if snapshot is None else load_snapshot(snapshot),
            manifest=manifest,
            options=call.provider.default_options() if options is None else load_options(options),
        )
        return self._opened(session)

    async def _resume(self, args: Peer, secrets: Secrets) -> Peer:
        state = _state(args)
        await secrets.learn(state.manifest)
        async with self._opening(str(state.session_id)):
            return self._opened(await self._open_call().client.resume(state))

    def _opening(self, session_id: str) -> asyncio.Lock:
        return self._locks.setdefault(session_id, asyncio.Lock())

    def _opened(self, session: SandboxSession) -> Peer:
        self._sessions[str(session.state.session_id)] = session
        state = _renamed(session.state.model_dump(mode="json"), _OUR_WORKER_ENV)
        return {"state": state, "supports_pty": session.supports_pty()}

    async def _delete(self, args: Peer, secrets: Secrets) -> None:
        call, state = self._open_call(), _state(args)
        if await exists(call.provider, call.client, state) is not False:
            await call.client.delete(await self._session(args, secrets))
        self._sessions.pop(str(state.session_id), None)

    async def _session(self, args: Peer, secrets: Secrets) -> SandboxSession:
        """Return the session; if this worker does not hold it, resume it, one caller at a time."""
        state = _state(args)
        await secrets.learn(state.manifest)
        key = str(state.session_id)
        async with self._opening(key):
            if key not in self._sessions:
                self._sessions[key] = await _open_again(self._open_call(), state)
            return self._sessions[key]

    # --- Sessions -------------------------------------------------------------------------------

    async def _exec(self, args: Peer, secrets: Secrets) -> Peer:
        session = await self._session(args, secrets)
        ran = await session.exec(
            *args["command"],
            timeout=args.get("timeout"),
            shell=args.get("shell", True),
            user=_user(args),
        )
        return {
            "stdout": _text(secrets.redact_output(ran.stdout)),
            "stderr": _text(secrets.redact_output(ran.stderr)),
            "exit_code": ran.exit_code,
        }

    async def _read(self, args: Peer, secrets: Secrets) -> Peer:
        session = await self._session(args, secrets)
        return {"data": _text((await session.read(Path(args["path"]))).read())}

    async def _write(self, args: Peer, secrets: Secrets) -> None:
        session = await self._session(args, secrets)
        await session.write(Path(args["path"]), io.BytesIO(b64decode(args["data"])))

    async def _running(self, args: Peer, secrets: Secrets) -> Peer:
        return {"is_running": await (await self._session(args, secrets)).running()}

    async def _persist_workspace(self, args: Peer, secrets: Secrets) -> Peer:
        session = await self._session(args, secrets)
        return {"data": _text((await session.persist_workspace()).read())}

    async def _hydrate_workspace(self, args: Peer, secrets: Secrets) -> None:
        session = await self._session(args, secrets)
        await session.hydrate_workspace(io.BytesIO(b64decode(args["data"])))

    async def _pty_exec_start(self, args: Peer, secrets: Secrets) -> Peer:
        session = await self._session(args, secrets)
        update = await session.pty_exec_start(
            *args["command"],
            timeout=args.get("timeout"),
            shell=args.get("shell", True),
            user=_user(args),
            tty=args.get("tty", False),
            yield_time_s=args.get("yield_time_s"),
            max_output_tokens=args.get("max_output_tokens"),
        )
        return _update(update, secrets)

    async def _pty_write_stdin(self, args: Peer, secrets: Secrets) -> Peer:
        session = await self._session(args, secrets)
        update = await session.pty_write_stdin(
            session_id=args["session_id"],
            chars=args["chars"],
            yield_time_s=args.get("yield_time_s"),
            max_output_tokens=args.get("max_output_tokens"),
        )
        return _update(update, secrets)

    async def _start(self, args: Peer, secrets: Secrets) -> None:
        call = self._open_call()
        await start(call.provider, call.client, await self._session(args, secrets))

    async def _stop(self, args: Peer, secrets: Secrets) -> None:
        await (await self._session(args, secrets)).stop()

    async def _shutdown(self, args: Peer, secrets: Secrets) -> None:
        session = self._sessions.get(str(args["state"]["session_id"]))
        if session is not None:
            await secrets.learn(session.state.manifest)
            await session.shutdown()
            self._sessions.pop(str(session.state.session_id), None)


async def _open_again(call: Call, state: SandboxSessionState) -> SandboxSession:
    """Resume another worker's session, with its workspace unchanged.

    Raises:
        SandboxLost: The sandbox is gone, and its workspace was not saved.
    """
    if await exists(call.provider, call.client, state) is False:
        lost = await resume(call.provider, call.client, state, started=True, sandbox_id=None)
        return lost.session
    session = await call.client.resume(state)
    # The plugin's states do not say whether a session was started. If it was, the SDK must not
    # start it again, which would write the manifest's files over the agent's.
    if await _is_in_use(session):
        await restart(session)
    return session


async def _is_in_use(session: SandboxSession) -> bool:
    command = ("sh", "-c", '[ -n "$(ls -A -- "$1")" ]', "sh", session.state.manifest.root)
    try:
        return (await session.exec(*command, shell=False)).ok()
    except SandboxError:  # It is not running, or has no workspace yet.
        return False


def _state(args: Peer) -> SandboxSessionState:
    return SandboxSessionState.parse(_renamed(args["state"], _THEIR_WORKER_ENV))


def _renamed(value: Any, worker_env: str) -> Any:  # noqa: ANN401 - JSON of any kind
    """Return JSON with `worker_env` as the kind of each `WorkerEnv`: the plugin's, or ours."""
    if isinstance(value, list):
        return [_renamed(item, worker_env) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {name: _renamed(item, worker_env) for name, item in value.items()}
    if set(renamed) == {"type", "name"} and renamed["type"] == worker_env:
        ours = worker_env == _THEIR_WORKER_ENV
        renamed["type"] = _OUR_WORKER_ENV if ours else _THEIR_WORKER_ENV
    return renamed


def _user(args: Peer) -> str | User | None:
    user = args.get("user")
    return User.model_validate(user) if isinstance(user, dict) else user


def _update(update: PtyExecUpdate, secrets: Secrets) -> Peer:
    return {
        "process_id": update.process_id,
        "output": _text(secrets.redact_output(update.output)),
        "exit_code": update.exit_code,
        "original_token_count": update.original_token_count,
    }


def _text(content: str | bytes) -> str:
    return b64encode(content.encode() if isinstance(content, str) else content).decode("ascii")
