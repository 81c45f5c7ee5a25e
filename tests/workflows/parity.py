"""The same agent and the same session, in a workflow and without Temporal."""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents import ModelProvider, Runner
from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.items import ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model, ModelTracing
from agents.result import RunResult, RunResultStreaming
from agents.run import RunConfig
from agents.run_config import SandboxRunConfig
from agents.run_state import RunState
from agents.sandbox import SandboxAgent
from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import LocalSnapshotSpec, NoopSnapshotSpec, SnapshotSpec
from agents.testing import ScriptedModel
from agents.tool import FunctionTool, Tool
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputItem, ResponseOutputText
from openai.types.responses.response_output_message import ResponseOutputMessage
from parity.cases import CASES, PROCESS, REPORT, Case
from temporalio import workflow
from temporalio.contrib.workflow_streams import WorkflowStream

from sandbox_core.workflow import temporal_sandbox_client

Client = BaseSandboxClient[Any]
Transcript = dict[str, Any]
Result = RunResult | RunResultStreaming


class ScriptedModels(ModelProvider):
    """Provides the model of the case that the model's name names."""

    def get_model(self, model_name: str | None) -> Model:
        """Return the model."""
        return _CaseModel(CASES[model_name or ""])


class _CaseModel(Model):
    """Answers with the steps of a case."""

    def __init__(self, case: Case) -> None:
        self._case = case

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 - the SDK's name
        model_settings: ModelSettings,
        tools: list[Tool],
        *args: Any,  # noqa: ANN401 - the SDK's signature
        **kwargs: Any,  # noqa: ANN401 - the SDK's signature
    ) -> ModelResponse:
        """Return the step."""
        scripted = self._scripted(system_instructions, input, model_settings, tools)
        return await scripted.get_response(
            system_instructions, [], model_settings, tools, *args, **kwargs
        )

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 - the SDK's name
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        **kwargs: Any,  # noqa: ANN401 - the SDK's signature
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Stream the step."""
        scripted = self._scripted(system_instructions, input, model_settings, tools)
        async for event in scripted.stream_response(
            system_instructions,
            [],
            model_settings,
            tools,
            output_schema,
            handoffs,
            tracing,
            **kwargs,
        ):
            yield event

    def _scripted(
        self,
        instructions: str | None,
        conversation: str | list[TResponseInputItem],
        settings: ModelSettings,
        tools: list[Tool],
    ) -> ScriptedModel:
        report = json.dumps(_report(instructions, settings, tools), sort_keys=True)
        items = [] if isinstance(conversation, str) else conversation
        return ScriptedModel([next_step(self._case, items, report)])


def next_step(
    case: Case, conversation: Sequence[TResponseInputItem], report: str
) -> list[ResponseOutputItem]:
    """Return the step that follows the answers which the conversation already holds."""
    answers, position = _answers(conversation), 0
    for step in case.steps:
        if position == answers:
            processes = re.findall(r"session ID (\d+)", json.dumps(conversation, default=str))
            values = {REPORT: report, f'"{PROCESS}"': processes[-1] if processes else ""}
            return [_filled_in(item, values) for item in step]
        position += sum(item.type != "compaction" for item in step)
    raise AssertionError(f"the script has no step after {answers} answers")


def _answers(conversation: Sequence[TResponseInputItem]) -> int:
    answers = 0
    for item in conversation:
        kind = str(item.get("type", ""))
        if kind == "compaction":
            # It says how many it replaces, whether they are still there or not.
            answers = int(str(item["encrypted_content"]))  # type: ignore[typeddict-item]  # a compaction's
        answers += kind.endswith("_call_output") or item.get("role") == "assistant"
    return answers


def _report(
    instructions: str | None, settings: ModelSettings, tools: list[Tool]
) -> dict[str, object]:
    return {
        "instructions": instructions,
        "settings": settings.to_json_dict(),
        "tools": [
            [tool.name, tool.description, tool.params_json_schema]
            if isinstance(tool, FunctionTool)
            else [tool.name]
            for tool in tools
        ],
    }


def _filled_in(item: ResponseOutputItem, values: dict[str, str]) -> ResponseOutputItem:
    item = item.model_copy(deep=True)
    if isinstance(item, ResponseFunctionToolCall):
        for name, value in values.items():
            item.arguments = item.arguments.replace(name, value)
    elif isinstance(item, ResponseOutputMessage):
        for part in item.content:
            if isinstance(part, ResponseOutputText) and part.text == REPORT:
                part.text = values[REPORT]
    return item


@dataclass(frozen=True, kw_only=True)
class Request:
    """A case, and a directory of the host for what it reads from or writes to one."""

    case: str
    directory: str


async def converse(
    request: Request, client: Client, models: ModelProvider | None = None
) -> Transcript:
    """Run the agent of a case to its end, and return everything that was said and kept.

    A workflow has the models of its worker's plugin, whatever `models` says.
    """
    run = _Run(request, client, models)
    conversation: list[TResponseInputItem] = []
    result: Result | None = None
    try:
        for turn in range(run.case.turns):
            conversation.append({"role": "user", "content": f"Turn {turn + 1}."})
            result = await run.turn(conversation)
            while result.interruptions:
                state = result.to_state()
                for interruption in result.interruptions:
                    state.approve(interruption)
                result = await run.turn(state)
            conversation = result.to_input_list()
            run.continue_from(result)
    except Exception as error:  # noqa: BLE001 - whatever it is, it has to be the same
        return {**_told(error), "events": run.events}
    assert result is not None
    return {**_transcript(result), "events": run.events}


async def converse_until_approval(request: Request, client: Client) -> Transcript:
    """Run the agent of a case until it asks for approval, and return the run's state as JSON."""
    result = await _Run(request, client).turn("Go.")
    assert result.interruptions
    state: Transcript = result.to_state().to_json()
    return state


