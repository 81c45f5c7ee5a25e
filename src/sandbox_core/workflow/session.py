"""A sandbox session in a workflow: each operation is one activity."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from agents.run_config import SandboxArchiveLimits, SandboxConcurrencyLimits
from agents.sandbox import Manifest
from agents.sandbox.entries import BaseEntry
from agents.sandbox.materialization import MaterializationResult, MaterializedFile
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, User
from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityConfig

from sandbox_core.errors import SandboxLost, SessionNotOpen
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import dump_entry, dump_state
from sandbox_core.wire.naming import host_of
from sandbox_core.wire.operations import Operation
from sandbox_core.workflow import convert
from sandbox_core.workflow.binding import DOUBTED
from sandbox_core.workflow.creation import clean_up, cleaning_up, delete_session
from sandbox_core.workflow.handles import mark_deleted
from sandbox_core.workflow.polling import PolledProcess
from sandbox_core.workflow.resuming import Patience, unanswered
from sandbox_core.workflow.session_files import SessionFiles

_CommandT = TypeVar("_CommandT", bound=m.CommandRequest)
_ResponseT = TypeVar("_ResponseT", bound=m.WatchedResponse)


class TemporalSandboxSession(SessionFiles):
    """A session of the Agents SDK in which every operation is an activity."""

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self._provider

    # --- Lifecycle ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the session; a workspace that is already in use is left untouched.

        If the first start after a create fails or is cancelled, the sandbox is deleted and the
        original error is raised.
        """
        try:
            await self._change_state(
                ops.START, m.StartRequest(session=self._ref, started=self._started)
            )
        except BaseException:
            if self._unused is not None:
                await clean_up(self._discard(self._unused))
                self._discarded = True
                self._meter.sandbox_deleted()
            raise
        self._started, self._unused, self._discarded = True, None, False

    async def _discard(self, idempotency_key: str) -> None:
        config = cleaning_up(self._config)
        await self._delete(config)
        # With some backends' options, deleting a session only pauses the sandbox.
        made = m.DeleteSessionRequest(session=self._ref, create_key=idempotency_key)
        await delete_session(self._provider, config, made)

    async def stop(self) -> None:
        """Save the workspace to a new snapshot and record the snapshot in the session state.

        Raises:
            WorkspaceStopError: The workspace could not be saved; the message names the path or the
                storage at fault.
        """
        if not (self._discarded or self._is_deleted()):
            users = tuple(sorted(self._users))
            await self._change_state(ops.STOP, m.StopRequest(session=self._ref, users=users))

    async def shutdown(self) -> None:
        """Release the sandbox's resources; the sandbox remains and can be resumed."""
        if not (self._discarded or self._is_deleted()):
            await self._change_state(ops.SHUTDOWN, m.ShutdownRequest(session=self._ref))
        self._started = False

    async def delete(self) -> None:
        """Delete the sandbox; if no worker holds the session, it is not resumed first."""
        if not (self._discarded or self._is_deleted()):
            await self._delete(self._config)
            mark_deleted(self)
        self._started = False

    async def _delete(self, config: ActivityConfig) -> None:
        await self._recovered()  # A resume in progress could still make a sandbox.
        since = self._meter.sandbox_since
        request = self._current(m.DeleteSessionRequest(session=self._ref, since=since))
        try:
            await self._ask_to_delete(config, request)
        except SessionNotOpen:
            # Without holding the session, only a worker on the sandbox's host may delete it.
            self._placement.pinned = self._placement.on_one_host
            request = request.model_copy(update={"state": dump_state(self.state)})
            await self._ask_to_delete(config, request)

    async def _ask_to_delete(self, config: ActivityConfig, request: m.DeleteSessionRequest) -> None:
        patience = Patience(config)
        while True:
            asked_at = self._placement.queue
            try:
                await delete_session(self._provider, self._activity_config(config), request)
            except ActivityError as error:
                if asked_at is None or not unanswered(error):
                    raise
                if await self._lives():
                    patience.check(asked_at, error)
                    continue
                if not self._placement.host_bound:
                    raise SessionNotOpen("the worker that held the session is gone") from error
                workflow.logger.warning(
                    "sandbox %s of provider %s is not deleted: no worker answers on its host, %s. "
                    "`sandbox-core reap` finds it there",
                    self._sandbox_id,
                    self._provider,
                    host_of(asked_at),
                )
            return

    async def running(self) -> bool:
        """Return whether the sandbox is running.

        A started session counts as running until an operation fails; only then is the worker asked.
        A lost sandbox is not running, unless its workspace can be restored, which this does.
        """
        if self._discarded or self._is_deleted():
            return False
        if self._generation > 0 and self._started and not self._doubtful:
            return True
        try:
            answer = await self._call(ops.RUNNING, m.RunningRequest(session=self._ref))
        except SandboxLost:
            if not workflow.patched(DOUBTED):
                raise
            return False
        self._doubtful = not answer.running
        return answer.running

    # --- Settings: sent to the worker with the next request ---------------------------------------

    def _set_concurrency_limits(self, limits: SandboxConcurrencyLimits) -> None:
        super()._set_concurrency_limits(limits)
        self._settings = self._settings.model_copy(
            update={
                "manifest_entries": limits.manifest_entries,
                "local_dir_files": limits.local_dir_files,
            }
        )

    def _set_archive_limits(self, limits: SandboxArchiveLimits | None) -> None:
        super()._set_archive_limits(limits)
        self._settings = self._settings.model_copy(
            update={"archive_limits": convert.archive_limits(limits)}
        )

    def register_persist_workspace_skip_path(self, path: Path | str) -> Path:
        """Exclude a path from snapshots, on the worker too."""
        relative = super().register_persist_workspace_skip_path(convert.path(path))
        skipped = {*self._settings.persist_skip_paths, relative.as_posix()}
        self._settings = self._settings.model_copy(
            update={"persist_skip_paths": tuple(sorted(skipped))}
        )
        return relative

    # --- Commands -------------------------------------------------------------------------------

    async def exec(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | list[str] = True,
        user: str | User | None = None,
    ) -> ExecResult:
        """Run a command exactly once and wait for it to finish; a retry attaches to it.

        Args:
            command: A shell command line, or the words of a command, which are quoted for the
                shell.
            timeout: Seconds until the command and everything it started is killed; lengthens the
                activity's timeouts if they are shorter. None applies the activity's
                start-to-close timeout, five minutes by default; with 0 the command is not started.
            shell: True for the backend's default shell, False for no shell, or the words of
                another shell.
            user: The sandbox user to run as; None is the backend's default.

        Returns:
            The output, truncated to `SandboxPlugin(max_output_bytes=...)`, and the exit code. A
            non-zero exit code is not an error.

        Raises:
            ExecTimeoutError: The command timed out and was killed.
            OutcomeUnknown: The command started, and its result is unknown.
            SandboxLost: The sandbox is gone, and the command with it.
        """
        result = await self._command(
            ops.EXEC,
            m.ExecRequest(
                session=self._ref,
                operation_id=workflow.uuid4().hex,
                command=convert.command_words(command),
                timeout=timeout,
                shell=convert.shell_words(shell),
                user=convert.user_name(user),
            ),
        )
        self._note(convert.user_name(user), result.at_most_once)
        return ExecResult(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)

    async def _command(
        self, operation: Operation[_CommandT, _ResponseT], request: _CommandT
    ) -> _ResponseT:
        if self._publisher is None:
            return await self._call(operation, request)
        return await self._publisher.run(
            request,
            lambda live: self._call(operation, request.model_copy(update={"live": live})),
        )

    def _note(self, user: str | None, at_most_once: str | None) -> None:
        if user is not None:
            self._users.add(user)
        self.at_most_once = at_most_once

    async def _exec_internal(
        self, *command: str | Path, timeout: float | None = None
    ) -> ExecResult:
        # The SDK has already added the shell.
        return await self.exec(*command, timeout=timeout, shell=False)

    def supports_pty(self) -> bool:
        """Return whether the backend's session supports `pty_exec_start`."""
        return self._supports_pty

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
        """Start a command and return its first output.

        Args:
            command: See `exec`.
            timeout: Seconds the backend may take to start the command; None is its default.
            shell: See `exec`.
            user: See `exec`.
            tty: Whether to allocate a terminal; only a command with a terminal accepts input.
            yield_time_s: Seconds to wait for output or for the end; None is the SDK's default.
            max_output_tokens: Truncates longer output in the middle; None returns all of it.

        Returns:
            The output, the exit code (None while the command runs), and the process id for
            `pty_write_stdin` (None once it has ended).
        """
        request = m.PtyExecStartRequest(
            session=self._ref,
            operation_id=workflow.uuid4().hex,
            command=convert.command_words(command),
            timeout=timeout,
            shell=convert.shell_words(shell),
            user=convert.user_name(user),
            tty=tty,
            yield_time_s=yield_time_s,
            max_output_tokens=max_output_tokens,
        )
        process = PolledProcess(user=request.user, operation_id=request.operation_id)
        started = await self._command(ops.PTY_EXEC_START, request)
        self._note(process.user, started.at_most_once)
        if started.process_id is not None:
            self._processes[started.process_id] = process
        return convert.pty_update(self._taken(process, started, since=0))

    def _taken(
        self, process: PolledProcess, response: m.PtyResponse, *, since: int
    ) -> m.PtyResponse:
        delivered, ended = max(since, process.offset), process.ended
        new = process.take(response, since=since)
        if self._publisher is not None and process.operation_id is not None and not ended:
            self._publisher.polled(process.operation_id, new, delivered)
        return new

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Write to a running command and return its new output.

        For a process started through another handle, the first call returns all output so far.

        Args:
            session_id: The process id from `pty_exec_start`.
            chars: The input; an empty string only polls for output.
            yield_time_s: Seconds to wait for output or for the end; None is the SDK's default.
            max_output_tokens: Truncates longer output in the middle; None returns all of it.

        Raises:
            PtySessionNotFoundError: There is no such process, or its end was already reported.
            OutcomeUnknown: `chars` may or may not have been written.
        """
        convert.number(session_id, "session_id")
        process = self._processes.setdefault(session_id, PolledProcess())
        since = process.offset
        live = None
        if self._publisher is not None and process.operation_id is not None:
            live = self._publisher.live_request(process.operation_id)
        polled = await self._call(
            ops.PTY_WRITE_STDIN,
            m.PtyWriteStdinRequest(
                session=self._ref,
                operation_id=workflow.uuid4().hex,
                process_id=session_id,
                chars=chars,
                yield_time_s=yield_time_s,
                max_output_tokens=max_output_tokens,
                offset=since,
                user=process.user,
                ended=process.ended,
                live=live,
            ),
        )
        return convert.pty_update(self._taken(process, polled, since=since))

    async def pty_resize(self, session_id: int, *, rows: int, columns: int) -> None:
        """Resize a command's terminal, in characters."""
        convert.number(session_id, "session_id")
        process = self._processes.get(session_id, PolledProcess())
        await self._call(
            ops.PTY_RESIZE,
            m.PtyResizeRequest(
                session=self._ref,
                process_id=session_id,
                rows=convert.number(rows, "rows"),
                columns=convert.number(columns, "columns"),
                user=process.user,
            ),
        )

    async def pty_terminate_all(self) -> None:
        """Kill every command started with `pty_exec_start`."""
        await self._call(
            ops.PTY_TERMINATE_ALL,
            m.PtyTerminateAllRequest(session=self._ref, users=tuple(sorted(self._users))),
        )
        if self._publisher is not None:
            self._publisher.terminated(
                each.operation_id
                for each in self._processes.values()
                if each.operation_id is not None and not each.ended
            )
        self._processes.clear()

    # --- The workspace as a whole -----------------------------------------------------------------

    async def apply_manifest(self, *, only_ephemeral: bool = False) -> MaterializationResult:
        """Materialize the manifest, or only its ephemeral entries."""
        done = await self._call(
            ops.APPLY_MANIFEST,
            m.ApplyManifestRequest(session=self._ref, only_ephemeral=only_ephemeral),
        )
        return MaterializationResult(files=convert.materialized_files(done))

    async def _apply_manifest(
        self, *, only_ephemeral: bool = False, provision_accounts: bool = True
    ) -> MaterializationResult:
        return await self.apply_manifest(only_ephemeral=only_ephemeral)

    async def _apply_entry_batch(
        self, entries: Sequence[tuple[Path, BaseEntry]], *, base_dir: Path
    ) -> list[MaterializedFile]:
        done = await self._call(
            ops.APPLY_ENTRIES,
            m.ApplyEntriesRequest(
                session=self._ref,
                entries=tuple(
                    m.PlacedEntry(path=convert.path_text(path), entry=dump_entry(entry))
                    for path, entry in entries
                ),
            ),
        )
        return convert.materialized_files(done)

    def _manifest_base_dir(self) -> Path:
        # Relative sources are read on the worker, so the workflow host's directory means nothing.
        return Path()

    async def _validate_manifest_application(
        self,
        *,
        only_ephemeral: bool = False,
        manifest: Manifest | None = None,
        session_running: bool | None = None,
    ) -> None:
        # Done by the worker's session, where the manifest is applied.
        return

    async def persist_workspace(self) -> io.IOBase:
        """Return the workspace as a tar archive, in an in-memory binary stream.

        Raises:
            PayloadTooLarge: The archive exceeds `SandboxPlugin(max_file_bytes=...)`. `stop` has no
                such limit.
        """
        return io.BytesIO(
            await self._call(ops.PERSIST_WORKSPACE, m.PersistWorkspaceRequest(session=self._ref))
        )

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Fill the workspace from an archive."""
        await self._call(
            ops.HYDRATE_WORKSPACE,
            m.HydrateWorkspaceRequest(session=self._ref),
            convert.content(data),
        )

    async def resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        """Return the endpoint at which a port of the sandbox can be reached.

        Raises:
            ExposedPortUnavailableError: The create options do not expose the port, or the backend
                cannot expose ports.
        """
        self._assert_exposed_port_configured(port)
        endpoint = await self._call(
            ops.RESOLVE_EXPOSED_PORT, m.ResolveExposedPortRequest(session=self._ref, port=port)
        )
        return ExposedPortEndpoint(
            host=endpoint.host, port=endpoint.port, tls=endpoint.tls, query=endpoint.query
        )
