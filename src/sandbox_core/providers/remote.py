"""A session for backends that can run a command and move a file; the rest is here.

What every author of a client writes again: paths that must not lead out of the workspace, listings
of names of any kind, archives of workspaces. It uses ``sh``, ``tar``, ``stat`` and what else is in
every Linux image, busybox's too.
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
from sandbox_core.providers.listings import list_command, listed_entries


class RemoteSandboxSession(BaseSandboxSession):
    """A session of a backend that runs commands and moves files; implement four methods.

    A subclass implements `run_command`, `read_file`, `write_file` and `is_running`. Paths that
    these are given are absolute, and inside of the workspace or of ``/tmp``.

    Args:
        state: The state of the session; ``state.manifest.root`` is the workspace's folder.
    """

    def __init__(self, state: SandboxSessionState) -> None:
        self.state = state

    # --- What a backend does --------------------------------------------------------------------

    @abc.abstractmethod
    async def run_command(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        environment: Mapping[str, str],
        timeout: float | None,
    ) -> ExecResult:
        """Run a program to its end, with nothing on its stdin; there is no shell.

        Args:
            argv: The program and its arguments, as they are.
            cwd: An existing folder of the sandbox.
            environment: What the manifest adds to the environment that the backend gives.
            timeout: How many seconds it may take; None is as long as the backend lets it.

        Raises:
            ExecTimeoutError: It took longer; it was ended, with what it has started.
            ExecTransportError: It could not be run. With ``retryable=False`` it is not tried again.
        """

    @abc.abstractmethod
    async def read_file(self, path: str) -> bytes:
        """Return a file.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read.
        """

    @abc.abstractmethod
    async def write_file(self, path: str, content: bytes) -> None:
        """Write a file whose folder exists, replacing what is there.

        Raises:
            OSError: It cannot be written.
        """

    @abc.abstractmethod
    async def is_running(self) -> bool:
        """Return whether the sandbox runs.

        Raises:
            Exception: The backend did not answer. That is not the same as "no".
        """

    # --- What follows from that -----------------------------------------------------------------

    async def running(self) -> bool:
        """Return whether the sandbox runs."""
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
        """Run a program that does not depend on the workspace; that it fails is an error.

        Raises:
            ExecNonZeroError: Its exit code is not 0.
        """
        ran = await self.run_command(argv, cwd="/", environment={}, timeout=None)
        if not ran.ok():
            raise ExecNonZeroError(ran, command=argv)
        return ran

    def _runtime_helpers(self) -> tuple[RuntimeHelperScript, ...]:
        return (RESOLVE_WORKSPACE_PATH_HELPER,)

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        # In the sandbox: a link there may lead anywhere.
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
        """Write a file, and make the folders that it is in."""
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
        """List a folder; names may hold newlines and whatever else."""
        folder = sandbox_path_str(await self._validate_path_access(path))
        ran = await self.exec(*list_command(folder), shell=False, user=user)
        if not ran.ok():
            raise ExecNonZeroError(ran, command=("ls", folder))
        return listed_entries(folder, ran.stdout)

    async def persist_workspace(self) -> io.IOBase:
        """Return the workspace as a tar archive, without what is not to be saved."""
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
