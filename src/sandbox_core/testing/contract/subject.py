"""The provider under test, and the sandboxes that its checks create."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from agents.sandbox import Manifest
from agents.sandbox.entries import BaseEntry, Dir, File
from agents.sandbox.manifest import Environment
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from agents.sandbox.types import ExecResult

from sandbox_core.errors import ProviderError
from sandbox_core.providers import (
    CAPABILITIES,
    Provider,
    SupportsDestroy,
    SupportsExists,
    SupportsIdentity,
    SupportsLabels,
    SupportsProcessStreams,
)
from sandbox_core.providers.activation import close_client
from sandbox_core.testing.contract.model import (
    NotApplicable,
    PromiseBroken,
    lost_without,
    raised_at,
    told,
)
from sandbox_core.testing.dev_server import DevServer

if TYPE_CHECKING:
    from sandbox_core.testing.contract.fleet import Fleet
    from sandbox_core.testing.contract.imports import Imported

logger = logging.getLogger(__name__)

Client: TypeAlias = "BaseSandboxClient[BaseSandboxClientOptions | None]"
_T = TypeVar("_T")

ENVIRONMENT = {
    "PLAIN": "value",
    "SPACES": "  two words ",
    "QUOTES": 'it\'s "quoted" $HOME `id` \\n',
    "UNICODE": "größe 大小",
    "LINES": "first\nsecond",
    "EMPTY": "",
    # Names that a command wrapper may use itself.
    "mode": "production",
    "timeout": "30",
    "root": "/srv",
}
"""The environment of the sandbox shared by most checks."""

FILES: Mapping[str | Path, BaseEntry] = {
    "hello.txt": File(content=b"hello\n"),
    "folder/inner.txt": File(content=b"inner\n"),
    "empty-folder": Dir(),
}
"""The files of the manifest of that sandbox."""


_OTHERS = {"", "abc", "agents", "builtins", "sandbox_core", "typing"}


class ClientNotMade(ProviderError):
    """`create_client` raised an error, so that no check that needs a client can run."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Optional facts about a backend, with which more can be checked."""

    options: BaseSandboxClientOptions | None = None
    """The options of the sandboxes that checks create; None for the provider's default."""

    backend_ids: Callable[[], Awaitable[set[str]]] | None = None
    """Returns the ids of all sandboxes at the backend, labelled or not, to detect leaked ones."""

    kill_sandbox: Callable[[str], Awaitable[None]] | None = None
    """Kills a sandbox from outside, as the backend's operator would; the default is `destroy`."""

    stop_sandbox: Callable[[str], Awaitable[None]] | None = None
    """Stops a sandbox from outside so that it can be started again, as a backend does with idle
    ones; None if the backend's sandboxes do not stop."""

    unreachable: Mapping[str, str] | None = None
    """Environment variables with which `create_client` makes a client for a backend that does not
    answer, such as the URL of a closed port."""

    max_sandboxes: int = 4
    """How many sandboxes may exist at a time."""

    timeout_s: float = 60.0
    """How long one operation of the backend may take, in seconds."""


