"""The SDK's Docker client, made fit for a worker.

A worker serves many sessions in one event loop, which must not wait for an engine: docker-py
blocks, and the SDK calls it in the event loop for much of what it does. Each difference from the
SDK's classes says what it cures.
"""

from __future__ import annotations

import asyncio
import copy
import io
import logging
import os
import re
import socket
import tarfile
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from agents.sandbox import Manifest
from agents.sandbox._mount_security import redact_mount_error_data
from agents.sandbox.errors import ExecTimeoutError, ExecTransportError, WorkspaceArchiveReadError
from agents.sandbox.sandboxes.docker import (
    DockerSandboxClient,
    DockerSandboxClientOptions,
    DockerSandboxSession,
    DockerSandboxSessionState,
    _docker_volume_names_for_manifest,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from agents.sandbox.types import ExecResult, ExposedPortEndpoint
from agents.sandbox.workspace_paths import sandbox_path_str
from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container, ContainerCollection
from docker.utils.socket import consume_socket_output, demux_adaptor, frames_iter

from sandbox_core.providers import LabelledSandbox
from sandbox_docker import labels as container_labels
from sandbox_docker.workspace import ARCHIVE, only_file, save_command

logger = logging.getLogger(__name__)

_ResultT = TypeVar("_ResultT")

# The SDK's pool has 8 threads for all sessions of a process, and a command holds one for as long as
# it runs. A worker performs 100 activities at once unless it is told otherwise.
_THREADS: Final = ThreadPoolExecutor(max_workers=256, thread_name_prefix="sandbox-docker")

_KILL_S: Final = 10.0
"""How long ending a command may take before its timeout is reported anyway."""

_NOT_EXECUTED: Final = 126
"""The exit code of a command that could not be executed, by the engine too."""

_MARK_VARIABLE: Final = "SANDBOX_DOCKER_COMMAND"

# Kills the processes whose environment holds $1, until there are none; they may be forking.
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

# As the SDK names the volumes of a session: its id, a hash of the path, and the path.
_SESSION_VOLUME: Final = re.compile(r"sandbox_[0-9a-f]{32}_[0-9a-f]{12}_")


class EngineUnreachable(Exception):
    """The Docker engine does not answer, or refuses to."""


async def _in_thread(function: Callable[..., _ResultT], *arguments: object) -> _ResultT:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_THREADS, copy_context().run, function, *arguments)


async def _in_other_loop(coroutine: Coroutine[Any, Any, _ResultT]) -> _ResultT:
    """Await a coroutine of the SDK's that blocks, in an event loop and a thread of its own."""
    return await _in_thread(asyncio.run, coroutine)


class _Containers(ContainerCollection):  # type: ignore[misc]  # a class without types
    def create(self, image: str, command: object = None, **settings: object) -> Container:
        # The SDK makes `tail` process 1, which reaps no orphans and ignores SIGTERM: every process
        # that outlives its parent would stay as a zombie. The engine's own init does better.
        return super().create(image, command, **{"init": True, **settings})


class _Engine(DockerClient):  # type: ignore[misc]  # a class without types
    @property
    def containers(self) -> _Containers:
        return _Containers(client=self)


def connect(address: str) -> DockerClient:
    """Return docker-py's client of the engine at `address`, with the environment's TLS settings.

    The contexts of the `docker` command are left alone: the ids in histories belong to one engine.

    Raises:
        EngineUnreachable: It does not answer, or refuses.
    """
    try:
        return _Engine.from_env(environment={**os.environ, "DOCKER_HOST": address})
    except DockerException as error:
        raise EngineUnreachable(
            f"no Docker engine can be used at {address} (DOCKER_HOST): {error}"
        ) from error


class _Command:
    """One command in a container, run in a thread that another one can call back."""

    def __init__(self, container: Container, **settings: object) -> None:
        self._container = container
        self._settings = settings
        self._abandoned = threading.Event()
        self._raw_socket: Any = None

    def run(self) -> tuple[bytes, bytes, int | None]:
        """Run the command to its end; without an exit code if nobody waits for it any more."""
        api = self._container.client.api
        exec_id = api.exec_create(self._container.id, **self._settings)["Id"]
        if self._abandoned.is_set():
            return b"", b"", None
        connection = DockerSandboxSession._start_exec_socket(api=api, exec_id=exec_id)
        try:
            self._raw_socket = connection.raw_sock
            if self._abandoned.is_set():
                return b"", b"", None
            frames = (demux_adaptor(*frame) for frame in frames_iter(connection.sock, tty=False))
            stdout, stderr = consume_socket_output(frames, demux=True)
        finally:
            connection.close()
        exit_code = None if self._abandoned.is_set() else api.exec_inspect(exec_id)["ExitCode"]
        return stdout or b"", stderr or b"", exit_code

    def abandon(self) -> None:
        """Have `run` return now, whatever becomes of the command."""
        self._abandoned.set()
        if self._raw_socket is not None:
            with suppress(OSError):
                self._raw_socket.shutdown(socket.SHUT_RDWR)


