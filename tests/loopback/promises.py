"""What a provider at a hosted service promises, against a loopback server with faults in it.

A plugin's tests subclass these classes, and have fixtures `server`, `provider` and `client`.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
from agents.sandbox import ExecTimeoutError, LocalSnapshotSpec, Manifest, WorkspaceReadNotFoundError
from agents.sandbox.entries import File
from agents.sandbox.errors import SandboxError
from agents.sandbox.manifest import Environment
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from support import running_worker, unique, until
from temporalio.client import Client as Temporal
from temporalio.client import WorkflowHandle
from workflows.creates import CreateAndHold, Hold

from loopback.server import LoopbackServer
from sandbox_core.errors import AtCapacity, InvalidRequest
from sandbox_core.providers import (
    CAPABILITIES,
    SupportsCheck,
    SupportsDestroy,
    SupportsExists,
    SupportsIdentity,
)
from sandbox_core.wire.failures import encode_error

Client = BaseSandboxClient[Any]


class Provider(
    SupportsIdentity, SupportsExists[Any], SupportsDestroy[Any], SupportsCheck[Any], Protocol
):
    """The abilities that every provider at a hosted service has."""

    name: str
    host_bound: bool

    def create_client(self) -> Client: ...

    def default_options(self) -> BaseSandboxClientOptions: ...


class _WithSession:
    @pytest.fixture
    async def session(self, provider: Provider, client: Client, tmp_path: Path) -> SandboxSession:
        """A session that was started, with a file and a variable, and is saved when it stops."""
        manifest = Manifest(
            entries={"src/a.txt": File(content=b"one\n")},
            environment=Environment(value={"GREETING": "hello"}),
        )
        created = await client.create(
            manifest=manifest,
            snapshot=LocalSnapshotSpec(base_path=tmp_path / "snapshots"),
            options=provider.default_options(),
        )
        await created.start()
        return created


class PackagePromises:
    """What is known of a provider before there is a backend."""

    abilities: ClassVar[frozenset[str]] = frozenset(CAPABILITIES) - {"host processes"}
    credentials: ClassVar[Sequence[str]] = ()

    def test_it_has_the_abilities_that_its_readme_says(self, provider: Provider) -> None:
        """And no others; the sandbox does not live on the worker's host."""
        has = {name for name, cls in CAPABILITIES.items() if isinstance(provider, cls)}

        assert self.abilities == has
        assert not provider.host_bound

    def test_a_missing_credential_is_named(
        self, server: LoopbackServer, provider: Provider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before anything is asked of the vendor."""
        for name in self.credentials:
            with monkeypatch.context() as without:
                without.delenv(name)
                with pytest.raises(Exception, match=rf"^{name} is not set") as raised:
                    provider.create_client()

            assert "https://" in str(raised.value)
        assert [] == server.requests

    def test_the_state_of_another_backend_is_refused(self, provider: Provider) -> None:
        """It has no id here."""
        from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSessionState
        from agents.sandbox.snapshot import NoopSnapshot

        state = UnixLocalSandboxSessionState(snapshot=NoopSnapshot(id="x"), manifest=Manifest())

        with pytest.raises(InvalidRequest, match="a session state of type 'unix_local' is not"):
            provider.identity(state)


class LightPromises:
    """What importing a plugin does without, unless the Agents SDK's options need it."""

    module: ClassVar[str]
    vendor: ClassVar[str]
    """The vendor's package."""

    def test_importing_it_does_not_import_the_vendors_sdk(self) -> None:
        """A worker that only runs workflows does without it."""
        code = f"import sys, {self.module}; print({self.vendor!r} in sys.modules)"
        shown = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )

        assert "False\n" == shown.stdout


