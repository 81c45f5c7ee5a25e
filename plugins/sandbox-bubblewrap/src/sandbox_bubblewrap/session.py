"""A session: the commands, processes and files of one sandbox.

Every file operation runs inside the sandbox, as its user: the worker never follows a path in a
workspace, so that links and special files cannot mislead it.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from agents.sandbox.errors import (
    ExecNonZeroError,
    ExecTimeoutError,
    ExecTransportError,
    ExposedPortUnavailableError,
    InvalidManifestPathError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceStartError,
    WorkspaceStopError,
)
from agents.sandbox.files import EntryKind, FileEntry
from agents.sandbox.materialization import MaterializationResult
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.workspace_payloads import coerce_write_payload
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, Permissions, User
from agents.sandbox.workspace_paths import coerce_posix_path, posix_path_as_path

from sandbox_bubblewrap import commands, file_operations, launch, system
from sandbox_bubblewrap.commands import TooMuchOutput
from sandbox_bubblewrap.connection import DoesNotRun, NothingRan, NotRunning
from sandbox_bubblewrap.models import (
    BubblewrapSandboxClientOptions,
    BubblewrapSandboxSessionState,
    refusal,
)
from sandbox_bubblewrap.store import Sandbox, Store
from sandbox_bubblewrap.terminals import Terminals

logger = logging.getLogger(__name__)

_ResultT = TypeVar("_ResultT")

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# By the formats of `stat.S_IFMT`; all others are "other".
_KINDS: Final = {
    0o040000: EntryKind.DIRECTORY,
    0o100000: EntryKind.FILE,
    0o120000: EntryKind.SYMLINK,
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A sandbox that was just created and started."""

    sandbox: Sandbox
    limits: dict[str, str]
    """What enforces each limit; see the session's state."""


