"""The commands of a workflow's session, each one activity."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.types import ExecResult, User
from temporalio import workflow

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.operations import Operation
from sandbox_core.workflow import convert
from sandbox_core.workflow.live_output import LiveCommand
from sandbox_core.workflow.local_activities import WITHIN_S, LocalCommands, is_short, with_stable_id
from sandbox_core.workflow.polling import PolledProcess
from sandbox_core.workflow.session_base import SessionBase

_CommandT = TypeVar("_CommandT", bound=m.CommandRequest)
_ResponseT = TypeVar("_ResponseT", bound=m.OutputResponse)


class SessionCommands(SessionBase):
    """The session's commands, and the processes that it polls."""

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
        request = m.ExecRequest(
            session=self._ref,
            operation_id=workflow.uuid4().hex,
            command=convert.command_words(command),
            timeout=timeout,
            shell=convert.shell_words(shell),
            user=convert.user_name(user),
        )
        result = await self._exec(request)
        self._note(request.user, result.at_most_once)
        return ExecResult(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)

    async def _exec(self, request: m.ExecRequest) -> m.ExecResponse:
        if self._local is None:
            return await self._run(request, self._live_command(request))
        return await self._exec_locally_first(with_stable_id(request), self._local)

    async def _exec_locally_first(
        self, request: m.ExecRequest, local: LocalCommands
    ) -> m.ExecResponse:
        """Run a command in a local activity, if it may be one, and otherwise in an activity."""
        live, repeated = self._live_command(request), False
        if live is None and is_short(request):
            is_pinned = self._record.placement.queue is not None
            if is_pinned or not local.suits(self._ref, request.user):
                repeated = local.may_have_run(request.user)
            else:
                first = request.model_copy(update={"within_s": WITHIN_S})
                response = await self._run(first, None)
                if response.unfinished is None:
                    return response
                repeated = response.unfinished == "started"
        request = request.model_copy(update={"repeated": repeated})
        try:
            response = await self._run(request, live)
        except OutcomeUnknown:
            local.forget(request.user)
            raise
        local.note(self._ref, request.user, response.at_most_once)
        return response

    async def _run(self, request: m.ExecRequest, live: LiveCommand | None) -> m.ExecResponse:
        return await self._command(ops.EXEC, request, live)

    def _live_command(self, request: m.CommandRequest) -> LiveCommand | None:
        live_output = self.live_output
        return None if live_output is None else LiveCommand(live_output, request.operation_id)

    async def _command(
        self,
        operation: Operation[_CommandT, _ResponseT],
        request: _CommandT,
        live: LiveCommand | None,
    ) -> _ResponseT:
        if live is None:
            return await self._call(operation, request)
        return await live.run(
            request,
            self.provider,
            lambda asked: self._call(operation, request.model_copy(update={"live": asked})),
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
        process = PolledProcess(user=request.user, live=self._live_command(request))
        started = await self._command(ops.PTY_EXEC_START, request, process.live)
        self._note(process.user, started.at_most_once)
        if started.process_id is not None:
            self._processes[started.process_id] = process
        return convert.pty_update(self._taken(process, started, since=0))

    def _taken(
        self, process: PolledProcess, response: m.PtyResponse, *, since: int
    ) -> m.PtyResponse:
        delivered, ended = max(since, process.offset), process.ended
        new = process.take(response, since=since)
        if process.live is not None and not ended:
            process.live.polled(new, delivered)
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
                live=None if process.live is None else process.live.request(),
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
        for process in self._processes.values():
            if process.live is not None and not process.ended:
                process.live.ended(error="terminated")
        self._processes.clear()