class ThreadedDockerSandboxSession(DockerSandboxSession):
    """The SDK's session, which leaves the event loop free and no process behind."""

    @classmethod
    def taking_over(cls, session: DockerSandboxSession) -> ThreadedDockerSandboxSession:
        """Return a session in the place of `session`, which was just opened."""
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
        # At a timeout the SDK asks `pkill`, in the event loop, for the command line that it has
        # sent: where there is a pkill, it finds neither what a shell has replaced itself with nor
        # what the command has started, and it takes the text for a pattern. What it misses runs
        # on, with one of the SDK's threads waiting for it. A mark in the environment finds
        # whatever has inherited it.
        mark = f"{_MARK_VARIABLE}={uuid.uuid4().hex}"
        kill = kill_on_timeout and timeout is not None
        command = _Command(
            self._container,
            cmd=cmd,
            workdir=workdir,
            user=user or "",
            environment=[mark] if kill else None,
        )
        running = asyncio.ensure_future(_in_thread(command.run))
        try:
            await asyncio.wait({running}, timeout=timeout)
            if not running.done():
                command.abandon()
                if kill:
                    await self._kill_marked(mark, user, running)
                raise ExecTimeoutError(command=command_for_errors, timeout_s=timeout)
            stdout, stderr, exit_code = running.result()
            if exit_code == _NOT_EXECUTED and not await self.running():
                # The engine says so in what it passes off as the command's output.
                raise ExecTransportError(
                    command=command_for_errors, context={"reason": "container_not_running"}
                )
        except (DockerException, OSError) as error:
            raise ExecTransportError(command=command_for_errors, cause=error) from error
        finally:
            command.abandon()
            running.cancel()
        if exit_code is None:
            raise ExecTransportError(
                command=command_for_errors, context={"reason": "missing_exit_code"}
            )
        return ExecResult(stdout=stdout, stderr=stderr, exit_code=exit_code)

    async def _kill_marked(self, mark: str, user: str | None, running: asyncio.Future[Any]) -> None:
        """Kill what bears the mark, as the user who started it: no other may see the mark."""
        killer = _Command(
            self._container, cmd=["sh", "-c", _KILL_MARKED, "sh", mark], user=user or ""
        )
        problem: object
        try:
            # Once its thread is back, the command is running, or it never will be.
            await asyncio.wait({running}, timeout=_KILL_S)
            _, _, problem = await asyncio.wait_for(_in_thread(killer.run), timeout=_KILL_S)
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
        # The SDK says of a container that is gone what it was when it was last seen.
        try:
            await _in_thread(self._container.reload)
        except NotFound:
            return False
        except APIError:
            pass
        return bool(self._container.status == "running")

    async def _ensure_backend_started(self) -> None:
        if not await self.running():
            await _in_thread(self._container.start)

    @redact_mount_error_data
    async def persist_workspace(self) -> io.IOBase:
        # The SDK copies the workspace, which makes files of their own of hard links, archives the
        # copy, and refuses what it does not restore; that is carried on by the core.
        root = self._workspace_root_path()
        if any(path == root for _, path in self.state.manifest.ephemeral_mount_targets()):
            return await super().persist_workspace()
        stage = self._archive_stage_path(name_hint="workspace")
        skipped = self._persist_workspace_skip_relpaths()
        command = save_command(sandbox_path_str(stage), root.as_posix(), skipped)
        try:
            await self._exec_checked(*command, error_cls=WorkspaceArchiveReadError, error_path=root)
            sent = await _in_thread(self._workspace_archive_stream, stage / ARCHIVE)
            try:
                return await _in_thread(only_file, sent)
            finally:
                sent.close()
        except NotFound as error:
            raise WorkspaceArchiveReadError(path=root, cause=error, retryable=False) from error
        except (DockerException, OSError, tarfile.TarError) as error:
            raise WorkspaceArchiveReadError(path=root, cause=error, retryable=True) from error
        finally:
            await self._rm_best_effort(stage)

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        return await _in_other_loop(super()._resolve_exposed_port(port))

    async def _shutdown_backend(self) -> None:
        # The SDK asks process 1 to stop and waits 10 s for it, in the event loop: `tail` ignores
        # SIGTERM when it is process 1. None but process 1 would get the signal in any case, and
        # neither `tail` nor an init has anything to save.
        await _in_thread(self._kill_container)

    def _kill_container(self) -> None:
        try:
            self._container.kill()
        except NotFound:
            pass
        except APIError as error:
            if error.status_code != 409:  # It is not running.
                raise


