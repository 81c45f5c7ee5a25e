"""Adapts the SDK's session of a container to a worker.

A comment at each difference from the SDK's class gives the reason.
"""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import tarfile
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from agents.sandbox._mount_security import redact_mount_error_data
from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
)
from agents.sandbox.files import FileEntry
from agents.sandbox.sandboxes.docker import (
    DockerSandboxSession,
)
from agents.sandbox.session.workspace_payloads import coerce_write_payload
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, User
from agents.sandbox.workspace_paths import sandbox_path_str
from docker.errors import APIError, DockerException, NotFound

from sandbox_core.providers import SandboxStopped
from sandbox_core.providers.archives import UnsafeArchive
from sandbox_core.providers.listings import list_folder
from sandbox_docker.commands import Command, is_too_long
from sandbox_docker.engine import in_other_loop, in_thread
from sandbox_docker.options import settings_of
from sandbox_docker.streams import ExecStream, open_stream
from sandbox_docker.workspace import (
    ARCHIVE,
    IS_FIFO,
    OWN_WORKSPACE,
    READ,
    RESTORE,
    WRITE,
    only_file,
    refused_fifo,
    refused_user,
    save_command,
    take_archive,
)

logger = logging.getLogger(__name__)

_KILL_S: Final = 10.0
"""How long ending a command may take before its timeout is reported anyway, in seconds."""

_NOT_EXECUTED: Final = 126
"""The exit code of a command that could not be executed, which the engine uses too."""

_CONFLICT: Final = 409
"""The engine's status for a request to a container that is not running."""

_MARK_VARIABLE: Final = "SANDBOX_DOCKER_COMMAND"

# Kills the processes whose environment contains $1 until none is left, as they may be forking.
_KILL_MARKED: Final = """\
for pass in 1 2 3 4 5 6 7 8 9; do
  found=
  for process in /proc/[0-9]*; do
    case $(cat "$process/environ" 2>/dev/null) in
      *"$1"*) kill -KILL "${process#/proc/}" && found=1 ;;
    esac
  done
  [ -n "$found" ] || exit 0
done 2>/dev/null
exit 1
"""


def _said(error: Exception) -> str:
    """Return the engine's message, without the URL of the request."""
    explanation = error.explanation if isinstance(error, APIError) else None
    return str(explanation or error) or type(error).__name__


