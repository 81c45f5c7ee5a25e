"""A model for the examples, for those who have no key for a real one."""

import os
from collections.abc import AsyncIterator
from typing import Any

from agents import ModelProvider
from agents.items import ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.models.interface import Model
from agents.testing import ScriptedModel, assistant_message, function_call


def model_provider() -> ModelProvider | None:
    """Return None, which stands for OpenAI's models, if there is a key for them."""
    return None if os.environ.get("OPENAI_API_KEY") else _Obedience()


class _Obedience(ModelProvider):
    def get_model(self, model_name: str | None) -> Model:
        return _ObedientModel()


class _ObedientModel(Model):
    """Runs each message of the user as a command, and answers with its output."""

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 - the SDK's name
        *args: Any,  # noqa: ANN401 - the SDK's signature
        **kwargs: Any,  # noqa: ANN401 - the SDK's signature
    ) -> ModelResponse:
        last: dict[str, Any] = {"content": input} if isinstance(input, str) else {**input[-1]}
        if "output" in last:
            answer = assistant_message(str(last["output"]).split("Output:\n")[-1].strip())
        else:
            number = 0 if isinstance(input, str) else len(input)
            command = {"cmd": str(last["content"])}
            answer = function_call("exec_command", command, call_id=f"call-{number}")
        script = ScriptedModel([[answer]])
        return await script.get_response(system_instructions, [], *args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:  # noqa: ANN401
        raise NotImplementedError("the examples do not stream")
