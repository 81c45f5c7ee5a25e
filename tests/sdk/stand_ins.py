"""A workflow's sessions and clients for the SDK's tests, in place of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, MutableMapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from agents.sandbox import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityConfig

from sandbox_core.wire.messages import OpenSessionResponse, SessionRef
from sandbox_core.workflow import TemporalSandboxClient
from sandbox_core.workflow.dispatch import DEFAULT_START_TO_CLOSE_TIMEOUT
from sandbox_core.workflow.session import TemporalSandboxSession
from sandbox_core.workflow.session_wrapper import WorkflowSandboxSession

# Many tests provoke an error that may pass, so that it is tried again: here without a pause.
_CONFIG: Final = ActivityConfig(
    start_to_close_timeout=DEFAULT_START_TO_CLOSE_TIMEOUT,
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=1)),
)


class LocalClient(TemporalSandboxClient):
    """In the place of `UnixLocalSandboxClient`.

    What that is made with belongs to the provider, on the worker; here it has no effect. The
    backend has the SDK's name for it, not the provider's, because the tests look for that in the
    saved states of runs.
    """

    def __init__(self, **_: object) -> None:
        super().__init__("local", _CONFIG)
        self.backend_id = "unix_local"


class LocalSession(TemporalSandboxSession):
    """In the place of `UnixLocalSandboxSession`, which tests make without a client.

    No worker holds it yet. The first operation finds that, and has it opened from its state.
    """

    def __init__(self, *, state: UnixLocalSandboxSessionState) -> None:
        super().__init__(
            "local",
            _CONFIG,
            opened=OpenSessionResponse(
                session=SessionRef(session_id=str(state.session_id), epoch=0), supports_pty=True
            ),
            state=state,
        )

    @classmethod
    def from_state(cls, state: UnixLocalSandboxSessionState) -> LocalSession:
        return cls(state=state)


class WorkspaceSession(LocalSession):
    """In the place of a session of the tests' own that works on a directory of this host."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(
            state=UnixLocalSandboxSessionState(manifest=manifest, snapshot=NoopSnapshot(id="none"))
        )


class PatchSession(WorkspaceSession):
    """In the place of `ApplyPatchSession`, whose files are a dict and not on any disk."""

    def __init__(self, manifest: Manifest | None = None) -> None:
        manifest = manifest or Manifest()
        directory = Path(tempfile.mkdtemp())
        self.files = _Files(directory, root=Path(manifest.root))
        super().__init__(manifest.model_copy(update={"root": str(directory)}))


class _Files(MutableMapping[Path, bytes]):
    """The files in a directory, by the paths that they would have if it were at `root`."""

    def __init__(self, directory: Path, *, root: Path) -> None:
        self._directory = directory
        self._root = root

    def __getitem__(self, path: Path) -> bytes:
        if path not in set(self):
            raise KeyError(path)
        return self._place(path).read_bytes()

    def __setitem__(self, path: Path, content: bytes) -> None:
        self._place(path).parent.mkdir(parents=True, exist_ok=True)
        self._place(path).write_bytes(content)

    def __delitem__(self, path: Path) -> None:
        self._place(path).unlink()

    def __iter__(self) -> Iterator[Path]:
        files = (path for path in self._directory.rglob("*") if path.is_file())
        return (self._root / path.relative_to(self._directory) for path in files)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _place(self, path: Path) -> Path:
        return self._directory / path.relative_to(self._root)


STAND_INS: Final = MappingProxyType(
    {
        "UnixLocalSandboxClient": LocalClient,
        "UnixLocalSandboxSession": LocalSession,
        # The SDK's tests use these where nothing runs a command, for the sake of other systems.
        "FilesystemTestSandboxClient": LocalClient,
        "FilesystemTestSandboxSession": LocalSession,
        "ApplyPatchSession": PatchSession,
        "ProviderNotFoundApplyPatchSession": PatchSession,
        "UserRecordingApplyPatchSession": PatchSession,
        "_SkillsSession": WorkspaceSession,
    }
)
"""By the name in the SDK's tests. A test that comes upon one of these names is run."""

WRAPPERS: Final = MappingProxyType({"SandboxSession": WorkflowSandboxSession})
"""What else has another class in a workflow, where a test puts it around a session."""