class LifecyclePromises(_WithSession):
    """A session from its create to its delete."""

    root: ClassVar[str] = "/workspace"
    """Where the workspace is whose manifest does not say."""

    async def test_commands_run_in_the_workspace(self, session: SandboxSession) -> None:
        """With the manifest's environment; each stream comes back whole, and the exit code."""
        script = "pwd; echo $GREETING; cat src/a.txt; echo oops >&2; exit 7"
        result = await session.exec(script)
        long = await session.exec("seq 1 50000")
        quoted = await session.exec("printf", "%s|", "a b", "'$HOME'", "*", shell=False)

        assert f"{self.root}\nhello\none\n" == result.stdout.decode()
        assert (b"oops\n", 7) == (result.stderr, result.exit_code)
        assert "".join(f"{n}\n" for n in range(1, 50001)).encode() == long.stdout
        assert b"a b|'$HOME'|*|" == quoted.stdout

    async def test_a_command_that_takes_too_long_times_out(self, session: SandboxSession) -> None:
        """As the error that the SDK's tools know; the sandbox is usable afterwards."""
        with pytest.raises(ExecTimeoutError):
            await session.exec("sleep 30", timeout=1)

        assert b"still\n" == (await session.exec("echo still")).stdout

    async def test_files_are_what_was_written(self, session: SandboxSession) -> None:
        """Byte for byte, also large ones; a missing one has its own error."""
        content = bytes(range(256)) * 8192
        await session.write(Path("new/b.bin"), io.BytesIO(content))
        await session.mkdir(Path("x/y"), parents=True)
        names = {Path(entry.path).name for entry in await session.ls(Path())}
        read = (await session.read(Path("new/b.bin"))).read()
        await session.rm(Path("new"), recursive=True)

        assert content == read
        assert {"new", "src", "x"} <= names
        for gone in (Path("new/b.bin"), Path("nope.txt")):
            with pytest.raises(WorkspaceReadNotFoundError):
                await session.read(gone)

    async def test_a_resume_opens_the_same_sandbox(
        self, server: LoopbackServer, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """With what is in it; its state survives its JSON."""
        await session.exec("echo edited > src/a.txt")
        state = client.deserialize_session_state(client.serialize_session_state(session.state))
        resumed = await client.resume(state)
        await resumed.start()
        shown = (await resumed.exec("cat src/a.txt")).stdout

        assert provider.identity(session.state) == provider.identity(resumed.state)
        assert b"edited\n" == shown
        assert [provider.identity(session.state)] == list(server.machines)

    async def test_what_was_stopped_and_deleted_is_restored(
        self, server: LoopbackServer, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """In another sandbox, from the snapshot that `stop` has made."""
        await session.exec("echo edited > src/a.txt; mkdir empty; ln -s a.txt src/link")
        await session.stop()
        before = provider.identity(session.state)
        await client.delete(session)
        gone = not await provider.exists(client, before)
        resumed = await client.resume(session.state)
        await resumed.start()
        shown = (await resumed.exec("cat src/link; test -d empty && echo there")).stdout
        after = provider.identity(resumed.state)
        found = await provider.exists(client, after)
        await client.delete(resumed)

        assert (True, True) == (gone, found)
        assert before != after
        assert b"edited\nthere\n" == shown
        assert {} == dict(server.machines)

    async def test_a_destroy_is_repeated_without_an_error(
        self, server: LoopbackServer, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """By its id alone."""
        sandbox_id = provider.identity(session.state)
        for _ in range(2):
            await provider.destroy(client, sandbox_id)

        assert not await provider.exists(client, sandbox_id)
        assert {} == dict(server.machines)

    async def test_check_passes(self, provider: Provider, client: Client) -> None:
        """Where the credentials are right."""
        await provider.check(client)


class TerminalPromises(_WithSession):
    """A terminal, where the Agents SDK's client has them."""

    async def test_a_terminal_is_one(self, session: SandboxSession) -> None:
        """What is typed reaches the program, and its output and end come back."""
        update = await session.pty_exec_start("sh", shell=False, tty=True, yield_time_s=1)
        assert update.process_id is not None
        output = update.output
        update = await session.pty_write_stdin(
            session_id=update.process_id, chars="test -t 0 && echo is-$((40 + 2))\n", yield_time_s=1
        )
        output += update.output
        await session.pty_terminate_all()

        assert b"is-42" in output


class DemoPromises:
    """The demo, with the credentials in the environment."""

    def test_runs(self, server: LoopbackServer, provider: Provider) -> None:
        """`sandbox-core demo --provider NAME`, which the README names to check the service."""
        # Not the `sandbox` of the environment: that of a vendor's distribution may have its place.
        main = "from sandbox_core.cli import main; main()"
        command = [sys.executable, "-c", main, "demo", "--provider", provider.name]
        result = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)

        assert 0 == result.returncode, result.stdout + result.stderr
        assert f"✓ {provider.name}-sandbox_exec" in result.stdout
        assert {} == dict(server.machines)


class FaultPromises(_WithSession):
    """What comes of an answer that is not the one that was asked for.

    A fault at the level of HTTP keeps whether it is worth another attempt, and leaves nothing.
    """

    create: ClassVar[str]
    """The request that makes a sandbox, as `POST /sandboxes`; paths are regular expressions."""

    lookup: ClassVar[str]
    """The request that asks for one."""

    delete: ClassVar[str]
    execute: ClassVar[str]
    """The request that runs a command."""

    listing: ClassVar[str]
    """The request of `check`."""

    at_capacity: ClassVar[tuple[int, object]]
    """How the vendor says that there are as many sandboxes as may be: status and body."""

    forbidden: ClassVar[Sequence[int]] = (401, 403)

    refused_for_now: ClassVar[Sequence[int]] = (409, 429, 502)
    headers: ClassVar[Mapping[str, str]] = {}
    """What an answer has beside, so that the vendor's SDK does not ask once more by itself."""

    @pytest.fixture(autouse=True)
    def _answers_are_final(self, server: LoopbackServer) -> None:
        server.fault_headers = self.headers

    async def test_a_create_that_is_refused_for_now_is_worth_another_attempt(
        self, server: LoopbackServer, provider: Provider, client: Client
    ) -> None:
        """Nothing was made."""
        for status in self.refused_for_now:
            server.fail(self.create, status, times=100)
            with pytest.raises(Exception, match=r".") as raised:
                await client.create(options=provider.default_options())

            assert _is_worth_retrying(raised.value), repr(raised.value)
            assert not isinstance(raised.value, AtCapacity)
            server.faults.clear()
        assert {} == dict(server.machines)

    async def test_expired_credentials_end_a_create_at_once(
        self, server: LoopbackServer, provider: Provider, client: Client
    ) -> None:
        """No attempt will be better."""
        for status in self.forbidden:
            server.fail(self.create, status, times=100)
            with pytest.raises(Exception, match=r".") as raised:
                await client.create(options=provider.default_options())

            assert not _is_worth_retrying(raised.value), repr(raised.value)
            server.faults.clear()
        assert {} == dict(server.machines)

    async def test_the_vendors_limit_is_waited_for(
        self, server: LoopbackServer, provider: Provider, client: Client
    ) -> None:
        """As the worker's own limit is."""
        status, body = self.at_capacity
        server.fail(self.create, status, body=body, times=100)

        with pytest.raises(AtCapacity, match=provider.name):
            await client.create(options=provider.default_options())
        assert {} == dict(server.machines)

    async def test_a_workflow_waits_for_the_vendors_limit(
        self, server: LoopbackServer, provider: Provider, temporal_client: Temporal
    ) -> None:
        """Until there is room, for as long as it may."""
        status, body = self.at_capacity
        full = server.fail(self.create, status, body=body, times=100)
        async with running_worker(temporal_client, CreateAndHold) as queue:
            handle = await temporal_client.start_workflow(
                CreateAndHold.run, Hold(provider.name), id=unique("full"), task_queue=queue
            )
            await until(partial(_waits, handle))
            full.times = 0
            await handle.execute_update(CreateAndHold.root)
            made = len(server.machines)
            await handle.signal(CreateAndHold.finish)
            await handle.result()

        assert (1, {}) == (made, dict(server.machines))

    async def test_a_lookup_without_an_answer_is_not_a_no(
        self, server: LoopbackServer, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """Neither of a server in trouble, nor of one that does not accept the credentials."""
        sandbox_id = provider.identity(session.state)
        for status, again in ((502, True), *((status, False) for status in self.forbidden)):
            server.fail(self.lookup, status, times=100)
            with pytest.raises(Exception, match=r".") as raised:
                await provider.exists(client, sandbox_id)

            assert again is _is_worth_retrying(raised.value), repr(raised.value)
            server.faults.clear()
        assert await provider.exists(client, sandbox_id)

    async def test_a_resume_without_an_answer_makes_no_second_sandbox(
        self, server: LoopbackServer, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """The one that there is has the workspace."""
        state = client.deserialize_session_state(client.serialize_session_state(session.state))
        server.fail(self.lookup, 502, times=100)
        with pytest.raises(Exception, match=r".") as raised:
            await client.resume(state)

        assert _is_worth_retrying(raised.value), repr(raised.value)
        assert [provider.identity(session.state)] == list(server.machines)

    async def test_a_delete_that_is_refused_is_an_error(
        self, server: LoopbackServer, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """Nobody believes that the sandbox is gone; the next attempt deletes it."""
        server.fail(self.delete, 502, times=100)
        with pytest.raises(Exception, match=r".") as raised:
            await client.delete(session)
        left = list(server.machines)
        server.faults.clear()
        await client.delete(session)

        assert _is_worth_retrying(raised.value), repr(raised.value)
        assert [provider.identity(session.state)] == left
        assert {} == dict(server.machines)

    async def test_a_command_whose_answer_is_lost_is_not_run_again(
        self, server: LoopbackServer, session: SandboxSession
    ) -> None:
        """It has been run, and may not be repeatable."""
        server.fail(self.execute, None)
        with contextlib.suppress(SandboxError):  # Unless the SDK gets the answer in the end.
            await session.exec("echo run >> counter")
        script = "until [ -s counter ]; do sleep 0.05; done; cat counter"
        shown = await session.exec(script, timeout=20)

        assert b"run\n" == shown.stdout

    async def test_expired_credentials_end_a_command_at_once(
        self, server: LoopbackServer, session: SandboxSession
    ) -> None:
        """As an error of the sandbox, which the SDK's tools tell the model of."""
        server.fail(self.execute, 401, times=100)
        with pytest.raises(SandboxError) as raised:
            await session.exec("true")
        server.faults.clear()

        assert raised.value.retryable is not True

    async def test_check_tells_expired_credentials(
        self, server: LoopbackServer, provider: Provider, client: Client
    ) -> None:
        """Before anything is created."""
        for status in self.forbidden:
            server.fail(self.listing, status, times=100)
            with pytest.raises(Exception, match=r"."):
                await provider.check(client)
            server.faults.clear()


async def _waits(handle: WorkflowHandle[Any, Any]) -> bool:
    return any(
        b"waiting for room: " in event.user_metadata.summary.data
        for event in (await handle.fetch_history()).events
        if event.HasField("timer_started_event_attributes")
    )


def _is_worth_retrying(error: Exception) -> bool:
    return not encode_error(error).non_retryable