class BubblewrapSandboxSession(BaseSandboxSession):
    """The SDK's session for one sandbox."""

    state: BubblewrapSandboxSessionState

    def __init__(
        self,
        *,
        store: Store,
        state: BubblewrapSandboxSessionState,
        make: Callable[[str, BubblewrapSandboxClientOptions], Awaitable[Made]],
    ) -> None:
        self.state = state
        self._store, self._make = store, make
        self._terminals = Terminals()
        self._shut_down = False

    @property
    def _sandbox(self) -> Sandbox:
        return Sandbox(path=self._store.root / self.state.sandbox_id)

    # --- From start to shutdown -------------------------------------------------------------------

    async def _ensure_backend_started(self) -> None:
        if await asyncio.to_thread(self._store.get, self.state.sandbox_id) is not None:
            await self.launch()
            return
        made = await self._make(self.state.manifest.root, self.state.options)
        self.state.sandbox_id, self.state.limits = made.sandbox.id, made.limits
        self.state.workspace_root_ready = False
        self._set_start_state_preserved(False)
        self._shut_down = False

    async def launch(self) -> None:
        """Start the sandbox unless it is running.

        Raises:
            FileNotFoundError: It no longer exists.
            Exception: It cannot be started; the message says why.
        """
        launching = launch.Launch(
            sandbox=self._sandbox, root=self.state.manifest.root, options=self.state.options
        )
        kept_by = await asyncio.to_thread(launching.ensure_running)
        self._shut_down = False
        if kept_by is not None:
            self.state.limits = dict(kept_by)

    def _wrap_start_error(self, error: Exception) -> Exception:
        if not isinstance(error, OSError):
            return error
        return WorkspaceStartError(path=self._workspace_root_path(), cause=error)

    def _wrap_stop_error(self, error: Exception) -> Exception:
        if not isinstance(error, OSError):
            return error
        return WorkspaceStopError(path=self._workspace_root_path(), cause=error)

    async def _in_running(self, ask: Callable[[], Coroutine[Any, Any, _ResultT]]) -> _ResultT:
        """Ask process 1; if the sandbox was stopped, for example by a reboot, start it first.

        The workspace and /tmp are unchanged, and the request has not been made yet.
        """
        try:
            return await ask()
        except DoesNotRun:
            if self._shut_down or not self._sandbox.exists():
                raise
        logger.warning("sandbox %s was no longer running and is started again", self._sandbox.id)
        try:
            await self.launch()
        except Exception as error:  # For any reason, the session has no running sandbox.
            raise NotRunning(f"{self._sandbox.id} cannot be started again: {error}") from error
        return await ask()

    async def _shutdown_backend(self) -> None:
        self._shut_down = True
        await asyncio.to_thread(launch.stop, self._sandbox)

    async def running(self) -> bool:
        return launch.is_running(self._sandbox)

    async def _apply_manifest(
        self, *, only_ephemeral: bool = False, provision_accounts: bool = True
    ) -> MaterializationResult:
        await self.provision_manifest_accounts()
        return await super()._apply_manifest(
            only_ephemeral=only_ephemeral, provision_accounts=provision_accounts
        )

    async def provision_manifest_accounts(self) -> None:
        if self.state.manifest.users or self.state.manifest.groups:
            raise refusal(
                f"a bubblewrap sandbox has one user, {system.USER_NAME!r}: leave users and groups "
                f"out of the manifest",
                "start",
            )

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        if self.state.options.network != "host":
            raise ExposedPortUnavailableError(
                port=port,
                exposed_ports=self.state.exposed_ports,
                reason="backend_unavailable",
                context={"detail": "the sandbox has no network; options with network='host' do"},
                retryable=False,
            )
        return ExposedPortEndpoint(host="127.0.0.1", port=port, tls=False)

    # --- Commands ---------------------------------------------------------------------------------

    def supports_pty(self) -> bool:
        return True

    def _prepare_exec_command(
        self, *command: str | Path, shell: bool | list[str], user: str | User | None
    ) -> list[str]:
        _check_user(user)
        if shell is True:
            shell = ["sh", "-c"]  # No login shell: there is no profile to read.
        return super()._prepare_exec_command(*command, shell=shell, user=None)

    async def _environment(self) -> dict[str, str]:
        given = await self.state.manifest.environment.resolve()
        return {"PATH": _PATH, "HOME": self.state.manifest.root, **given}

    async def _exec_internal(
        self, *command: str | Path, timeout: float | None = None
    ) -> ExecResult:
        argv = [str(part) for part in command]
        try:
            env = await self._environment()
            ended = await self._in_running(
                lambda: commands.run(
                    self._sandbox, argv, env=env, cwd=self.state.manifest.root, timeout=timeout
                )
            )
        except asyncio.TimeoutError as error:
            raise ExecTimeoutError(command=argv, timeout_s=timeout, cause=error) from error
        except (NothingRan, NotRunning) as error:
            raise _not_executed(argv, error) from error
        except TooMuchOutput as error:
            raise ExecTransportError(
                command=argv,
                message=f"the command wrote more than {commands.MAX_OUTPUT:,} bytes, and was "
                f"killed: let it write to a file",
                context={"reason": "too_much_output"},
                cause=error,
                retryable=False,
            ) from error
        return ExecResult(stdout=ended.stdout, stderr=ended.stderr, exit_code=ended.code)

    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | list[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        argv = self._prepare_exec_command(*command, shell=shell, user=user)
        try:
            env = await self._environment()
            return await self._in_running(
                lambda: self._terminals.start(
                    self._sandbox,
                    argv,
                    env=env,
                    cwd=self.state.manifest.root,
                    tty=tty,
                    yield_time_s=yield_time_s,
                    max_output_tokens=max_output_tokens,
                )
            )
        except (NothingRan, NotRunning) as error:
            raise _not_executed(argv, error) from error

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        return await self._terminals.write(
            session_id, chars, yield_time_s=yield_time_s, max_output_tokens=max_output_tokens
        )

    async def pty_terminate_all(self) -> None:
        await self._terminals.end_all()

    # --- Files ------------------------------------------------------------------------------------

    def normalize_path(self, path: Path | str, *, for_write: bool = False) -> Path:
        # The host's file at this path is a different one.
        policy = self._workspace_path_policy()
        return posix_path_as_path(policy.normalize_sandbox_path(path, for_write=for_write))

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        normalized = self.normalize_path(path, for_write=for_write)
        refused = await self._perform("check", normalized, io.BytesIO(), for_write=for_write)
        if refused is not None:
            self._raise_refusal(path, refused)
            raise _os_error(refused)
        return normalized

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        _check_user(user)
        arguments = self._arguments(self.normalize_path(path))
        try:
            file, refused = await self._in_running(
                lambda: file_operations.open_file(self._sandbox, arguments)
            )
        except (NothingRan, NotRunning) as error:
            raise WorkspaceArchiveReadError(path=path, cause=error) from error
        if file is not None:
            return file
        assert refused is not None
        self._raise_refusal(path, refused)
        cause = _os_error(refused)
        if isinstance(cause, FileNotFoundError):
            raise WorkspaceReadNotFoundError(path=path, cause=cause) from cause
        raise WorkspaceArchiveReadError(path=path, cause=cause) from cause

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        _check_user(user)
        payload = coerce_write_payload(path=path, data=data)
        await self._change("write", path, source=payload.stream)

    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        _check_user(user)
        normalized = self.normalize_path(path)
        listed = io.BytesIO()
        command = ("ls", "-la", "--", str(normalized))
        try:
            refused = await self._perform("ls", normalized, listed)
        except (NothingRan, NotRunning) as error:
            raise _not_executed(command, error) from error
        if refused is not None:
            self._raise_refusal(path, refused)
            raise _failed(command, _os_error(refused))
        return [
            FileEntry(
                path=entry["path"],
                permissions=Permissions.from_mode(entry["mode"]),
                owner=entry["owner"],
                group=entry["group"],
                size=entry["size"],
                kind=_KINDS.get(entry["mode"] & 0o170000, EntryKind.OTHER),
            )
            for entry in json.loads(listed.getvalue())
        ]

    async def mkdir(
        self, path: Path | str, *, parents: bool = False, user: str | User | None = None
    ) -> None:
        _check_user(user)
        await self._change("mkdir", path, parents=parents)

    async def rm(
        self, path: Path | str, *, recursive: bool = False, user: str | User | None = None
    ) -> None:
        _check_user(user)
        await self._change("rm", path, recursive=recursive)

    async def persist_workspace(self) -> io.IOBase:
        root = self.state.manifest.root
        skip = sorted(path.as_posix() for path in self._persist_workspace_skip_relpaths())
        saved = tempfile.TemporaryFile()  # noqa: SIM115 - it is the answer
        try:
            refused = await self._file_operation(
                "persist", {"root": root, "skip": skip}, target=saved
            )
            if refused is not None:
                path = Path(root, str(refused.get("path", "")))
                context = {"reason": str(refused.get("reason", refused.get("text", "")))}
                raise WorkspaceArchiveReadError(
                    path=path, context=context, cause=_os_error(refused)
                )
        except (NothingRan, NotRunning, OSError) as error:
            saved.close()
            raise WorkspaceArchiveReadError(path=Path(root), cause=error) from error
        except BaseException:
            saved.close()
            raise
        saved.seek(0)
        return saved

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        root = self.state.manifest.root
        try:
            refused = await self._file_operation(
                "hydrate", {"root": root}, source=data, target=io.BytesIO()
            )
        except (NothingRan, NotRunning, OSError) as error:
            raise WorkspaceArchiveWriteError(path=Path(root), cause=error) from error
        if refused is not None:
            context = {"reason": str(refused.get("reason", refused.get("text", "")))}
            if "path" in refused:
                context["member"] = str(refused["path"])
            raise WorkspaceArchiveWriteError(
                path=Path(root), context=context, cause=_os_error(refused)
            )

    async def _change(
        self, name: str, path: Path | str, source: io.IOBase | None = None, **arguments: bool
    ) -> None:
        normalized = self.normalize_path(path, for_write=True)
        try:
            refused = await self._perform(
                name, normalized, io.BytesIO(), source=source, **arguments
            )
        except (NothingRan, NotRunning) as error:
            raise WorkspaceArchiveWriteError(path=normalized, cause=error) from error
        if refused is None:
            return
        self._raise_refusal(path, refused)
        cause = _os_error(refused)
        if name == "rm" and isinstance(cause, FileNotFoundError):
            raise _failed(("rm", "--", str(normalized)), cause) from cause
        raise WorkspaceArchiveWriteError(path=normalized, cause=cause) from cause

    async def _perform(
        self,
        name: str,
        path: Path,
        target: io.IOBase,
        *,
        source: io.IOBase | None = None,
        **arguments: bool,
    ) -> dict[str, Any] | None:
        request = {**self._arguments(path), **arguments}
        return await self._file_operation(name, request, source=source, target=target)

    def _arguments(self, path: Path) -> dict[str, object]:
        grants = [
            [root.as_posix(), read_only]
            for root, read_only in self._workspace_path_policy().extra_path_grant_rules()
        ]
        return {"path": path.as_posix(), "roots": [[self.state.manifest.root, False], *grants]}

    async def _file_operation(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        source: io.IOBase | None = None,
        target: io.IOBase,
    ) -> dict[str, Any] | None:
        return await self._in_running(
            lambda: file_operations.perform(
                self._sandbox, name, arguments, source=source, target=target
            )
        )

    def _raise_refusal(self, path: Path | str, refused: Mapping[str, Any]) -> None:
        """Raise the error for a path that the SDK's operations must not follow."""
        original = coerce_posix_path(path)
        if refused["error"] == "escape":
            raise InvalidManifestPathError(
                rel=original.as_posix(),
                reason="absolute" if original.is_absolute() else "escape_root",
                context={"resolved_path": refused["resolved"]},
            )
        if refused["error"] == "read_only":
            raise WorkspaceArchiveWriteError(
                path=posix_path_as_path(original),
                context={
                    "reason": "read_only_extra_path_grant",
                    "grant_path": refused["grant"],
                    "resolved_path": refused["resolved"],
                },
            )


def _check_user(user: str | User | None) -> None:
    name = user.name if isinstance(user, User) else user
    if name and name != system.USER_NAME:
        raise refusal(
            f"a bubblewrap sandbox has one user, {system.USER_NAME!r}: pass no user instead of "
            f"{name!r}",
            "exec",
            user=name,
        )


def _not_executed(
    command: list[str] | tuple[str, ...], error: NothingRan | NotRunning
) -> ExecTransportError:
    if isinstance(error, NothingRan):
        return ExecTransportError(
            command=command,
            context={"reason": "not_started", "at": error.at, "errno": error.cause.errno},
            cause=error.cause,
        )
    return ExecTransportError(command=command, context={"reason": "not_running"}, cause=error)


def _failed(command: tuple[str, ...], cause: OSError) -> ExecNonZeroError:
    result = ExecResult(stdout=b"", stderr=str(cause).encode(), exit_code=1)
    return ExecNonZeroError(result, command=command, cause=cause)


def _os_error(refused: Mapping[str, Any]) -> OSError:
    return OSError(refused.get("errno") or 0, str(refused.get("text", refused["error"])))
