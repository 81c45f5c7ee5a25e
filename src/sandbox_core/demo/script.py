"""The demo's model if there is no key for a real one: it makes the same tool calls.

The commands and patches really run in the sandbox; only the decisions are scripted. The number of
tool outputs in the conversation determines the step, so that a repeated model call gives the same
answer on any worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agents import ModelProvider
from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.items import ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model, ModelTracing
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tool import Tool
from openai.types.responses import ResponseCustomToolCall, ResponseOutputItem

from sandbox_core.demo.workflow import TEST_COMMAND

_PATCH = """\
*** Begin Patch
*** Update File: cart/pricing.py
@@ def subtotal(items: list[Item]) -> int:
     \"\"\"Return the price of all items before any discount.\"\"\"
-    return sum(item.price for item in items)
+    return sum(item.price * item.quantity for item in items)
*** End Patch"""

_REPORT = (
    "subtotal() added up the price of one piece of each item and left the quantity out. It now "
    "multiplies the two, and all tests pass."
)


def _exec(call_id: str, command: str) -> ResponseOutputItem:
    return function_call("exec_command", {"cmd": command}, call_id=call_id)


_STEPS: tuple[ResponseOutputItem, ...] = (
    _exec("call-1", TEST_COMMAND),
    _exec("call-2", "cat cart/pricing.py"),
    ResponseCustomToolCall(
        type="custom_tool_call", call_id="call-3", name="apply_patch", input=_PATCH
    ),
    _exec("call-4", TEST_COMMAND),
    assistant_message(_REPORT),
)


class ScriptedRepair(ModelProvider):
    """Provides the scripted model, whatever its name."""

    def get_model(self, model_name: str | None) -> Model:
        """Return the scripted model."""
        return _ScriptedModel()


class _ScriptedModel(Model):
    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 - the SDK's name
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        **kwargs: Any,  # noqa: ANN401 - the SDK's signature
    ) -> ModelResponse:
        outputs = 0 if isinstance(input, str) else sum(map(_is_tool_output, input))
        return await ScriptedModel([[_STEPS[outputs]]]).get_response(
            system_instructions,
            [],  # Not recorded: the recorder cannot copy what Temporal has decoded.
            model_settings,
            tools,
            output_schema,
            handoffs,
            tracing,
            **kwargs,
        )

    def stream_response(
        self, *args: object, **kwargs: object
    ) -> AsyncIterator[TResponseStreamEvent]:
        raise NotImplementedError("the demo does not stream")


def _is_tool_output(item: TResponseInputItem) -> bool:
    return str(item.get("type", "")).endswith("_call_output")
