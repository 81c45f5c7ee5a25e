"""A workflow whose agent's model makes mistakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agents import ModelProvider, Runner
from agents.items import ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.models.interface import Model
from agents.run import RunConfig
from agents.run_config import SandboxRunConfig
from agents.sandbox import SandboxAgent
from agents.testing import ScriptedModel, assistant_message
from openai.types.responses import ResponseCustomToolCall, ResponseFunctionToolCall
from openai.types.responses.response_output_item import ResponseOutputItem
from temporalio import workflow

from sandbox_core.workflow import temporal_sandbox_client


def _call(name: str, arguments: str) -> ResponseOutputItem:
    return ResponseFunctionToolCall(
        type="function_call", call_id="call-1", name=name, arguments=arguments
    )


MISTAKES: dict[str, ResponseOutputItem] = {
    "no JSON": _call("exec_command", '{"cmd": "ls'),
    "an empty command": _call("exec_command", '{"cmd": ""}'),
    "a missing argument": _call("exec_command", "{}"),
    "an unknown tool": _call("exec_comand", '{"cmd": "ls"}'),
    "a lone surrogate": _call("exec_command", r'{"cmd": "echo \ud800"}'),
    "a lone surrogate in raw arguments": _call("exec_command", '{"cmd": "echo \ud800"}'),
    "a NUL": _call("exec_command", r'{"cmd": "echo \u0000"}'),
    "an endless wait": _call("exec_command", '{"cmd": "ls", "yield_time_ms": 1e400}'),
    "a number beyond all bounds": _call(
        "exec_command", '{"cmd": "ls", "yield_time_ms": 1' + "0" * 400 + "}"
    ),
    "a process that is not there": _call("write_stdin", '{"session_id": 7, "chars": "x"}'),
    "no patch": ResponseCustomToolCall(
        type="custom_tool_call", call_id="call-1", name="apply_patch", input="*** Begin\n\ud800"
    ),
    "a patch outside": ResponseCustomToolCall(
        type="custom_tool_call",
        call_id="call-1",
        name="apply_patch",
        input="*** Begin Patch\n*** Add File: ../../x\n+x\n*** End Patch",
    ),
}


class MistakenModels(ModelProvider):
    """Provides a model that makes the mistake that its name names, and then is done."""

    def get_model(self, model_name: str | None) -> Model:
        """Return the model."""
        return _MistakenModel(MISTAKES[model_name or ""])


class _MistakenModel(Model):
    def __init__(self, mistake: ResponseOutputItem) -> None:
        self._mistake = mistake

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 - the SDK's name
        *args: Any,  # noqa: ANN401 - the SDK's signature
        **kwargs: Any,  # noqa: ANN401 - the SDK's signature
    ) -> ModelResponse:
        """Return the mistake, or what the model was told of it."""
        answers = [
            str(item.get("output"))
            for item in ([] if isinstance(input, str) else input)
            if str(item.get("type")).endswith("_call_output")
        ]
        step = [assistant_message(f"told: {answers[-1]}")] if answers else [self._mistake]
        return await ScriptedModel([step]).get_response(system_instructions, [], *args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:  # noqa: ANN401 - the SDK's signature
        """Stream nothing."""
        raise NotImplementedError


@workflow.defn
class Mistakes:
    """Runs an agent whose model makes one mistake."""

    @workflow.run
    async def run(self, mistake: str) -> str:
        agent = SandboxAgent(name="mistaken", model=mistake, instructions="Make a mistake.")
        config = RunConfig(sandbox=SandboxRunConfig(client=temporal_sandbox_client("local")))
        result = await Runner.run(agent, "Go.", run_config=config)
        return str(result.final_output)
