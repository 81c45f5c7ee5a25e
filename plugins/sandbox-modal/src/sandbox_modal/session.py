"""Adapts the SDK's session of a sandbox at Modal to a worker.

A comment at each difference from the SDK's class gives the reason.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

import modal
from agents.extensions.sandbox.modal import ModalSandboxSession
from agents.extensions.sandbox.modal.sandbox import (
    _maybe_set_sandbox_cmd,
    _modal_exec_transport_error,
    _override_modal_image_builder_version,
    _write_process_stdin,
)
from agents.sandbox._mount_security import redact_mount_error_data
from agents.sandbox.config import DEFAULT_PYTHON_SANDBOX_IMAGE
from agents.sandbox.errors import (
    ExecTimeoutError,
    WorkspaceArchiveWriteError,
)
from agents.sandbox.files import FileEntry
from agents.sandbox.types import ExecResult, User
from agents.sandbox.workspace_paths import sandbox_path_str

from sandbox_core.providers.archives import UnsafeArchive, check_archive
from sandbox_core.providers.listings import list_folder
from sandbox_modal.api import Modal

# Modal allows 65,536 bytes of arguments; longer commands are passed to a shell as its script.
_LONGEST: Final = 60_000

_RESTORE: Final = 'mkdir -p -- "$1" && exec tar -xp -C "$1"'


class LabelledModalSandboxSession(ModalSandboxSession):
    """The SDK's session, but its sandboxes have tags and survive a command's timeout."""

    api: Modal
    """The connection; set by the client, like `tags`."""

    tags: Mapping[str, str] = MappingProxyType({})
    """The tags of every sandbox that the session creates."""

    async def _ensure_sandbox(self) -> bool:
        # If the look-up fails for any reason, the SDK's creates another sandbox, without tags.
        if self._sandbox is not None:
            return False
        if self.state.sandbox_id:
            self._sandbox = await self.api.running(self.state.sandbox_id)
            if self._sandbox is not None:
                self._running = True
                return True
            self.state.sandbox_id = None
        await self._make_sandbox()
        return False

    async def _make_sandbox(self) -> None:
        state = self.state
        if self._image is None:
            self._image = self._named_image()
        variables: dict[str, str | None] = dict(await state.manifest.environment.resolve())
        async with _override_modal_image_builder_version(state.image_builder_version):
            self._sandbox = await asyncio.wait_for(
                self.api.create(
                    state.app_name,
                    tags=dict(self.tags),
                    image=self._image,
                    workdir=state.manifest.root,
                    env=variables,
                    encrypted_ports=state.exposed_ports,
                    volumes=self._modal_cloud_bucket_mounts_for_manifest(),
                    gpu=state.gpu,
                    cpu=state.cpu,
                    memory=state.memory,
                    timeout=state.timeout,
                    idle_timeout=state.idle_timeout,
                ),
                state.sandbox_create_timeout_s,
            )
        state.sandbox_id = self._sandbox.object_id
        state.image_id = self._image.object_id
        state.workspace_root_ready = False

    def _named_image(self) -> modal.Image:
        state = self.state
        if state.image_id:
            image = modal.Image.from_id(state.image_id)
        else:
            state.image_tag = state.image_tag or DEFAULT_PYTHON_SANDBOX_IMAGE
            image = modal.Image.from_registry(state.image_tag)
        return _maybe_set_sandbox_cmd(image, use_sleep_cmd=state.use_sleep_cmd)

    async def _restore_snapshot_filesystem_image(self, *, snapshot_id: str, root: Path) -> None:
        # This creates a sandbox, too.
        await super()._restore_snapshot_filesystem_image(snapshot_id=snapshot_id, root=root)
        if self.tags and self.state.sandbox_id:
            await self.api.set_tags(self.state.sandbox_id, self.tags)

    async def _exec_internal(
        self, *command: str | Path, timeout: float | None = None
    ) -> ExecResult:
        # At a command's timeout the SDK's terminates the whole sandbox; Modal itself ends only the
        # command, within a second. The SDK's also leaves the command's stdin open.
        await self._ensure_sandbox()
        assert self._sandbox is not None
        argv = [str(part) for part in command]
        limit = None if timeout is None else max(1, math.ceil(timeout))
        try:
            return await asyncio.wait_for(_run(self._sandbox, argv, limit), timeout)
        except (asyncio.TimeoutError, modal.exception.ExecTimeoutError) as error:
            raise ExecTimeoutError(command=command, timeout_s=timeout, cause=error) from error
        except (modal.exception.Error, OSError) as error:
            raise _modal_exec_transport_error(command=command, cause=error) from error

    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        # The SDK parses the lines of `ls -la`, but names may contain newlines.
        folder = sandbox_path_str(await self._validate_path_access(path))
        return await list_folder(self, folder, user)

    async def _read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        # The SDK opens the file with `Sandbox.open()`, which Modal has deprecated. A command reads
        # it, as in the SDK's `read`.
        workspace_path = await self._validate_path_access(path)
        command = ["head", "-c", str(max_bytes), "--", sandbox_path_str(workspace_path)]
        result = await self.exec(*command, shell=False)
        if not result.ok():
            await self._raise_read_error_from_exec(
                path=path, workspace_path=workspace_path, command=command, result=result
            )
        return result.stdout

    @redact_mount_error_data
    async def _hydrate_workspace_via_tar(self, data: io.IOBase) -> None:
        # The SDK refuses hard links, FIFOs, names with backslashes and links to absolute paths, all
        # of which occur in workspaces.
        root = self._workspace_root_path()
        content = data.read()
        try:
            await asyncio.to_thread(check_archive, io.BytesIO(content))
        except UnsafeArchive as error:
            context = {"reason": error.reason, "member": error.member}
            raise WorkspaceArchiveWriteError(path=root, context=context, cause=error) from error
        await self._ensure_sandbox()
        assert self._sandbox is not None
        unpacking = ("sh", "-c", _RESTORE, "sh", root.as_posix())
        process = await self._sandbox.exec.aio(*unpacking, text=False)
        await _write_process_stdin(process, content)
        if await process.wait.aio() != 0:
            reason = (await process.stderr.read.aio()).decode("utf-8", "replace")
            raise WorkspaceArchiveWriteError(path=root, context={"stderr": reason})

    async def _shutdown_backend(self) -> None:
        # If Modal does not end the sandbox, the SDK's ignores that and forgets its id.
        sandbox_id = self.state.sandbox_id
        if sandbox_id:
            await self.api.terminate(sandbox_id)
        self.state.sandbox_id = None
        self.state.workspace_root_ready = False
        self._sandbox = None
        self._running = False


async def _run(sandbox: modal.Sandbox, argv: list[str], limit: int | None) -> ExecResult:
    stdin = b""
    if sum(len(os.fsencode(part)) for part in argv) > _LONGEST:
        argv, stdin = ["sh"], os.fsencode(f"exec {shlex.join(argv)}\n")
    process = await sandbox.exec.aio(*argv, text=False, timeout=limit)
    _, stdout, stderr = await asyncio.gather(
        _give_stdin(process, stdin), process.stdout.read.aio(), process.stderr.read.aio()
    )
    exit_code = await process.wait.aio()
    if limit is not None and exit_code == -1:  # Modal's code for a timeout.
        raise modal.exception.ExecTimeoutError
    return ExecResult(stdout=stdout, stderr=stderr, exit_code=exit_code)


async def _give_stdin(
    process: modal.container_process.ContainerProcess[bytes], content: bytes
) -> None:
    with suppress(modal.exception.Error):  # It may have already ended.
        await _write_process_stdin(process, content)
