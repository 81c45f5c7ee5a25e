"""A workflow whose agent's model makes mistakes."""

from __future__ import annotations

from collections.abc import Sequence

from agents import Runner
from agents.run import RunConfig
from agents.run_config import SandboxRunConfig
from agents.sandbox import SandboxAgent
from agents.testing import assistant_message
from openai.types.responses import ResponseCustomToolCall, ResponseFunctionToolCall
from openai.types.responses.response_output_item import ResponseOutputItem
from scripts import Answer
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


def making(mistake: ResponseOutputItem) -> Answer:
    """Return a model that makes the mistake, and then repeats what it was told about it."""

    def answer(outputs: Sequence[str]) -> ResponseOutputItem:
        return assistant_message(f"told: {outputs[-1]}") if outputs else mistake

    return answer


@workflow.defn
class Mistakes:
    """Runs an agent whose model makes one mistake."""

    @workflow.run
    async def run(self, mistake: str) -> str:
        agent = SandboxAgent(name="mistaken", model=mistake, instructions="Make a mistake.")
        config = RunConfig(sandbox=SandboxRunConfig(client=temporal_sandbox_client("local")))
        result = await Runner.run(agent, "Go.", run_config=config)
        return str(result.final_output)
