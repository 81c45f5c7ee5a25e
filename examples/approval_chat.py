"""The workflow of approval.py: a conversation with an agent that asks before it runs a command."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from agents import Runner, RunResult, RunState
from agents.run import RunConfig
from agents.run_config import SandboxRunConfig
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Shell
from agents.sandbox.capabilities.shell import ShellToolSet
from agents.sandbox.snapshot import RemoteSnapshotSpec
from temporalio import workflow

from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.workflow import WorkflowSandboxSession, temporal_sandbox_client, with_session

TURNS_PER_RUN = 3  # Few, to show it: a history has room for hundreds.


@dataclass
class Start:
    """Where a run begins: the conversation so far, and the state of a session, if there is one.

    `session` is the conversation's own, which it keeps; of `fork_of` it gets a copy.
    """

    provider: str
    conversation: list[Any] = field(default_factory=list)
    session: dict[str, Any] | None = None
    fork_of: dict[str, Any] | None = None


@dataclass
class Reply:
    """What the agent said, or the calls of tools that wait for a decision."""

    text: str
    asks: list[str]


@workflow.defn
class Chat:
    """One conversation in one workspace. It waits for days, if it has to, even without a worker."""

    @workflow.init
    def __init__(self, start: Start) -> None:
        self._provider = start.provider
        self._conversation = start.conversation
        self._session: WorkflowSandboxSession | None = None
        self._interrupted: RunResult | None = None
        self._turns = 0
        self._closed = False
        self._one_at_a_time = asyncio.Lock()

    @workflow.run
    async def run(self, start: Start) -> None:
        """Keep the workspace until the conversation is closed."""
        client = temporal_sandbox_client(start.provider)
        if start.session:
            self._session = await client.resume(client.deserialize_session_state(start.session))
        else:
            self._session = await _create(start.provider, start.fork_of)
        await workflow.wait_condition(lambda: self._closed or self._is_full())
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._closed:
            await client.delete(self._session)
        else:
            workflow.continue_as_new(self._as_start(session=self._state()))

    def _is_full(self) -> bool:
        return self._turns >= TURNS_PER_RUN and self._interrupted is None

    @workflow.update
    async def say(self, message: str) -> Reply:
        """Take a turn, or the part of it until the agent needs a decision."""
        return await self._turn([*self._conversation, {"role": "user", "content": message}])

    @workflow.update
    async def decide(self, approved: bool) -> Reply:
        """Continue the turn, with or without the calls that it waits for."""
        assert self._interrupted is not None
        state = self._interrupted.to_state()
        for call in self._interrupted.interruptions:
            if approved:
                state.approve(call)
            else:
                state.reject(call)
        return await self._turn(state)

    @workflow.update
    async def fork(self) -> Start:
        """Return the start of another conversation, in a copy of the workspace as it is now."""
        async with self._one_at_a_time:
            await (await self._opened()).stop()  # Saves a snapshot; the session stays open.
            return self._as_start(fork_of=self._state())

    @workflow.update
    async def switch(self, provider: str) -> None:
        """Continue in a sandbox of another provider, with the workspace as it is now."""
        async with self._one_at_a_time:
            old = await self._opened()
            await old.stop()
            self._session = await _create(provider, self._state())
            await temporal_sandbox_client(self._provider).delete(old)
            self._provider = provider

    @workflow.signal
    def close(self) -> None:
        """End the conversation, and delete its sandbox."""
        self._closed = True

    async def _turn(self, given: list[Any] | RunState[Any]) -> Reply:
        async with self._one_at_a_time:
            sandbox = SandboxRunConfig(client=with_session(await self._opened()))
            result = await Runner.run(_agent(), given, run_config=RunConfig(sandbox=sandbox))
        if result.interruptions:
            self._interrupted = result
            return Reply("", [str(call.arguments) for call in result.interruptions])
        self._interrupted, self._conversation = None, result.to_input_list()
        self._turns += 1
        return Reply(str(result.final_output), [])

    async def _opened(self) -> WorkflowSandboxSession:
        await workflow.wait_condition(lambda: self._session is not None)
        assert self._session is not None
        return self._session

    def _state(self) -> dict[str, Any]:
        assert self._session is not None
        client = temporal_sandbox_client(self._provider)
        return client.serialize_session_state(self._session.state)

    def _as_start(self, **state: dict[str, Any]) -> Start:
        return Start(self._provider, self._conversation, **state)


async def _create(provider: str, fork_of: dict[str, Any] | None) -> WorkflowSandboxSession:
    """Return a session whose workspace is a copy of another's, or empty, and can be saved."""
    client = temporal_sandbox_client(provider)
    if fork_of:
        session = await client.create(snapshot=client.deserialize_session_state(fork_of).snapshot)
    else:
        spec = RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)
        session = await client.create(snapshot=spec)
    await session.start()
    return session


def _agent() -> SandboxAgent:
    def ask_first(tools: ShellToolSet) -> None:
        tools.exec_command.needs_approval = True

    return SandboxAgent(
        name="Assistant",
        instructions="Work in your workspace. If the user rejects a command, ask what to do.",
        capabilities=[Shell(configure_tools=ask_first)],
    )