class ThreadedDockerSandboxClient(DockerSandboxClient):
    """The SDK's client, with calls to the engine in threads."""

    _labels: Mapping[str, str] = MappingProxyType({})

    def labelled(self, labels: Mapping[str, str]) -> ThreadedDockerSandboxClient:
        """Return a client of the same connections whose containers have labels.

        They are beside those of the user's options, and a session's state does not hold them.
        """
        made = copy.copy(self)
        made._labels = {**self._labels, **labels}
        return made

    def close(self) -> None:
        """Close the connections to the engine."""
        self.docker_client.close()

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: DockerSandboxClientOptions,
    ) -> SandboxSession:
        """Create a container, pulling its image if the engine does not have it."""
        return await self._open(
            super().create(snapshot=snapshot, manifest=manifest, options=options), known=None
        )

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Open the container of `state`, or a new one if it is gone."""
        known = state.container_id if isinstance(state, DockerSandboxSessionState) else None
        return await self._open(super().resume(state), known=known)

    async def _open(
        self, opening: Coroutine[Any, Any, SandboxSession], *, known: str | None
    ) -> SandboxSession:
        # In the SDK the event loop waits for the engine, for minutes if an image has to be pulled.
        task = asyncio.ensure_future(_in_other_loop(opening))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # docker-py cannot be interrupted, and nobody would hear of the container it makes.
            await asyncio.wait({task})
            if task.exception() is None and _container_id(task.result()) != known:
                await self.delete(task.result())
            raise

    def _wrap_session(
        self, inner: BaseSandboxSession, *, instrumentation: Instrumentation | None = None
    ) -> SandboxSession:
        # The SDK's `create` and `resume` make a session of their own class.
        if isinstance(inner, DockerSandboxSession):
            inner = ThreadedDockerSandboxSession.taking_over(inner)
        return super()._wrap_session(inner, instrumentation=instrumentation)

    async def _create_container(
        self,
        image: str,
        *,
        manifest: Manifest | None = None,
        exposed_ports: tuple[int, ...] = (),
        network_mode: Literal["none"] | None = None,
        session_id: uuid.UUID | None = None,
        labels: dict[str, str] | None = None,
    ) -> Container:
        return await super()._create_container(
            image,
            manifest=manifest,
            exposed_ports=exposed_ports,
            network_mode=network_mode,
            session_id=session_id,
            labels={**(labels or {}), **self._labels},
        )

    @redact_mount_error_data
    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Remove the session's container and volumes."""
        inner = session._inner
        if not isinstance(inner, DockerSandboxSession):
            raise TypeError(f"not a session of this client: {type(inner).__name__}")
        volumes = _docker_volume_names_for_manifest(
            inner.state.manifest, session_id=inner.state.session_id
        )
        try:
            await inner.shutdown()
        finally:
            await self.remove_container(inner.state.container_id, volumes)
        return session

    async def has_container(self, container_id: str) -> bool:
        """Return whether the engine has the container, and is not about to remove it."""
        container = await _in_thread(self._find, container_id)
        return container is not None and container.status not in ("removing", "dead")

    async def remove_container(self, container_id: str, volumes: Iterable[str] = ()) -> None:
        """Remove a container, anonymous volumes, and those of its session; none need exist."""
        await _in_thread(self._remove, container_id, volumes)

    async def find_containers(self, labels: Mapping[str, str]) -> list[LabelledSandbox]:
        """Return the containers with all of these labels, whether they run or not."""
        return await _in_thread(container_labels.find, self.docker_client, labels)

    async def relabel_container(self, container_id: str, labels: Mapping[str, str]) -> None:
        """Set labels of a container that exists, beside those that it has.

        Raises:
            NotFound: It does not exist.
        """
        await _in_thread(container_labels.relabel, self.docker_client, container_id, labels)

    async def check_engine(self) -> None:
        """Return if the engine answers.

        Raises:
            DockerException: It refuses.
            OSError: It does not answer.
        """
        await _in_thread(self.docker_client.ping)
        await _in_thread(self.docker_client.version)

    def _find(self, container_id: str) -> Container | None:
        # The SDK takes the id away from a state whose container it must not use again.
        return self.get_container(container_id) if container_id else None

    def _remove(self, container_id: str, volumes: Iterable[str]) -> None:
        names = {*volumes, *container_labels.volumes_of(self.docker_client, container_id)}
        container = self._find(container_id)
        if container is not None:
            mounted = (mount.get("Name") or "" for mount in container.attrs["Mounts"])
            names.update(name for name in mounted if _SESSION_VOLUME.match(name))
            with suppress(NotFound):
                container.remove(force=True, v=True)
        container_labels.remove_volumes(self.docker_client, names)


def _container_id(session: SandboxSession) -> str | None:
    state = session.state
    return state.container_id if isinstance(state, DockerSandboxSessionState) else None
