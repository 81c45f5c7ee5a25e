"""Models whose answers depend only on the conversation, so that repeated calls get the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from agents import ModelProvider
from agents.items import ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.models.interface import Model
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseOutputItem

Answer = Callable[[Sequence[str]], ResponseOutputItem]
"""What a model answers to a conversation with these outputs of tools."""


def call(tool: str, **arguments: object) -> ResponseOutputItem:
    """Return a call of a tool."""
    return function_call(tool, arguments, call_id=f"call-{abs(hash((tool, str(arguments))))}")


def commands_then_report(*commands: str) -> Answer:
    """Return a model that runs the commands one by one, and says what they wrote."""

    def answer(outputs: Sequence[str]) -> ResponseOutputItem:
        if len(outputs) < len(commands):
            return call("exec_command", cmd=commands[len(outputs)])
        return assistant_message("|".join(output.split("Output:\n")[-1] for output in outputs))

    return answer


class Scripts(ModelProvider):
    """Provides a model by its name."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers

    def get_model(self, model_name: str | None) -> Model:
        """Return the model."""
        return Scripted(self._answers[model_name or ""])


class Scripted(Model):
    """Answers as a function says."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 - the SDK's name
        *args: Any,  # noqa: ANN401 - the SDK's signature
        **kwargs: Any,  # noqa: ANN401 - the SDK's signature
    ) -> ModelResponse:
        """Return the answer."""
        return await self._next(input).get_response(system_instructions, [], *args, **kwargs)

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 - the SDK's name
        *args: Any,  # noqa: ANN401 - the SDK's signature
        **kwargs: Any,  # noqa: ANN401 - the SDK's signature
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Stream the answer."""
        model = self._next(input)
        async for event in model.stream_response(system_instructions, [], *args, **kwargs):
            yield event

    def _next(self, conversation: str | list[TResponseInputItem]) -> ScriptedModel:
        items = [] if isinstance(conversation, str) else conversation
        outputs = [
            str(item.get("output"))
            for item in items
            if str(item.get("type", "")).endswith("_call_output")
        ]
        return ScriptedModel([[self._answer(outputs)]])
