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
from agents.sandbox.types import ExposedPortEndpoint
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
from sandbox_core.workflow.creation import clean_up, cleaning_up, delete_session
from sandbox_core.workflow.handles import is_guest, mark_deleted
from sandbox_core.workflow.record import at_queue
from sandbox_core.workflow.resuming import Patience, unanswered
from sandbox_core.workflow.session_base import DOUBTED
from sandbox_core.workflow.session_commands import SessionCommands
from sandbox_core.workflow.session_files import SessionFiles

_SessionRequestT = TypeVar("_SessionRequestT", bound=m.SessionRequest)


class TemporalSandboxSession(SessionCommands, SessionFiles):
    """A session of the Agents SDK in which every operation is an activity."""

    # --- Lifecycle ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the session; a workspace that is already in use is left untouched.

        If the first start after a create fails or is cancelled, the sandbox is deleted and the
        original error is raised.
        """
        try:
            started = self._record.started
            await self._change_state(ops.START, m.StartRequest(session=self._ref, started=started))
        except BaseException:
            if self._unused is not None:
                await clean_up(self._discard(self._unused))
                self._discarded = True
                self._meter.sandbox_deleted()
            raise
        self._record.started, self._unused, self._discarded = True, None, False
        self._record.shut_down = False

    async def _discard(self, idempotency_key: str) -> None:
        config = cleaning_up(self._record.config)
        await self._delete(config)
        # With some backends' options, deleting a session only pauses the sandbox.
        made = m.DeleteSessionRequest(session=self._ref, create_key=idempotency_key)
        await delete_session(self.provider, config, made)

    async def stop(self) -> None:
        """Save the workspace to a new snapshot and record the snapshot in the session state.

        Raises:
            WorkspaceStopError: The workspace could not be saved; the message names the path or the
                storage at fault.
        """
        if not (self._discarded or self._is_deleted()):
            users = tuple(sorted(self._users))
            request = m.StopRequest(session=self._ref, users=users, guest=is_guest(self))
            await self._change_state(ops.STOP, request)

    async def shutdown(self) -> None:
        """Release the sandbox's resources.

        Some backends delete the sandbox. `start` then restores the workspace from its last
        snapshot, if there is one, in another; until then, operations raise `SandboxLost`. A child
        workflow that resumed the session leaves the sandbox to the workflow that it comes from.
        """
        if not (self._discarded or self._is_deleted()):
            request = m.ShutdownRequest(session=self._ref, guest=is_guest(self))
            await self._change_state(ops.SHUTDOWN, request)
            self._record.shut_down = True
        self._record.started = False

    async def delete(self) -> None:
        """Delete the sandbox; if no worker holds the session, it is not resumed first."""
        if not (self._discarded or self._is_deleted()):
            await self._delete(self._record.config)
            mark_deleted(self)
        self._record.started = False

    async def _change_state(
        self, operation: Operation[_SessionRequestT, m.StateResponse], request: _SessionRequestT
    ) -> None:
        self._record.changed(await self._call(operation, request))

    async def _delete(self, config: ActivityConfig) -> None:
        await self._recovery.settle()  # A resume in progress could still make a sandbox.
        request = self._record.current(
            m.DeleteSessionRequest(
                session=self._ref,
                since=self._meter.sandbox_since,
                retried_keys=self._record.retried_keys,
            )
        )
        try:
            await self._ask_to_delete(config, request)
        except SessionNotOpen:
            # Without holding the session, only a worker on the sandbox's host may delete it.
            placement = self._record.placement
            placement.pinned = placement.on_one_host
            request = request.model_copy(update={"state": dump_state(self.state)})
            await self._ask_to_delete(config, request)

    async def _ask_to_delete(self, config: ActivityConfig, request: m.DeleteSessionRequest) -> None:
        placement, patience = self._record.placement, Patience(config)
        while True:
            asked_at = placement.queue
            try:
                await delete_session(self.provider, at_queue(config, asked_at), request)
            except ActivityError as error:
                if asked_at is None or not unanswered(error):
                    raise
                if await self._recovery.worker_answers():
                    patience.check(asked_at, error)
                    continue
                if not placement.host_bound:
                    raise SessionNotOpen("the worker that held the session is gone") from error
                workflow.logger.warning(
                    "sandbox %s of provider %s is not deleted: no worker answers on its host, %s. "
                    "`sandbox-core reap` finds it there",
                    self._record.sandbox_id,
                    self.provider,
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
        if self.generation > 0 and self._record.started and not self._doubtful:
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
        self._record.settings = self._record.settings.model_copy(
            update={
                "manifest_entries": limits.manifest_entries,
                "local_dir_files": limits.local_dir_files,
            }
        )

    def _set_archive_limits(self, limits: SandboxArchiveLimits | None) -> None:
        super()._set_archive_limits(limits)
        self._record.settings = self._record.settings.model_copy(
            update={"archive_limits": convert.archive_limits(limits)}
        )

    def register_persist_workspace_skip_path(self, path: Path | str) -> Path:
        """Exclude a path from snapshots, on the worker too."""
        relative = super().register_persist_workspace_skip_path(convert.path(path))
        skipped = {*self._record.settings.persist_skip_paths, relative.as_posix()}
        self._record.settings = self._record.settings.model_copy(
            update={"persist_skip_paths": tuple(sorted(skipped))}
        )
        return relative

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
