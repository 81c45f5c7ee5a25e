"""The client and the session: directories, and processes that run in them."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import tarfile
import uuid
from contextlib import suppress
from pathlib import Path

from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.manifest import Manifest
from agents.sandbox.session import (
    BaseSandboxClient,
    BaseSandboxSession,
    SandboxSession,
    SandboxSessionState,
)
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec, resolve_snapshot
from agents.sandbox.types import ExecResult, User
from agents.sandbox.util.tar_utils import (
    UnsafeTarMemberError,
    safe_extract_tarfile,
    should_skip_tar_member,
)

from acme_sandbox_echo.models import EchoSandboxClientOptions, EchoSandboxSessionState


class EchoSandboxSession(BaseSandboxSession):
    """One directory. What the SDK's base class does with `exec`, as `ls`, it does here too."""

    state: EchoSandboxSessionState

    def __init__(self, state: EchoSandboxSessionState) -> None:
        self.state = state

    @property
    def _root(self) -> Path:
        return Path(self.state.manifest.root)

    async def _prepare_backend_workspace(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)

    async def running(self) -> bool:
        """Return whether the directory is there: `start` makes it, and `delete` removes it."""
        return self._root.is_dir()

    async def _exec_internal(
        self, *command: str | Path, timeout: float | None = None
    ) -> ExecResult:
        environment = await self.state.manifest.environment.resolve()
        try:
            process = await asyncio.create_subprocess_exec(
                *map(str, command),
                cwd=self._root,
                env={"PATH": os.defpath, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ExecTransportError(command=command, cause=error) from error
        try:
            stdout, stderr = await asyncio.wait_for(process.communicate(), timeout)
        except asyncio.TimeoutError as error:
            raise ExecTimeoutError(command=command, timeout_s=timeout, cause=error) from error
        finally:
            if process.returncode is None:  # Timed out or cancelled: leave no process behind.
                os.killpg(process.pid, signal.SIGKILL)
        return ExecResult(stdout=stdout, stderr=stderr, exit_code=process.returncode or 0)

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        """Read a file."""
        if user is not None:
            await self._check_read_with_exec(path, user=user)
        target = await self._validate_path_access(path)
        try:
            return io.BytesIO(target.read_bytes())
        except FileNotFoundError as error:
            raise WorkspaceReadNotFoundError(path=path, cause=error) from error
        except OSError as error:
            raise WorkspaceArchiveReadError(path=path, cause=error) from error

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        """Write a file, and make the directories that it is in."""
        if user is not None:
            await self._check_write_with_exec(path, user=user)
        target = await self._validate_path_access(path, for_write=True)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data.read())
        except OSError as error:
            raise WorkspaceArchiveWriteError(path=path, cause=error) from error

    async def persist_workspace(self) -> io.IOBase:
        """Return the directory as a tar archive, without what the manifest calls ephemeral."""
        skipped = self._persist_workspace_skip_relpaths()

        def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            skip = should_skip_tar_member(member.name, skip_rel_paths=skipped, root_name=None)
            return None if skip else member

        archive = io.BytesIO()
        try:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.add(self._root, arcname=".", filter=kept)
        except OSError as error:
            raise WorkspaceArchiveReadError(path=self._root, cause=error) from error
        archive.seek(0)
        return archive

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Fill the directory from a tar archive."""
        try:
            with tarfile.open(fileobj=data, mode="r:*") as tar:
                safe_extract_tarfile(tar, root=self._root, allow_external_symlink_targets=False)
        except (UnsafeTarMemberError, tarfile.TarError, OSError) as error:
            raise WorkspaceArchiveWriteError(path=self._root, cause=error) from error


class EchoSandboxClient(BaseSandboxClient[EchoSandboxClientOptions | None]):
    """Makes, finds and deletes the directories below `home`."""

    backend_id = "acme_echo"
    supports_default_options = True

    def __init__(self, *, home: Path) -> None:
        self._home = home.absolute()

    def directory(self, sandbox_id: str) -> Path:
        """Return the directory of a sandbox, whether or not it exists."""
        return self._home / sandbox_id

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: EchoSandboxClientOptions | None = None,
    ) -> SandboxSession:
        """Return a session for a new sandbox; its `start` makes the directory."""
        session_id = uuid.uuid4()
        sandbox_id = f"{(options or EchoSandboxClientOptions()).prefix}-{session_id.hex}"
        manifest = self._validate_manifest_for_create(manifest or Manifest())
        return self._session(
            EchoSandboxSessionState(
                session_id=session_id,
                sandbox_id=sandbox_id,
                manifest=manifest,
                snapshot=resolve_snapshot(snapshot, str(session_id)),
            )
        )

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Return a session for the sandbox of `state`."""
        if not isinstance(state, EchoSandboxSessionState):
            raise TypeError(f"this client cannot resume a {type(state).__name__}")
        state.assert_path_grants_rebound()
        return self._session(state)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete the sandbox's directory; one that is gone already is no error."""
        assert isinstance(session.state, EchoSandboxSessionState)
        directory = self.directory(session.state.sandbox_id)
        with suppress(FileNotFoundError):
            await asyncio.to_thread(shutil.rmtree, directory)
        return session

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Return the session state that another process has serialized."""
        return self._deserialize_session_state_payload(payload, EchoSandboxSessionState)

    def _session(self, state: EchoSandboxSessionState) -> SandboxSession:
        # The root is this worker's own path, whatever the manifest or an old state says.
        root = str(self.directory(state.sandbox_id))
        manifest = state.manifest.model_copy(update={"root": root}, deep=True)
        session = EchoSandboxSession(state.model_copy(update={"manifest": manifest}))
        return self._wrap_session(session)