@dataclass(kw_only=True)
class Subject:
    """The provider under test, a client of it, and the sandboxes that the checks create.

    Use it as an asynchronous context manager: it closes the client and deletes the sandboxes.
    """

    provider: Provider
    module: str | None = None
    """The module of the entry point, if the provider has one."""

    backend: Backend = field(default_factory=Backend)
    temporal: str | None = None
    """The address of a Temporal server; None to start a dev server when one is needed."""

    steady: Fleet | None = None
    """The workers shared by the checks that end none; see `steady_fleet`."""

    imported: Imported | None = None
    """What importing the module does; see `imports`."""

    client_failed: bool = False
    """Whether a test has already reported that there is no client."""

    _server: DevServer | None = None
    _client: Client | None = None
    _shared: SandboxSession | None = None
    _made: list[tuple[Client, SandboxSession]] = field(default_factory=list)
    _ending: AsyncExitStack = field(default_factory=AsyncExitStack)

    # --- The provider ---------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The client of the provider that most checks share.

        Raises:
            ClientNotMade: `create_client` raised an error.
        """
        if self._client is None:
            try:
                self._client = self.new_client()
            except Exception as error:  # A plugin boundary: the author learns where it was raised.
                place = raised_at(error, self.packages())
                raise ClientNotMade(
                    f"create_client() of {self.provider.name!r} failed: {told(error)}"
                    f"{'' if place is None else f' ({place})'}"
                ) from error
        return self._client

    def packages(self) -> set[str]:
        """Return the packages of the provider's module, class and client class."""
        modules = [self.module or "", type(self.provider).__module__]
        if self._client is not None:
            modules += [kind.__module__ for kind in type(self._client).__mro__]
        return {module.partition(".")[0] for module in modules} - _OTHERS

    def imports_of_client(self) -> Sequence[str]:
        """Return the module of the client that was made, if one was."""
        return () if self._client is None else (type(self._client).__module__,)

    def new_client(self) -> Client:
        """Return another client, such as another worker has; the caller closes it."""
        return cast("Client", self.provider.create_client())

    def options(self) -> BaseSandboxClientOptions:
        """Return the options of the sandboxes that checks create."""
        return self.backend.options or self.provider.default_options()

    def can(self, ability: str) -> bool:
        """Return whether the provider has an optional ability."""
        return isinstance(self.provider, CAPABILITIES[ability])

    @property
    def labelling(self) -> SupportsLabels[Client]:
        """The provider; only if it labels its sandboxes."""
        return cast("SupportsLabels[Client]", self.provider)

    @property
    def streams(self) -> SupportsProcessStreams:
        """The provider; only if it opens streams to processes."""
        return cast("SupportsProcessStreams", self.provider)

    def identity(self, state: SandboxSessionState) -> str:
        """Return the backend's id of a sandbox; only if the provider can."""
        return cast("SupportsIdentity", self.provider).identity(state)

    async def exists(self, sandbox_id: str, client: Client | None = None) -> bool:
        """Return whether the sandbox exists; only if the provider can."""
        provider = cast("SupportsExists[Client]", self.provider)
        return await self.within(provider.exists(client or self.client, sandbox_id))

    async def destroy(self, sandbox_id: str) -> None:
        """Delete a sandbox by its id; only if the provider can."""
        provider = cast("SupportsDestroy[Client]", self.provider)
        await self.within(provider.destroy(self.client, sandbox_id))

    async def kill(self, session: SandboxSession) -> None:
        """Kill the sandbox of a session, as the loss of its host would.

        Raises:
            NotApplicable: Neither the author nor the provider offers a way to.
        """
        if not self.can("identity"):
            raise NotApplicable(lost_without("identity"))
        sandbox_id = self.identity(session.state)
        if self.backend.kill_sandbox is not None:
            await self.backend.kill_sandbox(sandbox_id)
        elif self.can("destroy"):
            await self.destroy(sandbox_id)
        else:
            raise NotApplicable(
                "no `destroy`, and `Backend(kill_sandbox=...)` is not given: nobody has tried what "
                "users see of a lost sandbox"
            )

    async def within(self, work: Awaitable[_T]) -> _T:
        """Await `work`, which must not hang.

        Raises:
            PromiseBroken: It took longer than the backend's `timeout_s`.
        """
        # Not `wait_for`: the provider's own `TimeoutError` means something else.
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task}, timeout=self.backend.timeout_s)
        finally:
            in_time = task.done()
            task.cancel()
        if not in_time:
            await asyncio.wait({task})
            broken = PromiseBroken(f"no answer within {self.backend.timeout_s:g} s")
            broken.__context__ = _raised_by(task)  # Where in the provider it was waiting.
            raise broken
        return await task

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[Subject]:
        """Yield the provider with a backend that does not answer, and expect a proper error.

        Raises:
            PromiseBroken: The body raised it.
        """
        variables = self.backend.unreachable or {}
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            provider: Provider = (
                self.provider
                if self.module is None
                else importlib.import_module(self.module).sandbox_client_provider()
            )
            async with Subject(provider=provider, backend=self.backend) as subject:
                yield subject
        except PromiseBroken:
            raise
        except Exception as error:  # noqa: BLE001 - any error says that it does not answer
            logger.debug("the backend does not answer: %s", error)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    # --- Sandboxes ------------------------------------------------------------------------------

    async def make(
        self,
        *,
        files: Mapping[str | Path, BaseEntry] | None = None,
        environment: Mapping[str, str] | None = None,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        client: Client | None = None,
        start: bool = True,
    ) -> SandboxSession:
        """Create and start a sandbox, which is deleted at the end."""
        maker = client or self.client
        manifest = None
        if files is not None or environment is not None:
            manifest = Manifest(
                entries=dict(files or {}), environment=Environment(value=dict(environment or {}))
            )
        session = await self.within(
            maker.create(snapshot=snapshot, manifest=manifest, options=self.options())
        )
        self.keep(session, maker)
        if start:
            await self.within(session.start())
        return session

    def keep(self, session: SandboxSession, client: Client | None = None) -> None:
        """Have a session of `client`, by default the shared one, deleted at the end."""
        self._made.append((client or self.client, session))

    async def session(self) -> SandboxSession:
        """Return the sandbox shared by the checks that leave it as they found it."""
        if self._shared is None:
            self._shared = await self.make(files=FILES, environment=ENVIRONMENT)
        return self._shared

    async def folder(self, session: SandboxSession | None = None) -> Path:
        """Return a new folder in a session's workspace, by default the shared one."""
        path = Path(f"check-{uuid.uuid4().hex[:12]}")
        used = session or await self.session()
        await self.within(used.mkdir(path, parents=True))
        return path

    async def sh(
        self, script: str, session: SandboxSession | None = None, *, timeout: float | None = None
    ) -> ExecResult:
        """Run a shell script in a session's workspace, by default the shared one."""
        return await self.within((session or await self.session()).exec(script, timeout=timeout))

    async def delete(self, session: SandboxSession) -> None:
        """Delete the sandbox of a session that `make` returned."""
        for client, made in list(self._made):
            if made is session:
                self._made.remove((client, made))
                await self.within(client.delete(session))

    @asynccontextmanager
    async def leaving_nothing(self) -> AsyncIterator[None]:
        """Expect that no new sandbox exists at the end of the context.

        Raises:
            PromiseBroken: One does.
            NotApplicable: The sandboxes cannot be listed.
        """
        if self.backend.backend_ids is None:
            raise NotApplicable(
                "`Backend(backend_ids=...)` is not given: sandboxes that remain at the backend, "
                "and cost money, go unnoticed"
            )
        before = await self.backend.backend_ids()
        yield
        left = await self.backend.backend_ids() - before
        if left:
            raise PromiseBroken(f"left at the backend: {', '.join(sorted(left))}")

    async def clean_up(self, *, all_of_them: bool = False) -> None:
        """Delete the sandboxes of the last check and, with `all_of_them`, the shared one."""
        for client, session in reversed(self._made.copy()):
            if session is self._shared and not all_of_them:
                continue
            self._made.remove((client, session))
            try:
                await self.within(client.delete(session))
            except Exception as error:  # noqa: BLE001 - a provider's; the check has its own answer
                logger.debug("a sandbox could not be deleted after its check: %s", error)

    async def temporal_address(self) -> str:
        """Return the address of a Temporal server, which runs until the end.

        Raises:
            FileNotFoundError: There is no ``temporal`` executable with which to start one.
        """
        if self.temporal is None:
            self._server = DevServer()
            await asyncio.to_thread(self._server.start)
            self.temporal = self._server.address
        return self.temporal

    def at_end(self, end: Callable[[], Awaitable[None]]) -> None:
        """Register `end` to be called before the sandboxes and the server are ended."""
        self._ending.push_async_callback(end)

    def folder_until_end(self) -> str:
        """Return a new folder on this host, which is removed at the end."""
        return self._ending.enter_context(tempfile.TemporaryDirectory())

    def discard_shared(self) -> None:
        """Give the next check a new sandbox, after a check failed in the shared one."""
        self._shared = None

    async def __aenter__(self) -> Subject:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._shared = self.steady = None
        await self._ending.aclose()
        await self.clean_up(all_of_them=True)
        if self._client is not None:
            await close_client(self._client)
            self._client = None
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)
            self._server = self.temporal = None


async def gather(*work: Awaitable[_T]) -> Sequence[_T]:
    """Run all concurrently, and return their results."""
    return await asyncio.gather(*work)


def _raised_by(task: asyncio.Future[_T]) -> BaseException | None:
    """Return what a task raised when it was cancelled; its traceback says what it awaited."""
    try:
        task.result()
    except BaseException as error:  # noqa: BLE001 - a provider may turn a cancellation into anything
        return error
    return None