async def converse_from(request: Request, client: Client, saved: Transcript) -> Transcript:
    """Approve what a saved run waits for, and run it to its end."""
    run = _Run(request, client)
    state = await RunState.from_json(run.agent, saved)
    for interruption in state.get_interruptions():
        state.approve(interruption)
    return _transcript(await run.turn(state))


class _Run:
    def __init__(
        self, request: Request, client: Client, models: ModelProvider | None = None
    ) -> None:
        directory = Path(request.directory)
        self.case = CASES[request.case]
        manifest = self.case.manifest(directory)
        of_the_run = self.case.manifest_of_the_run
        self.events: list[str] = []
        self.agent = SandboxAgent(
            name="Parity",
            model=request.case,
            instructions="Do as you are told.",
            capabilities=self.case.capabilities(directory),
            default_manifest=None if of_the_run else manifest,
            run_as=self.case.run_as,
        )
        self._client = client
        self._models = models or ScriptedModels()
        self._manifest = manifest if of_the_run else None
        self._snapshot: SnapshotSpec = (
            LocalSnapshotSpec(base_path=directory / "snapshots")
            if self.case.snapshot
            else NoopSnapshotSpec()
        )
        self._session_state: SandboxSessionState | None = None

    async def turn(self, conversation: str | list[TResponseInputItem] | RunState[Any]) -> Result:
        config = RunConfig(
            model_provider=self._models,
            tracing_disabled=True,
            group_id=self.case.group,
            sandbox=SandboxRunConfig(
                client=self._client,
                options=self.case.options,
                snapshot=self._snapshot,
                session_state=self._session_state,
                manifest=self._manifest,
                cwd=self.case.cwd,
            ),
        )
        if not self.case.streamed:
            return await Runner.run(self.agent, conversation, run_config=config)
        streaming: RunResultStreaming = Runner.run_streamed(
            self.agent, conversation, run_config=config
        )
        async for event in streaming.stream_events():
            self.events.append(getattr(event, "name", event.type))
        return streaming

    def continue_from(self, result: Result) -> None:
        kept = result.to_state().to_json()["sandbox"]
        self._session_state = self._client.deserialize_session_state(kept["session_state"])


def _transcript(result: Result) -> Transcript:
    return {
        "conversation": result.to_input_list(),
        "raised": None,
        "kinds": [type(item).__name__ for item in result.new_items],
        "sandbox": result.to_state().to_json()["sandbox"],
    }


def _told(error: BaseException) -> Transcript:
    # What an application that knows neither Temporal nor this package can catch.
    known = (
        cls
        for cls in type(error).__mro__
        if not cls.__module__.startswith(("sandbox_core", "temporalio"))
    )
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SandboxError):
            causes.append(f"{cause.error_code} {json.dumps(cause.context, default=str)}")
        cause = cause.__cause__
    return {
        "raised": next(known).__name__,
        "message": str(error).removeprefix("Workflow failure exception in Agents Framework: "),
        "causes": causes,
    }


Probe = Callable[[SandboxSession, io.BytesIO], Awaitable[object]]


def _patched(kind: str, path: str, **rest: str) -> dict[str, object]:
    return {"type": kind, "path": path, **rest}


async def _listed(session: SandboxSession, path: str) -> list[str]:
    return sorted(Path(entry.path).name for entry in await session.ls(path))


async def _read(session: SandboxSession, path: str) -> str:
    return str((await session.read(Path(path))).read())


