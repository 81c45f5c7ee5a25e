"""Workflows that pass a session's state to another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.sandboxes.docker import DockerSandboxSessionState
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSessionState
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot
from agents.sandbox.workspace_paths import SandboxPathGrant
from pydantic import BaseModel, SerializeAsAny
from temporalio import workflow

from sandbox_core.workflow import temporal_sandbox_client


class Held(BaseModel):
    """A state among other things."""

    state: SandboxSessionState


class HeldWhole(BaseModel):
    """A state of which nothing is left out."""

    state: SerializeAsAny[UnixLocalSandboxSessionState]


async def _take(state: SandboxSessionState) -> str:
    client = temporal_sandbox_client("local")
    session = await client.resume(state)
    read = (await session.read(Path("hello.txt"))).read()
    await client.delete(session)
    return bytes(read).decode()


@workflow.defn
class TakesAnyState:
    """Takes a state annotated as the base of all."""

    @workflow.run
    async def run(self, state: SandboxSessionState) -> str:
        return await _take(state)


@workflow.defn
class TakesLocalState:
    """Takes a state annotated with its class."""

    @workflow.run
    async def run(self, state: UnixLocalSandboxSessionState) -> str:
        return await _take(state)


@workflow.defn
class TakesHeldState:
    """Takes a state in a model that does not name its class."""

    @workflow.run
    async def run(self, held: Held) -> str:
        return await _take(held.state)


@workflow.defn
class TakesWholeState:
    """Takes a state in a model that names its class."""

    @workflow.run
    async def run(self, held: HeldWhole) -> str:
        return await _take(held.state)


@workflow.defn
class TakesSerializedState:
    """Takes a state as JSON."""

    @workflow.run
    async def run(self, state: dict[str, Any]) -> str:
        client = temporal_sandbox_client("local")
        return await _take(client.deserialize_session_state(state))


TAKERS = (TakesAnyState, TakesLocalState, TakesHeldState, TakesWholeState, TakesSerializedState)


@workflow.defn
class PassesState:
    """Makes a sandbox and passes its state to another workflow, which deletes it."""

    @workflow.run
    async def run(self, taker: str) -> str:
        client = temporal_sandbox_client("local")
        session = await client.create(
            manifest=Manifest(entries={"hello.txt": File(content=b"hello\n")})
        )
        await session.start()
        state = session.state
        assert isinstance(state, UnixLocalSandboxSessionState)
        passed: Any = state
        if taker == "TakesSerializedState":
            passed = client.serialize_session_state(state)
        elif taker == "TakesHeldState":
            passed = Held(state=state)
        elif taker == "TakesWholeState":
            passed = HeldWhole(state=state)
        try:
            return str(await workflow.execute_child_workflow(taker, passed))
        except BaseException:
            await client.delete(session)
            raise


@workflow.defn
class NamesHostPath:
    """Resumes a state, or changes that of its session, with a path of the worker's host in it."""

    @workflow.run
    async def run(self, how: str) -> None:
        client = temporal_sandbox_client("local")
        session = await client.create(manifest=Manifest())
        grant = SandboxPathGrant(path="/data", host_path="/srv/s3cr3t")
        granted = session.state.manifest.model_copy(update={"extra_path_grants": (grant,)})
        state = session.state.model_copy(update={"manifest": granted})
        unchanged = session.state
        try:
            if how == "resume":
                await client.resume(state)
            else:
                session.state = state
                await session.exec("true")
        finally:
            session.state = unchanged
            await client.delete(session)


@workflow.defn
class TakesOthersState:
    """Resumes what is no state of a session of provider `local`."""

    @workflow.run
    async def run(self, without: str | None = None) -> None:
        client = temporal_sandbox_client("local")
        manifest = Manifest(root="/workspace")
        state = DockerSandboxSessionState(
            manifest=manifest, snapshot=NoopSnapshot(id="none"), container_id="0" * 64, image="x"
        )
        payload = client.serialize_session_state(state)
        if without is not None:
            del payload[without]
        await client.resume(client.deserialize_session_state(payload))