class ThreadedDockerSandboxSession(DockerSandboxSession):
    """The SDK's session, but it does not block the event loop and leaves no process behind."""

    @classmethod
    def taking_over(cls, session: DockerSandboxSession) -> ThreadedDockerSandboxSession:
        """Return a session of this class that replaces the newly opened `session`."""
        taken = cls(
            docker_client=session._docker_client,
            container=session._container,
            state=session.state,
        )
        vars(taken).update(vars(session))
        return taken

    async def _exec_run(
        self,
        *,
        cmd: list[str],
        workdir: str | None,
        user: str | None,
        timeout: float | None,
        command_for_errors: tuple[str | Path, ...],
        kill_on_timeout: bool,
    ) -> ExecResult:
        # At a timeout the SDK runs `pkill` with the command line, in the event loop. Even where
        # there is a pkill, it misses a program that replaced the shell and the command's children,
        # and takes the text for a pattern. Missed processes keep running, and one of the SDK's
        # threads waits for them. A mark in the environment identifies all that inherited it.
        mark = f"{_MARK_VARIABLE}={uuid.uuid4().hex}"
        kill = kill_on_timeout and timeout is not None
        command = Command(
            self._container,
            cmd=cmd,
            workdir=workdir,
            user=user or "",
            environment=[mark] if kill else None,
        )
        running = asyncio.ensure_future(in_thread(command.run))
        try:
            await asyncio.wait({running}, timeout=timeout)
            if not running.done():
                command.abandon()
                if kill:
                    await self._kill_marked(mark, user, running)
                raise ExecTimeoutError(command=command_for_errors, timeout_s=timeout)
            stdout, stderr, exit_code = running.result()
            if exit_code == _NOT_EXECUTED and not await self.running():
                # The engine reports this in the command's output.
                raise ExecTransportError(
                    command=command_for_errors,
                    message=f"exec transport error: container {self._container.id} is not running",
                    context={"reason": "container_not_running"},
                )
        except (DockerException, OSError) as error:
            stopped = await self._refuses_stopped(error)
            raise (SandboxStopped if stopped else ExecTransportError)(
                command=command_for_errors,
                message=f"exec transport error: {_said(error)}",
                cause=error,
                retryable=None if isinstance(error, APIError) else True,  # It may be restarting.
            ) from error
        finally:
            command.abandon()
            running.cancel()
        if exit_code is None:
            raise ExecTransportError(
                command=command_for_errors, context={"reason": "missing_exit_code"}
            )
        if exit_code != 0 and is_too_long(cmd, stdout + stderr):
            refused = OSError(errno.E2BIG, os.strerror(errno.E2BIG))
            raise ExecTransportError(
                command=command_for_errors[:1],
                message=f"exec transport error: the command did not run: {refused.strerror}",
                context={"reason": "not_run"},
                cause=refused,
            )
        return ExecResult(stdout=stdout, stderr=stderr, exit_code=exit_code)

    async def open_stream(self, command: Sequence[str], user: str | None) -> ExecStream:
        """Start a process as `exec` would, and connect to its stdin and stdout.

        Raises:
            NotImplementedError: This engine's connections cannot be used for that.
            ExecTransportError: The engine refuses, or does not answer.
        """
        await self._recover_workspace_root_ready(timeout=None)
        workdir = self.state.manifest.root if self._workspace_root_ready else None
        try:
            return await open_stream(self._container, command, workdir=workdir, user=user)
        except (DockerException, OSError) as error:
            raise ExecTransportError(command=tuple(command[:1]), cause=error) from error

    async def _kill_marked(self, mark: str, user: str | None, running: asyncio.Future[Any]) -> None:
        """Kill the marked processes, as the user who started them: no other can see the mark."""
        killer = Command(
            self._container, cmd=["sh", "-c", _KILL_MARKED, "sh", mark], user=user or ""
        )
        problem: object
        try:
            # When its thread returns, the command is running or never will be.
            await asyncio.wait({running}, timeout=_KILL_S)
            _, _, problem = await asyncio.wait_for(in_thread(killer.run), timeout=_KILL_S)
        except (DockerException, OSError, asyncio.TimeoutError) as error:
            problem = error
        finally:
            killer.abandon()
        if problem:
            logger.warning(
                "a command that timed out may still run in container %s: %r",
                self.state.container_id,
                problem,
            )

    async def running(self) -> bool:
        # For a container that is gone, the SDK returns its last known status.
        try:
            await in_thread(self._container.reload)
        except NotFound:
            return False
        except APIError:
            pass
        return bool(self._container.status == "running")

    async def _refuses_stopped(self, error: Exception) -> bool:
        """Return whether the engine started nothing because the container has stopped."""
        if not isinstance(error, APIError) or error.status_code != _CONFLICT:
            return False
        # A paused container is not running either, but must not be started.
        return not await self.running() and self._container.status == "exited"

    async def _ensure_backend_started(self) -> None:
        if not await self.running():
            await in_thread(self._container.start)

    async def _prepare_backend_workspace(self) -> None:
        settings = settings_of(self.state)
        if settings is not None and settings.user is not None:
            # Only root can create a folder in / and change its owner.
            command = Command(
                self._container,
                cmd=["sh", "-c", OWN_WORKSPACE, "sh", self.state.manifest.root, settings.user],
                user="0",
            )
            _, problem, exit_code = await in_thread(command.run)
            if exit_code != 0:
                raise refused_user(settings.user, problem)

    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        # The SDK parses the lines of `ls -la`, but names may contain newlines.
        folder = sandbox_path_str(await self._validate_path_access(path))
        return await list_folder(self, folder, user)

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        # The SDK's `cat` opens any kind of file, and may block in the container forever.
        target = await self._validate_path_access(path)
        words = ("sh", "-c", READ, "sh", sandbox_path_str(target))
        result = await self.exec(*words, shell=False, user=user)
        if result.exit_code == IS_FIFO:
            raise refused_fifo(path)
        if not result.ok():
            await self._raise_read_error_from_exec(
                path=path,
                workspace_path=target,
                command=("cat", "--", sandbox_path_str(target)),
                result=result,
                user=user,
            )
        return io.BytesIO(result.stdout)

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        # The SDK copies a staged file with five commands, and into a folder if it has that name.
        payload = coerce_write_payload(path=path, data=data)
        target = await self._validate_path_access(path, for_write=True)
        folder = sandbox_path_str(target.parent)
        try:
            await self._stream_into_exec(
                cmd=["sh", "-c", WRITE, "sh", folder, sandbox_path_str(target)],
                stream=payload.stream,
                error_path=path,
                user=user,
            )
        except WorkspaceArchiveWriteError as error:
            if error.context.get("exit_code") == str(IS_FIFO):
                raise refused_fifo(path) from error
            raise

    @redact_mount_error_data
    async def persist_workspace(self) -> io.IOBase:
        # The SDK archives a copy of the workspace, in which hard links are separate files, and
        # refuses what it cannot restore. The core restores such files.
        root = self._workspace_root_path()
        if any(path == root for _, path in self.state.manifest.ephemeral_mount_targets()):
            return await super().persist_workspace()
        stage = self._archive_stage_path(name_hint="workspace")
        skipped = self._persist_workspace_skip_relpaths()
        command = save_command(sandbox_path_str(stage), root.as_posix(), skipped)
        try:
            await self._exec_checked(*command, error_cls=WorkspaceArchiveReadError, error_path=root)
            sent = await in_thread(self._workspace_archive_stream, stage / ARCHIVE)
            try:
                return await in_thread(only_file, sent)
            finally:
                sent.close()
        except NotFound as error:
            raise WorkspaceArchiveReadError(path=root, cause=error, retryable=False) from error
        except (DockerException, OSError, tarfile.TarError) as error:
            raise WorkspaceArchiveReadError(path=root, cause=error, retryable=True) from error
        finally:
            await self._rm_best_effort(stage)

    @redact_mount_error_data
    async def hydrate_workspace(self, data: io.IOBase) -> None:
        # The SDK refuses hard links, FIFOs, names with backslashes and links to absolute paths, all
        # of which occur in workspaces.
        root = self._workspace_root_path()
        with tempfile.TemporaryFile() as archive:
            try:
                await in_thread(take_archive, data, archive)
            except UnsafeArchive as error:
                context = {"reason": error.reason, "member": error.member}
                raise WorkspaceArchiveWriteError(path=root, context=context, cause=error) from error
            await self._stream_into_exec(
                cmd=["sh", "-c", RESTORE, "sh", root.as_posix()],
                stream=cast("io.IOBase", archive),
                error_path=root,
            )

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        return await in_other_loop(super()._resolve_exposed_port(port))

    async def _shutdown_backend(self) -> None:
        # The SDK sends process 1 SIGTERM and waits 10 s for it, in the event loop: as process 1,
        # `tail` ignores SIGTERM. Only process 1 would get the signal in any case, and neither
        # `tail` nor an init has anything to save.
        await in_thread(self._kill_container)

    def _kill_container(self) -> None:
        try:
            self._container.kill()
        except NotFound:
            pass
        except APIError as error:
            if error.status_code != _CONFLICT:
                raise