# `out` is a link to a directory outside, `secret` one to a file there.
PROBES: dict[str, Probe] = {
    "mkdir": lambda s, _: s.mkdir("out/made"),
    "mkdir with parents": lambda s, _: s.mkdir("out/made/deep", parents=True),
    "mkdir over the link": lambda s, _: s.mkdir("out", parents=True),
    "rm": lambda s, _: s.rm("out/secret.txt"),
    "rm recursively": lambda s, _: s.rm("out/folder", recursive=True),
    "rm the link": lambda s, _: s.rm("out", recursive=True),
    "rm the link to a file": lambda s, _: s.rm("secret"),
    "write": lambda s, _: s.write(Path("out/new.txt"), io.BytesIO(b"new")),
    "overwrite": lambda s, _: s.write(Path("out/secret.txt"), io.BytesIO(b"new")),
    "write to the link": lambda s, _: s.write(Path("secret"), io.BytesIO(b"new")),
    "read": lambda s, _: _read(s, "out/secret.txt"),
    "read the link": lambda s, _: _read(s, "secret"),
    "read beside the workspace": lambda s, _: _read(s, "../secret.txt"),
    "ls": lambda s, _: _listed(s, "out"),
    "ls below": lambda s, _: _listed(s, "out/folder"),
    "ls above": lambda s, _: _listed(s, ".."),
    "extract a tar into it": lambda s, packed: s.extract("out/x.tar", packed),
    "extract a tar through it": lambda s, packed: s.extract("x.tar", packed),
    "extract a tar over it": lambda s, packed: s.extract("x.tar", packed),
    "extract a tar above": lambda s, packed: s.extract("x.tar", packed),
    "extract a zip into it": lambda s, packed: s.extract("out/x.zip", packed),
    "extract a zip through it": lambda s, packed: s.extract("x.zip", packed),
    "extract a zip above": lambda s, packed: s.extract("x.zip", packed),
    "create by patch": lambda s, _: s.apply_patch(_patched("create_file", "out/p.txt", diff="+p")),
    "update by patch": lambda s, _: s.apply_patch(
        _patched("update_file", "out/secret.txt", diff="@@\n-secret\n+public\n")
    ),
    "delete by patch": lambda s, _: s.apply_patch(_patched("delete_file", "out/secret.txt")),
    "move by patch": lambda s, _: s.apply_patch(
        _patched("update_file", "plain.txt", diff="@@\n-plain\n+p\n", move_to="out/p.txt")
    ),
    "write as a user": lambda s, _: s.write(Path("out/u.txt"), io.BytesIO(b"u"), user="nobody"),
    "ls as a user": lambda s, _: s.ls("out", user="nobody"),
    "hydrate through it": lambda s, packed: s.hydrate_workspace(packed),
}


# What is in the archive of those that take one.
PACKED: dict[str, str] = {
    "extract a tar into it": "a.txt",
    "extract a tar through it": "out/a.txt",
    "extract a tar over it": "secret",
    "extract a tar above": "../a.txt",
    "extract a zip into it": "a.txt",
    "extract a zip through it": "out/a.txt",
    "extract a zip above": "../a.txt",
    "hydrate through it": "out/a.txt",
}


async def confine(probe: str, outside: str, packed: bytes, client: Client) -> list[str]:
    """Do one thing through a link that leads out of the workspace, and say how it went."""
    session = await client.create(options=None)
    try:
        async with session:
            await session.exec(f"ln -s {outside} out; ln -s {outside}/secret.txt secret")
            await session.write(Path("plain.txt"), io.BytesIO(b"plain\n"))
            try:
                answer = f"answer: {await PROBES[probe](session, io.BytesIO(packed))}"
            except Exception as error:  # noqa: BLE001 - whatever it is, it has to be the same
                answer = json.dumps(_told(error))
            left = await session.exec("find . -mindepth 1 | sort; cat plain.txt")
            return [answer, left.stdout.decode()]
    finally:
        await client.delete(session)


@workflow.defn
class Converse:
    """Runs the agent of a case."""

    @workflow.init
    def __init__(self, request: Request) -> None:
        self._stream = WorkflowStream()

    @workflow.run
    async def run(self, request: Request) -> Transcript:
        return await converse(request, temporal_sandbox_client("local"))


@workflow.defn
class ConverseUntilApproval:
    """Runs the agent of a case until it asks for approval."""

    @workflow.run
    async def run(self, request: Request) -> Transcript:
        return await converse_until_approval(request, temporal_sandbox_client("local"))


@workflow.defn
class ConverseFrom:
    """Goes on with a run that was saved."""

    @workflow.run
    async def run(self, request: Request, saved: Transcript) -> Transcript:
        return await converse_from(request, temporal_sandbox_client("local"), saved)


@workflow.defn
class Confine:
    """Does one thing through a link that leads out of the workspace."""

    @workflow.run
    async def run(self, probe: str, outside: str, packed: bytes) -> list[str]:
        return await confine(probe, outside, packed, temporal_sandbox_client("local"))


_NORMALISED = (
    (r"Chunk ID: [0-9a-f]{6}", "Chunk ID: ..."),
    (r"Wall time: [\d.]+ seconds", "Wall time: ..."),
    (r"session ID \d+", "session ID ..."),
    (r'(session_id\\*": ?)\d+', r"\g<1>0"),
    (r"PTY session not found: \d+", "PTY session not found: ..."),
    (r"/\w[\w/-]*/sandbox-local-\w+", "/workspace"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "TIME"),
    (r'"snapshot_fingerprint": "[0-9a-f]{64}"', '"snapshot_fingerprint": "..."'),
    (r'"backend_id": "(unix_local|local)"', '"backend_id": "local"'),
)


def normalised(transcript: object) -> list[str]:
    """Return the lines of the transcript, without what two runs never have in common."""
    text = json.dumps(transcript, default=_jsonable, indent=1, sort_keys=True)
    for pattern, replacement in _NORMALISED:
        text = re.sub(pattern, replacement, text)
    return text.splitlines()


def _jsonable(value: Any) -> object:  # noqa: ANN401 - models and dataclasses of the SDK
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else asdict(value)
