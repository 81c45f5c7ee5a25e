"""A session: the commands, processes and files of one sandbox."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
)
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.types import ExecResult, User

from sandbox_bubblewrap import commands
from sandbox_bubblewrap.commands import TooMuchOutput
from sandbox_bubblewrap.connection import NothingRan, NotRunning
from sandbox_bubblewrap.refusals import check_user, not_executed
from sandbox_bubblewrap.session_files import SessionFiles

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BubblewrapSandboxSession(SessionFiles):
    """The SDK's session for one sandbox."""

    def supports_pty(self) -> bool:
        return True

    def _prepare_exec_command(
        self, *command: str | Path, shell: bool | list[str], user: str | User | None
    ) -> list[str]:
        check_user(user)
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
            raise not_executed(argv, error) from error
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
            raise not_executed(argv, error) from error

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
