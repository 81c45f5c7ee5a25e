"""The SDK's client for local directories, with labels on those that it creates."""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, cast

from agents.sandbox import Manifest
from agents.sandbox.errors import WorkspaceArchiveReadError
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
    UnixLocalSandboxSession,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from agents.sandbox.types import User
from agents.sandbox.util.tar_utils import should_skip_tar_member

from sandbox_core.providers import HostProcess, LabellingClient
from sandbox_local import records
from sandbox_local.regular_files import RegularFiles

logger = logging.getLogger(__name__)

_DEFAULT_ROOT: Final = Manifest().root
"""The root in a manifest that stands for a directory that the client creates."""


class LabellingLocalSandboxSession(UnixLocalSandboxSession):
    """The SDK's session, but only `start` recreates a lost directory, with its labels.

    The SDK's `write` creates missing folders: it would turn a lost workspace into an empty one with
    one new file.
    """

    _labels: Mapping[str, str]

    @classmethod
    def taking_over(
        cls, session: UnixLocalSandboxSession, labels: Mapping[str, str]
    ) -> LabellingLocalSandboxSession:
        """Return a session of this class that replaces the newly opened `session`."""
        taken = cls(state=session.state)
        vars(taken).update(vars(session))
        taken._labels = labels
        taken._files = RegularFiles(session.state.manifest)
        return taken

    async def _prepare_backend_workspace(self) -> None:
        root = Path(self.state.manifest.root)
        await asyncio.to_thread(records.prepare, root, self._labels)
        await super()._prepare_backend_workspace()

    async def host_process(self, command: Sequence[str]) -> HostProcess:
        """Return the process that the SDK's `exec` would start for a command."""
        environment, workspace = await self._resolved_exec_context()
        root = Path(workspace).resolve()  # noqa: ASYNC240 - as the SDK's does
        cwd, words = self._shell_workspace_process_context(
            command_parts=self._workspace_relative_command_parts(command, root),
            workspace_root=root,
            cwd=workspace,
        )
        argv = self._confined_exec_command(
            command_parts=words, workspace_root=root, env=environment
        )
        return HostProcess(argv=argv, cwd=cwd, environment=environment)

    def normalize_path(self, path: Path | str, *, for_write: bool = False) -> Path:
        self._check_root()
        return super().normalize_path(path, for_write=for_write)

    async def rm(
        self, path: Path | str, *, recursive: bool = False, user: str | User | None = None
    ) -> None:
        """Remove a file, a link or, with `recursive`, a folder; never a link's target."""
        given = Path(path)
        self.normalize_path(given, for_write=True)  # Refuses a link out of the workspace.
        link = self.normalize_path(given.parent, for_write=True) / given.name
        # The SDK's resolves a link and removes its target.
        if user is None and link.is_symlink():
            link.unlink(missing_ok=True)
        else:
            await super().rm(path, recursive=recursive, user=user)

    async def persist_workspace(self) -> io.IOBase:
        """Return an archive of everything; from 0.24, the SDK's omits FIFOs and hard links.

        Raises:
            WorkspaceArchiveReadError: The directory is gone, or something in it cannot be read.
        """
        self._check_root()
        root, skipped = Path(self.state.manifest.root), self._persist_workspace_skip_relpaths()
        try:
            return await asyncio.to_thread(_archive, root, skipped)
        except (tarfile.TarError, OSError) as error:
            raise WorkspaceArchiveReadError(path=root, cause=error) from error

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        self._check_root()
        await super().hydrate_workspace(data)

    def _check_root(self) -> None:
        root = Path(self.state.manifest.root)
        if self.state.workspace_root_ready and not root.is_dir():
            raise WorkspaceArchiveReadError(
                path=root, context={"reason": "workspace_root_not_found"}
            )


def _archive(root: Path, skipped: Iterable[Path]) -> io.IOBase:
    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        skip = should_skip_tar_member(member.name, skip_rel_paths=skipped, root_name=None)
        return None if skip else member

    archive = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(root, arcname=".", filter=kept)
    except BaseException:
        archive.close()
        raise
    archive.seek(0)
    return cast("io.IOBase", archive)


@cache
def _warn_once() -> None:
    logger.warning(
        "provider local isolates nothing: a command can do whatever this worker can. Use "
        "sandbox-bubblewrap or sandbox-docker for what a model writes"
    )


class LabellingLocalSandboxClient(LabellingClient, UnixLocalSandboxClient):
    """The SDK's client, optionally with labels for its directories."""

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: UnixLocalSandboxClientOptions | None = None,
    ) -> SandboxSession:
        """Create a directory, unless the manifest names one of the user's own."""
        _warn_once()
        manifest = manifest if manifest is not None else Manifest()
        if not self._labels or manifest.root != _DEFAULT_ROOT:
            return await super().create(snapshot=snapshot, manifest=manifest, options=options)
        # The SDK's would exist before its labels.
        root = await asyncio.to_thread(records.make, self._labels)
        try:
            manifest = manifest.model_copy(update={"root": str(root)}, deep=True)
            session = await super().create(snapshot=snapshot, manifest=manifest, options=options)
        except BaseException:
            shutil.rmtree(root)
            records.forget(root)
            raise
        assert isinstance(session._inner, UnixLocalSandboxSession)
        session._inner.state.workspace_root_owned = True
        return session

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete the directory, unless it is the user's own."""
        deleted = await super().delete(session)
        await asyncio.to_thread(records.forget, Path(session.state.manifest.root))
        return deleted

    def _wrap_session(
        self, inner: BaseSandboxSession, *, instrumentation: Instrumentation | None = None
    ) -> SandboxSession:
        # The SDK's `create` and `resume` return sessions of its own class.
        if isinstance(inner, UnixLocalSandboxSession):
            inner = LabellingLocalSandboxSession.taking_over(inner, self._labels)
        return super()._wrap_session(inner, instrumentation=instrumentation)
