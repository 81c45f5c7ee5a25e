"""A session for backends that can run commands and transfer files.

It adds what every client needs: paths confined to the workspace, listings of arbitrary file names,
workspace archives. It uses only ``sh``, ``tar``, ``stat`` and other tools found in any Linux image,
busybox's included.
"""

from __future__ import annotations

import abc
import io
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.sandbox.errors import (
    ExecNonZeroError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.files import FileEntry
from agents.sandbox.session import BaseSandboxSession
from agents.sandbox.session.runtime_helpers import (
    RESOLVE_WORKSPACE_PATH_HELPER,
    RuntimeHelperScript,
)
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.types import ExecResult, User
from agents.sandbox.workspace_paths import sandbox_path_str

from sandbox_core.providers.archives import UnsafeArchive, check_archive, excluding
from sandbox_core.providers.listings import list_folder


class RemoteSandboxSession(BaseSandboxSession):
    """A session for backends that run commands and transfer files.

    Subclasses implement `run_command`, `read_file`, `write_file` and `is_running`. Paths passed to
    them are absolute, and inside the workspace or ``/tmp``.

    Args:
        state: The session's state; ``state.manifest.root`` is the workspace directory.
    """

    def __init__(self, state: SandboxSessionState) -> None:
        self.state = state

    # --- Implemented by the backend -------------------------------------------------------------

    @abc.abstractmethod
    async def run_command(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        environment: Mapping[str, str],
        timeout: float | None,
    ) -> ExecResult:
        """Run a program and wait for it, with empty stdin and without a shell.

        Args:
            argv: The program and its arguments.
            cwd: An existing directory of the sandbox.
            environment: The manifest's variables, added to the backend's environment.
            timeout: The time limit in seconds; None is the backend's own limit.

        Raises:
            ExecTimeoutError: The program timed out and was killed, with everything it started.
            ExecTransportError: The program could not be run; ``retryable=False`` prevents retries.
        """

    @abc.abstractmethod
    async def read_file(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The file cannot be read.
        """

    @abc.abstractmethod
    async def write_file(self, path: str, content: bytes) -> None:
        """Write a file in an existing directory, replacing an existing file.

        Raises:
            OSError: The file cannot be written.
        """

    @abc.abstractmethod
    async def is_running(self) -> bool:
        """Return whether the sandbox is running.

        Raises:
            Exception: The backend did not answer. That is not the same as "no".
        """

    # --- Derived --------------------------------------------------------------------------------

    async def running(self) -> bool:
        """Return whether the sandbox is running."""
        return await self.is_running()

    async def _exec_internal(
        self, *command: str | Path, timeout: float | None = None
    ) -> ExecResult:
        return await self.run_command(
            [str(part) for part in command],
            cwd=self.state.manifest.root,
            environment=await self.state.manifest.environment.resolve(),
            timeout=timeout,
        )

    async def _prepare_backend_workspace(self) -> None:
        await self._plain("mkdir", "-p", "--", self.state.manifest.root)

    async def _plain(self, *argv: str) -> ExecResult:
        """Run a program outside the workspace.

        Raises:
            ExecNonZeroError: The exit code is not 0.
        """
        ran = await self.run_command(argv, cwd="/", environment={}, timeout=None)
        if not ran.ok():
            raise ExecNonZeroError(ran, command=argv)
        return ran

    def _runtime_helpers(self) -> tuple[RuntimeHelperScript, ...]:
        return (RESOLVE_WORKSPACE_PATH_HELPER,)

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        # Checked in the sandbox, because its links may lead anywhere.
        return await self._validate_remote_path_access(path, for_write=for_write)

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        """Read a file."""
        if user is not None:
            await self._check_read_with_exec(path, user=user)
        target = sandbox_path_str(await self._validate_path_access(path))
        try:
            return io.BytesIO(await self.read_file(target))
        except FileNotFoundError as error:
            raise WorkspaceReadNotFoundError(path=path, cause=error) from error
        except OSError as error:
            raise WorkspaceArchiveReadError(path=path, cause=error) from error

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        """Write a file, creating its parent directories."""
        if user is not None:
            await self._check_write_with_exec(path, user=user)
        target = await self._validate_path_access(path, for_write=True)
        content = data.read()
        try:
            await self._plain("mkdir", "-p", "--", sandbox_path_str(target.parent))
            await self.write_file(
                sandbox_path_str(target),
                content.encode("utf-8") if isinstance(content, str) else bytes(content),
            )
        except (ExecNonZeroError, OSError) as error:
            raise WorkspaceArchiveWriteError(path=path, cause=error) from error

    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        """List a directory; file names may contain any bytes."""
        folder = sandbox_path_str(await self._validate_path_access(path))
        return await list_folder(self, folder, user)

    async def persist_workspace(self) -> io.IOBase:
        """Return the workspace as a tar archive, without the skipped paths."""
        root, archive = self.state.manifest.root, f"/tmp/{uuid.uuid4().hex}.tar"  # noqa: S108 - of the sandbox
        skipped = excluding(self._persist_workspace_skip_relpaths())
        try:
            await self._plain("tar", "-C", root, *skipped, "-cf", archive, ".")
            content = io.BytesIO(await self.read_file(archive))
            check_archive(content)
        except (ExecNonZeroError, OSError, UnsafeArchive) as error:
            raise WorkspaceArchiveReadError(path=Path(root), cause=error) from error
        finally:
            await self._plain("rm", "-f", archive)
        return content

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Fill the workspace from a tar archive."""
        root, archive = self.state.manifest.root, f"/tmp/{uuid.uuid4().hex}.tar"  # noqa: S108 - of the sandbox
        content = io.BytesIO(data.read())
        try:
            check_archive(content)
            await self.write_file(archive, content.getvalue())
            await self._plain("tar", "-C", root, "-xpf", archive)
        except (ExecNonZeroError, OSError, UnsafeArchive) as error:
            raise WorkspaceArchiveWriteError(
                path=Path(root), cause=error, context={"reason": str(error)}
            ) from error
        finally:
            await self._plain("rm", "-f", archive)
